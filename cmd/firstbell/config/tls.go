package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"firstbell/proxy"
	"firstbell/proxy/certs"
)

// tls checks what is shown on listen.https.
func (v *validator) tls() {
	l, t := &v.c.Listen, &v.c.TLS
	if l.HTTPS != "" && v.address("listen.https", l.HTTPS, ":443") {
		for _, other := range [...]struct{ key, address string }{{"listen.http", l.HTTP}, {"listen.ops", l.Ops}} {
			if l.HTTPS == other.address && !strings.HasSuffix(l.HTTPS, ":0") {
				v.wrong("listen.https", `give it a port of its own, such as ":443"`, "%s is taken by %s", l.HTTPS, other.key)
			}
		}
	}
	if l.HTTP3 != "" && v.address("listen.http3", l.HTTP3, ":443") && l.HTTPS == "" {
		v.wrong("listen.http3", `add https: ":443" beside it`, "browsers find HTTP/3 by what they are told over HTTPS, and it shows the same certificates")
	}
	if v.given("listen.http3_port") && (l.HTTP3 == "" || l.HTTP3Port < 1 || l.HTTP3Port > 65535) {
		v.wrong("listen.http3_port", `write http3_port: 443 beside http3: ":8443"`, "%d is no port that packets for listen.http3 could come from", l.HTTP3Port)
	}
	if l.HTTPS == "" {
		if v.given("tls") && !v.given("listen.https") {
			v.wrong("tls", `add listen: {https: ":443"}, or remove it`, "nothing listens for TLS")
		}
		return
	}
	if len(t.Certificates) == 0 && !v.given("tls.acme") {
		v.wrong("listen.https", "add tls: {certificates: [{cert: /etc/firstbell/school.pem, key: /etc/firstbell/school.key}]}, or tls: {acme: …}", "there is no certificate to show")
	}
	v.acme()
	seen := map[Certificate]bool{}
	for i := range t.Certificates {
		c, path := &t.Certificates[i], fmt.Sprintf("tls.certificates[%d]", i)
		if c.Cert == "" {
			v.wrong(path+".cert", "add cert: /etc/firstbell/school.pem", "there is no certificate")
		}
		if c.Key == "" {
			v.wrong(path+".key", "add key: /etc/firstbell/school.key, or the certificate's file again where it holds both", "the certificate has no key")
		}
		c.Cert, c.Key = v.beside(c.Cert), v.beside(c.Key)
		if seen[*c] {
			v.wrong(path, "remove one", "%s is there twice", c.Cert)
		}
		seen[*c] = true
	}
	t.TicketKeys = v.beside(t.TicketKeys)
	v.redirect("tls.redirect", t.Redirect, v.given("tls.redirect"))
	v.hsts("tls.hsts", t.HSTS)
}

func (v *validator) redirect(path string, status int, given bool) {
	if given && status != 301 && status != 308 {
		v.wrong(path, "write 308, or 301 for clients that know nothing newer", "%d does not send to https for good", status)
	}
}

// hstsPreloadMin is what the browsers' list asks for.
const hstsPreloadMin = 365 * 24 * time.Hour

func (v *validator) hsts(path string, h *HSTS) {
	switch {
	case h == nil:
	case !v.given(path + ".max_age"):
		v.wrong(path, "add max_age: 8760h", "it does not say for how long")
	case h.MaxAge%time.Second != 0:
		v.wrong(path+".max_age", "write whole seconds, such as 8760h", "%s is not whole seconds", h.MaxAge)
	case h.Preload && (!h.Subdomains || h.MaxAge < hstsPreloadMin):
		v.wrong(path+".preload", "add subdomains: true and max_age: 8760h", "the browsers' list takes only a year or more, with all subdomains")
	}
}

// routeTLS checks what a route says for itself.
func (v *validator) routeTLS(path string, r *Route) {
	if !v.given(path) {
		return
	}
	if v.c.Listen.HTTPS == "" && !v.given("listen.https") {
		v.wrong(path, `add listen: {https: ":443"}, or remove it`, "nothing listens for TLS")
		return
	}
	if s := r.TLS.Redirect; s != nil && *s != 0 {
		v.redirect(path+".redirect", *s, true)
	}
	v.hsts(path+".hsts", r.TLS.HSTS)
}

// OverTLS is what becomes of a route's requests in plain, nil when they are
// answered, and the value of Strict-Transport-Security for those by https.
func (c *Config) OverTLS(r *Route) (*proxy.Redirect, string) {
	if c.Listen.HTTPS == "" {
		return nil, ""
	}
	status, h := c.TLS.Redirect, c.TLS.HSTS
	if r.TLS.Redirect != nil {
		status = *r.TLS.Redirect
	}
	if r.TLS.HSTS != nil {
		h = r.TLS.HSTS
	}
	return redirectOf(status, c.Listen.HTTPS), h.value()
}

func redirectOf(status int, address string) *proxy.Redirect {
	if status == 0 {
		return nil
	}
	_, port, _ := net.SplitHostPort(address) // it has been checked
	return &proxy.Redirect{Status: status, Port: port}
}

// value is RFC 6797, section 6.1.
func (h *HSTS) value() string {
	if h == nil {
		return ""
	}
	text := fmt.Sprintf("max-age=%d", h.MaxAge/time.Second)
	if h.Subdomains {
		text += "; includeSubDomains"
	}
	if h.Preload {
		text += "; preload"
	}
	return text
}

// originTLS checks how an origin's servers by https are spoken to.
func (v *validator) originTLS(path string, o *Origin) {
	if !v.given(path) {
		return
	}
	t := &o.TLS
	if !slices.ContainsFunc(o.Servers, func(s string) bool { return strings.HasPrefix(s, "https://") }) {
		v.wrong(path, "write servers: [\"https://…\"], or remove it", "no server of this origin is asked over TLS")
		return
	}
	switch {
	case t.Cert != "" && t.Key == "":
		v.wrong(path+".key", "add key: /etc/firstbell/firstbell.key", "the certificate has no key")
	case t.Cert == "" && t.Key != "":
		v.wrong(path+".cert", "add cert: /etc/firstbell/firstbell.pem", "the key has no certificate")
	}
	if t.ServerName != "" {
		if host, what, _ := normalHost(t.ServerName); what != "" || strings.HasPrefix(host, "*") {
			v.wrong(path+".server_name", "write the name in its certificate, such as lms.internal.example", "%q is not a host name", t.ServerName)
		}
	}
	t.CA, t.Cert, t.Key = v.beside(t.CA), v.beside(t.Cert), v.beside(t.Key)
}

// readOriginFiles reads what origins are known by.
func (v *validator) readOriginFiles() {
	for _, name := range SortedKeys(v.c.Origins) {
		if o := v.c.Origins[name]; o != nil && !v.bad[join("origins", name)] {
			v.readOriginTLS(join("origins", name)+".tls", &o.TLS)
		}
	}
}

func (v *validator) readOriginTLS(path string, t *OriginTLS) {
	if t.CA == "" && t.Cert == "" && t.ServerName == "" {
		return
	}
	t.Config = &tls.Config{ServerName: t.ServerName}
	digest := sha256.New()
	if t.CA != "" {
		text, err := readBounded(t.CA, 1<<20)
		if err != nil {
			v.wrong(path+".ca", "name the CA's certificate in PEM", "%s: %s", t.CA, reasonOf(err))
			return
		}
		t.Config.RootCAs = x509.NewCertPool()
		if !t.Config.RootCAs.AppendCertsFromPEM(text) {
			v.wrong(path+".ca", "name the CA's certificate in PEM", "%s holds no certificate", t.CA)
		}
		digest.Write(text)
	}
	if t.Cert != "" {
		pair, err := certs.ReadIdentity(certs.Pair{Cert: t.Cert, Key: t.Key})
		if err != nil {
			v.wrong(path+".cert", "name a certificate chain and its key, both in PEM and readable for the user firstbell runs as", "%v", err)
			return
		}
		if err := certs.Untimely(pair.Leaf, time.Now()); err != nil {
			v.warn(path+".cert", "renew it", "%s: %v", t.Cert, err)
		}
		t.Config.Certificates = []tls.Certificate{*pair}
		digest.Write(pair.Leaf.Raw)
	}
	t.Digest = hex.EncodeToString(digest.Sum(nil))
}

// expirySoon is how long before its end a certificate is warned about. Those of
// today's CAs live for 47 to 90 days and are renewed with a third to go.
const expirySoon = 10 * 24 * time.Hour

// readCertificates reads what is shown, and looks for hosts for which there is
// nothing.
func (v *validator) readCertificates() {
	t := &v.c.TLS
	if v.c.Listen.HTTPS == "" {
		return
	}
	v.readACME()
	names, err := certs.New(certs.Options{TicketKeys: t.TicketKeys})
	if err != nil {
		what, fix := split(err.Error())
		v.wrong("tls.ticket_keys", fix, "%s", what)
		return
	}
	for i, c := range t.Certificates {
		path := fmt.Sprintf("tls.certificates[%d]", i)
		pair := certs.Pair{Cert: c.Cert, Key: c.Key}
		read, err := certs.ReadPair(pair)
		if err != nil {
			v.wrong(path, "name a certificate chain and its key, both in PEM and readable for the user firstbell runs as", "%v", err)
			continue
		}
		if err := certs.Untimely(read.Leaf, time.Now()); err != nil {
			v.warn(path, "renew it", "%s: %v", c.Cert, err)
		} else if certs.Untimely(read.Leaf, time.Now().Add(expirySoon)) != nil {
			v.warn(path, "renew it", "%s expires on %s", c.Cert, read.Leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if names.Load(Pairs(t)) != nil {
		return // each has been told
	}
	v.hostsWithout(names)
}

// hostsWithout warns of the hosts of routes for which there is nothing to show.
func (v *validator) hostsWithout(names *certs.Store) {
	got := v.c.ACMENames()
	for i, r := range v.c.Routes {
		for j, host := range r.Hosts {
			switch rest, wild := strings.CutPrefix(host, "*."); {
			case host == "*" || names.Has(host):
			case v.c.TLS.ACME == nil:
				v.warn(fmt.Sprintf("routes[%d].hosts[%d]", i, j), "add a certificate for it under tls.certificates", "there is no certificate for %s: browsers will warn", host)
			case wild && !slices.ContainsFunc(got, func(name string) bool { return strings.HasSuffix(name, "."+rest) }):
				v.warn(fmt.Sprintf("routes[%d].hosts[%d]", i, j), "list its schools under schools, or add a wildcard certificate under tls.certificates", "acme gets nothing for %s: a wildcard needs a change in DNS, and no school has a name below it", host)
			}
		}
	}
}

// directoryDefault is Let's Encrypt's.
const directoryDefault = "https://acme-v02.api.letsencrypt.org/directory"

// acme checks how certificates are got.
func (v *validator) acme() {
	a := v.c.TLS.ACME
	if a == nil {
		return
	}
	if at := strings.IndexByte(a.Email, '@'); at < 1 || at == len(a.Email)-1 || strings.ContainsAny(a.Email, " ,<>") {
		v.wrong("tls.acme.email", "add email: ops@city.example", "%q is no address that the CA could write to", a.Email)
	}
	if a.Storage == "" {
		v.wrong("tls.acme.storage", "add storage: /var/lib/firstbell/certificates", "there is no directory to keep certificates in")
	}
	a.Storage, a.CA = v.beside(a.Storage), v.beside(a.CA)
	if a.Directory == "" {
		a.Directory = directoryDefault
	} else if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		v.wrong("tls.acme.directory", "write "+directoryDefault, "%q is not a URL by https", a.Directory)
	}
	if a.OrdersPerHour < 0 || a.OrdersPerHour > 100_000 {
		v.wrong("tls.acme.orders_per_hour", "leave it out for 80", "%d is no bound", a.OrdersPerHour)
	}
	if a.NewPerDomain < 0 || a.NewPerDomain > 1_000_000 {
		v.wrong("tls.acme.new_per_domain_and_week", "leave it out for 45", "%d is no bound", a.NewPerDomain)
	}
	if e := a.Account; e != nil {
		if e.KeyID == "" || e.MACFile == "" {
			v.wrong("tls.acme.external_account", "write {key_id: …, mac_file: /etc/firstbell/acme.mac} with what the CA gave you", "an external account has a key's id and the key")
		}
		e.MACFile = v.beside(e.MACFile)
	}
	if _, port, err := net.SplitHostPort(v.c.Listen.HTTP); v.c.Listen.HTTP == "" || err == nil && port != "80" && port != "0" {
		if _, port, err := net.SplitHostPort(v.c.Listen.HTTPS); err == nil && port != "443" && port != "0" {
			v.warn("tls.acme", `see to it that port 80 or 443 of every host leads here`, "CAs ask at the ports 80 and 443, and firstbell listens at neither")
		}
	}
}

// readACME reads what the file names for acme.
func (v *validator) readACME() {
	a := v.c.TLS.ACME
	if a == nil {
		return
	}
	v.writableDir("tls.acme.storage", a.Storage)
	if a.Account != nil && a.Account.MACFile != "" {
		a.Account.MAC = v.secretFile("tls.acme.external_account.mac_file", a.Account.MACFile)
	}
	if a.CA == "" {
		return
	}
	text, err := readBounded(a.CA, 1<<20)
	if err != nil {
		v.wrong("tls.acme.ca", "name the CA's certificate in PEM", "%s: %s", a.CA, reasonOf(err))
		return
	}
	a.Roots = x509.NewCertPool()
	if !a.Roots.AppendCertsFromPEM(text) {
		v.wrong("tls.acme.ca", "name the CA's certificate in PEM", "%s holds no certificate", a.CA)
	}
}

// ACMENames are the names that certificates are got for: every exact host of a
// route, and of the schools those that a route takes by a wildcard. It is nil
// without acme. Addresses and names without a dot are left out, as no CA knows
// them.
func (c *Config) ACMENames() []string {
	if c.TLS.ACME == nil || c.Listen.HTTPS == "" {
		return nil
	}
	names, wild, all := map[string]bool{}, map[string]bool{}, false
	add := func(host string) {
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ".") && !strings.ContainsAny(host, "[_*") {
			names[host] = true
		}
	}
	for _, r := range c.Routes {
		for _, host := range r.Hosts {
			rest, under := strings.CutPrefix(host, "*.")
			switch {
			case host == "*":
				all = true
			case under:
				wild[rest] = true
			default:
				add(host)
			}
		}
	}
	for _, s := range c.Schools.List {
		for _, host := range s.Hosts {
			if _, rest, _ := strings.Cut(host, "."); all || wild[rest] {
				add(host)
			}
		}
		if len(s.Hosts) == 0 {
			for rest := range wild {
				add(strings.ToLower(s.ID) + "." + rest)
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Pairs are the certificates as package certs takes them.
func Pairs(t *TLS) []certs.Pair {
	pairs := make([]certs.Pair, len(t.Certificates))
	for i, c := range t.Certificates {
		pairs[i] = certs.Pair{Cert: c.Cert, Key: c.Key}
	}
	return pairs
}
