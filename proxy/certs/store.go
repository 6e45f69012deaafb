package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mholt/acmez/v3"
)

// Options are what a Store is made of.
type Options struct {
	// Serves reports whether a host is ours: in lower case, without port and
	// trailing dot. It is asked at every handshake, by many at once.
	Serves func(host string) bool
	// TicketKeys is a file with the keys of session tickets, which nodes share;
	// empty: each process makes its own.
	TicketKeys string
	// ACME has certificates got for the names of Want; nil: only files are shown.
	ACME *ACME
	Log  *slog.Logger // nil: nothing is logged
}

// A Store chooses certificates. Its methods may be called by many at once.
type Store struct {
	serves func(host string) bool
	log    *slog.Logger

	table    atomic.Pointer[table]
	nameless *tls.Config // refuses every handshake as one for an unknown name

	acme      *authority // nil without ACME, as the two that follow
	queue     *queue
	challenge *tls.Config // answers tls-alpn-01

	mu      sync.Mutex // guards what follows
	files   []*file
	tickets tickets
	configs []*tls.Config // made by Config: ticket keys go to all of them
}

// certificate is one as clients are shown it.
type certificate struct {
	*tls.Certificate
	origin string // the file or issuer it is from
}

// table is what is shown by name. It never changes.
type table struct {
	exact    map[string]*certificate
	wildcard map[string]*certificate // by what follows the first label
	standIn  *certificate            // for names that none has; nil without any
}

// New returns a store without certificates.
func New(o Options) (*Store, error) {
	s := &Store{serves: o.Serves, log: o.Log, tickets: tickets{file: o.TicketKeys}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.table.Store(&table{})
	s.nameless = &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		// Without any certificate crypto/tls answers unrecognized_name.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
	}
	if _, err := s.tickets.renew(); err != nil {
		return nil, err
	}
	if o.ACME == nil {
		return s, nil
	}
	var err error
	if s.acme, err = newAuthority(o.ACME); err != nil {
		return nil, err
	}
	s.queue = newQueue(s.acme, o.ACME.Limits, s.log, s.issued)
	s.challenge = &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: s.acme.challenge,
	}
	return s, nil
}

// Close ends what the store does by itself, where Run has not been called or has
// returned.
func (s *Store) Close() {
	if s.acme != nil {
		s.acme.close()
	}
}

// Want has a certificate got, and renewed, for each of the names for which there
// is none in a file; none are without ACME, nor for wildcards. What is on disk
// for them is shown from now on.
func (s *Store) Want(ctx context.Context, names []string) {
	if s.queue == nil {
		return
	}
	s.mu.Lock()
	files := s.tableLocked(nil)
	s.mu.Unlock()
	s.queue.want(ctx, slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return strings.HasPrefix(name, "*") || files.named(name) != nil
	}))
	s.issued()
}

// issued puts what the queue got into force.
func (s *Store) issued() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tabulateLocked()
}

// AnswerChallenge is the content for a CA that asks host for a path below
// /.well-known/acme-challenge/, and whether there is any.
func (s *Store) AnswerChallenge(host, path string) ([]byte, bool) {
	if s.acme == nil {
		return nil, false
	}
	return s.acme.answer(host, path)
}

// Config returns what handshakes go by that agree on one of the protocols. What
// it shows follows the store.
func (s *Store) Config(protocols ...string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		// The hybrid first: recorded today, it stays closed to the machines of
		// tomorrow. P-384 and P-521 cost ten times P-256 and bring nobody in.
		CurvePreferences:   []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		GetCertificate:     s.choose,
		GetConfigForClient: s.configFor,
		// Small first records show a page a round trip sooner on a slow line, and
		// cost a write each; kept-alive pages are worth more.
		DynamicRecordSizingDisabled: true,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.SetSessionTicketKeys(s.tickets.keys)
	s.configs = append(s.configs, c)
	return c
}

// configFor refuses names that are not ours before anything else is looked at,
// a session ticket for one of ours included.
func (s *Store) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if hello.ServerName == "" || s.serves(strings.ToLower(hello.ServerName)) {
		if s.challenge != nil && challenges(hello) {
			return s.challenge, nil
		}
		return nil, nil
	}
	if c, ok := hello.Conn.(interface{ UnknownName() }); ok {
		c.UnknownName()
	}
	return s.nameless, nil
}

// choose is the certificate for a name that is ours, or for who names none.
func (s *Store) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.table.Load().find(strings.ToLower(hello.ServerName))
	if c == nil {
		return nil, nil
	}
	return c.Certificate, nil
}

func (t *table) find(name string) *certificate {
	if c := t.named(name); c != nil {
		return c
	}
	return t.standIn
}

// named is find without the one that stands in.
func (t *table) named(name string) *certificate {
	if c := t.exact[name]; c != nil {
		return c
	}
	if _, rest, found := strings.Cut(name, "."); found {
		return t.wildcard[rest]
	}
	return nil
}

// Covers reports whether the certificate shown to who names sni, or no name
// where it is empty, is good for the host as well.
func (s *Store) Covers(sni, host string) bool {
	c := s.table.Load().find(sni)
	return c != nil && c.Leaf.VerifyHostname(host) == nil
}

// Has reports whether there is a certificate with that name, which may be a
// wildcard. It is for a host of a route.
func (s *Store) Has(host string) bool {
	t := s.table.Load()
	if rest, wild := strings.CutPrefix(host, "*."); wild {
		return t.wildcard[rest] != nil
	}
	return t.named(host) != nil
}

// namesOf are the names a certificate is for, in lower case.
func namesOf(leaf *x509.Certificate) []string {
	names := make([]string, 0, len(leaf.DNSNames)+len(leaf.IPAddresses))
	for _, n := range leaf.DNSNames {
		names = append(names, strings.TrimSuffix(strings.ToLower(n), "."))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return slices.Compact(names)
}

// Put adds a certificate that is in no file, behind those that are there. Its
// Leaf is set.
func (s *Store) Put(c *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, &file{now: &certificate{c, "given"}})
	s.tabulateLocked()
}

// tabulateLocked puts what there is into force.
func (s *Store) tabulateLocked() {
	var more []*certificate
	if s.queue != nil {
		more = s.queue.certificates()
	}
	s.table.Store(s.tableLocked(more))
}

// tableLocked is what the files hold and more behind it: the first in order with
// a name wins.
func (s *Store) tableLocked(more []*certificate) *table {
	t := &table{exact: map[string]*certificate{}, wildcard: map[string]*certificate{}}
	for _, f := range s.files {
		if f.now != nil {
			t.add(f.now)
		}
	}
	for _, c := range more {
		t.add(c)
	}
	return t
}

func (t *table) add(c *certificate) {
	for _, name := range namesOf(c.Leaf) {
		into := t.exact
		if rest, wild := strings.CutPrefix(name, "*."); wild {
			name, into = rest, t.wildcard
		}
		if into[name] == nil {
			into[name] = c
		}
	}
	if t.standIn == nil {
		t.standIn = c
	}
}

// describe is how a certificate is called in errors and logs.
func describe(leaf *x509.Certificate) string {
	names := namesOf(leaf)
	if len(names) == 0 {
		return "a certificate without names"
	}
	if len(names) > 1 {
		return fmt.Sprintf("the certificate of %s and %d more", names[0], len(names)-1)
	}
	return "the certificate of " + names[0]
}
