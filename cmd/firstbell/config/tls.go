package config

import (
	"fmt"
	"strings"
	"time"

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
	if l.HTTPS == "" {
		if v.given("tls") && !v.given("listen.https") {
			v.wrong("tls", `add listen: {https: ":443"}, or remove it`, "nothing listens for TLS")
		}
		return
	}
	if len(t.Certificates) == 0 {
		v.wrong("listen.https", "add tls: {certificates: [{cert: /etc/firstbell/school.pem, key: /etc/firstbell/school.key}]}", "there is no certificate to show")
	}
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
	for i, r := range v.c.Routes {
		for j, host := range r.Hosts {
			if host != "*" && !names.Has(host) {
				v.warn(fmt.Sprintf("routes[%d].hosts[%d]", i, j), "add a certificate for it under tls.certificates", "there is no certificate for %s: browsers will warn", host)
			}
		}
	}
}

// Pairs are the certificates as package certs takes them.
func Pairs(t *TLS) []certs.Pair {
	pairs := make([]certs.Pair, len(t.Certificates))
	for i, c := range t.Certificates {
		pairs[i] = certs.Pair{Cert: c.Cert, Key: c.Key}
	}
	return pairs
}
