package config

import (
	"fmt"
	"net/netip"
	"time"

	"firstbell/proxy/peer"
)

// Clients says where clients' addresses are found and what each may ask.
type Clients struct {
	Trusted   []string  `yaml:"trusted" eg:"[\"10.0.0.0/8\"]"`   // proxies in front, which say who the client is; none unless said
	Forwarded string    `yaml:"forwarded" eg:"x-forwarded"`      // the fields that they write: x-forwarded (X-Forwarded-For and -Proto) or rfc7239 (Forwarded); x-forwarded unless said
	Allow     []string  `yaml:"allow" eg:"[\"192.0.2.0/24\"]"`   // addresses that may come in; all unless said
	Deny      []string  `yaml:"deny" eg:"[\"198.51.100.0/24\"]"` // addresses that may not
	IPv6      int       `yaml:"ipv6_prefix" eg:"64"`             // bits of an IPv6 address that are one client; 64 unless said
	PerClient Allowance `yaml:"per_client" eg:"{rate: 50/s}"`    // what one address may ask; no limit unless said
	PerSchool Allowance `yaml:"per_school" eg:"{at_once: 2000}"` // what all of one school may; no limit unless said
}

// Allowance is how much may be asked.
type Allowance struct {
	Rate     Rate `yaml:"rate" eg:"50/s"`   // requests, in the long run
	Burst    int  `yaml:"burst" eg:"250"`   // requests at once beyond it; what the rate lets through in 5 s unless said, 20 at least
	AtOnce   int  `yaml:"at_once" eg:"100"` // requests that wait for the end of their answers
	CheckIns bool `yaml:"check_ins"`        // check-ins and what is collected count and are refused, too; no unless said
}

// Every is the time between two requests at the rate; 0 without one.
func (a *Allowance) Every() time.Duration {
	if a.Rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / float64(a.Rate))
}

// defaults fills in what follows from the rest.
func (a *Allowance) defaults() {
	if a.Rate > 0 && a.Burst == 0 {
		a.Burst = max(20, int(5*a.Rate))
	}
}

func (v *validator) clients() {
	c := &v.c.Clients
	v.prefixes("clients.trusted", c.Trusted)
	v.prefixes("clients.allow", c.Allow)
	v.prefixes("clients.deny", c.Deny)
	for i, text := range c.Trusted {
		if p, err := peer.ParsePrefix(text); err == nil && p.Bits() == 0 {
			v.wrong(fmt.Sprintf("clients.trusted[%d]", i), "name the proxies in front, such as 10.0.0.0/8",
				"%s is everybody: each could claim any address", text)
		}
	}
	if v.given("clients.forwarded") && c.Forwarded != "x-forwarded" && c.Forwarded != "rfc7239" {
		v.wrong("clients.forwarded", "write x-forwarded or rfc7239", "%q is neither", c.Forwarded)
	} else if v.given("clients.forwarded") && len(c.Trusted) == 0 {
		v.wrong("clients.forwarded", `add trusted: ["10.0.0.0/8"], or remove it`, "nobody is trusted, so nobody's fields count")
	}
	if v.c.Listen.Proxy && len(c.Trusted) == 0 {
		v.wrong("listen.proxy_protocol", `add clients: {trusted: ["10.0.0.0/8"]} with the addresses of the proxies in front`,
			"nobody is trusted to say who a client is")
	}
	if v.given("clients.ipv6_prefix") && (c.IPv6 < 32 || c.IPv6 > 128) {
		v.wrong("clients.ipv6_prefix", "write 64, or 56 or 48 where one household has more", "%d is not between 32 and 128", c.IPv6)
	}
	v.allowance("clients.per_client", &c.PerClient)
	v.allowance("clients.per_school", &c.PerSchool)
	if c.PerClient.CheckIns && c.PerClient.Rate > 0 {
		v.warn("clients.per_client.check_ins", "leave check_ins out, or let burst be more than the students of the largest school",
			"a school behind one address sends all its check-ins within a minute")
	}
	if c.PerSchool.CheckIns && c.PerSchool.Rate > 0 {
		v.warn("clients.per_school.check_ins", "leave check_ins out, or let burst be more than the students of the largest school",
			"a school sends all its check-ins within a minute")
	}
}

func (v *validator) allowance(path string, a *Allowance) {
	for _, n := range []struct {
		key string
		n   int
	}{{"burst", a.Burst}, {"at_once", a.AtOnce}} {
		if at := path + "." + n.key; v.given(at) && (n.n < 1 || n.n > 1<<20) {
			v.wrong(at, "write how many requests, such as 100", "%d is no number of requests", n.n)
		}
	}
	if v.given(path+".burst") && a.Rate == 0 {
		v.wrong(path+".burst", "add rate: 50/s, or remove it", "a burst goes beyond a rate, and there is none")
	}
	said := v.given(path+".rate") || v.given(path+".burst") || v.given(path+".at_once")
	if v.given(path) && !said {
		v.wrong(path, "add rate: 50/s or at_once: 100", "nothing is limited")
	}
}

// prefixes checks a list of addresses and prefixes.
func (v *validator) prefixes(path string, list []string) {
	if v.given(path) && len(list) == 0 {
		v.wrong(path, "leave it out", "an empty list says nothing")
	}
	seen := map[netip.Prefix]bool{}
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		p, err := peer.ParsePrefix(text)
		if err != nil {
			what, fix := split(err.Error())
			if fix == "" {
				fix = "write an address such as 192.0.2.1, or a prefix such as 192.0.2.0/24"
			}
			v.wrong(at, fix, "%s", what)
			continue
		}
		if seen[p] {
			v.wrong(at, "remove one", "%s is there twice", text)
		}
		seen[p] = true
	}
}
