package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// ACME says how certificates are got from a CA (RFC 8555).
type ACME struct {
	Directory string         // the CA's URL
	Email     string         // whom the CA writes to
	Storage   string         // the directory that keeps accounts, keys and certificates; nodes may share it
	Roots     *x509.CertPool // who signs the certificate of the directory itself; nil: the system's CAs
	KeyID     string         // of the external account, with MACKey in base64url; empty: none
	MACKey    string
	HTTP      string // host:port of the listener that answers http-01; empty: none does
	TLS       string // host:port of the listener that answers tls-alpn-01
	Limits    Limits
}

// Limits are what a CA bears of one account. Zero values mean the defaults.
type Limits struct {
	OrdersPerHour int // default 80; Let's Encrypt takes 300 in three hours
	NewPerDomain  int // certificates for new names of a registered domain in a week; default 45 of Let's Encrypt's 50
	AtOnce        int // orders under way; default 4: so many a slow CA holds up
}

// orderTimeMax bounds one order, from the first word to the certificate on disk.
const orderTimeMax = 90 * time.Second

// authority asks a CA by means of certmagic, which also keeps what comes of it.
type authority struct {
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer
	cache  *certmagic.Cache
}

// unlimited turns certmagic's own limit off, which is one for all processes of
// this kind; the queue's goes before it, by what the CA says it bears.
var unlimited = sync.OnceFunc(func() { certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0 })

func newAuthority(a *ACME) (*authority, error) {
	unlimited()
	out := &authority{}
	// Its cache stays empty: what is shown is the Store's, and renewing the queue's.
	out.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return out.config, nil },
		Logger:           zap.NewNop(),
	})
	out.config = certmagic.New(out.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: a.Storage},
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		Logger:  zap.NewNop(), // its errors are returned, too
	})
	template := certmagic.ACMEIssuer{
		CA: a.Directory, TestCA: a.Directory, Email: a.Email, Agreed: true,
		TrustedRoots: a.Roots, CertObtainTimeout: orderTimeMax * 2 / 3, Logger: zap.NewNop(),
		DisableHTTPChallenge: a.HTTP == "", DisableTLSALPNChallenge: a.TLS == "",
	}
	if a.KeyID != "" {
		template.ExternalAccount = &acme.EAB{KeyID: a.KeyID, MACKey: a.MACKey}
	}
	// It looks whether somebody listens where challenges are answered, and it is us.
	for _, at := range []struct {
		address string
		port    *int
	}{{a.TLS, &template.AltTLSALPNPort}, {a.HTTP, &template.AltHTTPPort}} {
		if at.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(at.address)
		if err == nil {
			*at.port, err = strconv.Atoi(port)
		}
		if err != nil {
			return nil, fmt.Errorf("preparing ACME: the address %s: %w", at.address, err)
		}
		template.ListenHost = host
	}
	out.issuer = certmagic.NewACMEIssuer(out.config, template)
	if err := bound(out.issuer); err != nil {
		return nil, fmt.Errorf("preparing ACME: %w", err)
	}
	out.config.Issuers = []certmagic.Issuer{out.issuer}
	return out, nil
}

// order gets a certificate for name and keeps it on disk, or returns why not.
func (a *authority) order(ctx context.Context, name string, renew bool) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeMax)
	defer cancel()
	var err error
	if renew {
		err = a.config.RenewCertSync(ctx, name, true)
	} else {
		err = a.config.ObtainCertSync(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	c, err := a.load(ctx, name)
	if err == nil {
		err = Untimely(c.Leaf, time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("what the CA issued is not good: %w", err)
	}
	return c, nil
}

// load returns what is on disk for name; nil where there is nothing.
func (a *authority) load(ctx context.Context, name string) (*tls.Certificate, error) {
	issuer := a.issuer.IssuerKey()
	chain, err := a.config.Storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %s: %w", name, err)
	}
	key, err := a.config.Storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil {
		return nil, fmt.Errorf("reading the key of %s: %w", name, err)
	}
	c, err := tls.X509KeyPair(chain, key)
	if err == nil {
		err = c.Leaf.VerifyHostname(name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %s: %w", name, err)
	}
	return &c, nil
}

// blame says whose fault an order's error is.
func (a *authority) blame(err error) blame {
	problem, told := errors.AsType[acme.Problem](err)
	switch {
	case told && (problem.Type == acme.ProblemTypeRateLimited || problem.Status == http.StatusTooManyRequests):
		return blameHaste
	case told && problem.Status < 500:
		return blameName
	}
	return blameCA
}

func (a *authority) close() { a.cache.Stop() }

// answer is the content for http-01, and whether there is one.
func (a *authority) answer(host, path string) ([]byte, bool) {
	r := &http.Request{Method: http.MethodGet, Host: host, URL: &url.URL{Path: path}}
	w := &captured{header: http.Header{}}
	if !a.issuer.HandleHTTPChallenge(w, r) {
		return nil, false
	}
	return w.Bytes(), true
}

// captured is an answer in memory.
type captured struct {
	bytes.Buffer
	header http.Header
}

// Header implements http.ResponseWriter.
func (c *captured) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *captured) WriteHeader(int) {}

// challenge is the certificate for tls-alpn-01 (RFC 8737).
func (a *authority) challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.config.GetCertificate(hello)
}

// challenges reports whether a hello is a CA's question.
func challenges(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}
