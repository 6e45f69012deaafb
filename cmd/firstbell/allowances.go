package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
	"firstbell/proxy/admission"
	"firstbell/proxy/peer"
)

// This file turns what the file says of clients into what the proxy takes, and
// shows what came of it.

// clientsOf is what c says about clients; nil where that is nothing.
func clientsOf(c *config.Config) (*proxy.Clients, error) {
	f := &c.Clients
	out := &proxy.Clients{
		RFC7239: f.Forwarded == "rfc7239", Preface: c.Listen.Proxy, V6Bits: f.IPv6,
		PerClient: allowanceOf(&f.PerClient), PerSchool: allowanceOf(&f.PerSchool),
	}
	var err error
	if out.Trusted, err = peer.NewSet(f.Trusted); err != nil {
		return nil, fmt.Errorf("reading clients.trusted: %w", err)
	}
	if a, err := accessOf(f.Allow, f.Deny); err != nil {
		return nil, fmt.Errorf("reading clients: %w", err)
	} else if a != nil {
		out.Access = *a
	}
	if out.PerSchool != (proxy.Allowance{}) {
		if out.Schools, err = schoolsOf(c); err != nil {
			return nil, err
		}
	}
	if len(f.Trusted)+len(f.Allow)+len(f.Deny) == 0 && out.PerClient == (proxy.Allowance{}) && out.PerSchool == (proxy.Allowance{}) {
		return nil, nil
	}
	return out, nil
}

func allowanceOf(a *config.Allowance) proxy.Allowance {
	return proxy.Allowance{Rate: admission.Rate{Every: a.Every(), Burst: a.Burst}, AtOnce: a.AtOnce, CheckIns: a.CheckIns}
}

// accessOf is nil where both lists are empty.
func accessOf(allow, deny []string) (*proxy.Access, error) {
	if len(allow)+len(deny) == 0 {
		return nil, nil
	}
	var a proxy.Access
	var err error
	if a.Allow, err = peer.NewSet(allow); err != nil {
		return nil, fmt.Errorf("allow: %w", err)
	}
	if a.Deny, err = peer.NewSet(deny); err != nil {
		return nil, fmt.Errorf("deny: %w", err)
	}
	return &a, nil
}

// clientsMeaning is what the file's clients may, line by line.
func clientsMeaning(c *config.Config) (lines []string) {
	f := &c.Clients
	if len(f.Trusted) > 0 {
		says := "X-Forwarded-For and X-Forwarded-Proto"
		if f.Forwarded == "rfc7239" {
			says = "Forwarded"
		}
		if c.Listen.Proxy {
			says = "the PROXY protocol, which they must speak, then " + says
		}
		lines = append(lines, strings.Join(f.Trusted, ", ")+" say who asks: "+says)
	}
	if len(f.Allow)+len(f.Deny) > 0 {
		lines = append(lines, accessMeaning(f.Allow, f.Deny))
	}
	for _, one := range []struct {
		who string
		a   *config.Allowance
	}{{"an address", &f.PerClient}, {"a school", &f.PerSchool}} {
		if text := allowanceMeaning(one.a); text != "" {
			lines = append(lines, one.who+" may make "+text)
		}
	}
	return lines
}

// accessMeaning is who may come in.
func accessMeaning(allow, deny []string) string {
	text := "everybody may come in"
	if len(allow) > 0 {
		text = strings.Join(allow, ", ") + " may come in"
	}
	if len(deny) > 0 {
		text += ", but not " + strings.Join(deny, ", ")
	}
	return text
}

var (
	mDenied      = counter("proxy_denied_total", "Requests from addresses that are not let in, here or by their route.")
	mUnreadable  = counter("proxy_forwarded_malformed_total", "Requests of trusted proxies whose Forwarded field is malformed.")
	mPrefaceless = counter("proxy_preface_missing_total", "Connections of trusted proxies that did not begin with a header of the PROXY protocol.")
	mLimited     = counter("proxy_limited_total", "Requests refused with 429, by the limit.", "limit")
	mRated       = gauge("proxy_rated", "Clients and schools whose rate of requests is remembered.", "of")
)

// limitStatus is about clients that were kept out, or asked for too much.
type limitStatus struct {
	Denied      int64            `json:"denied"`            // requests, by address
	Unreadable  int64            `json:"unreadable"`        // requests of trusted proxies with a malformed Forwarded
	Prefaceless int64            `json:"preface_missing"`   // connections of trusted proxies without a PROXY protocol header
	Limited     map[string]int64 `json:"limited,omitempty"` // requests refused, by the limit
}

func limitReport(c *proxy.ClientStats) limitStatus {
	s := limitStatus{Denied: c.Denied, Unreadable: c.Unreadable, Prefaceless: c.Prefaceless, Limited: map[string]int64{}}
	for limit, n := range c.Limited {
		if n > 0 {
			s.Limited[limit] = n
		}
	}
	return s
}

// print adds to the line about clients.
func (s *limitStatus) print(w io.Writer) {
	for _, limit := range config.SortedKeys(s.Limited) {
		fmt.Fprintf(w, ", %s %d", limit, s.Limited[limit])
	}
	if s.Denied > 0 {
		fmt.Fprintf(w, ", requests denied %d", s.Denied)
	}
	if s.Prefaceless > 0 {
		fmt.Fprintf(w, ", WITHOUT PROXY PROTOCOL %d", s.Prefaceless)
	}
	if s.Unreadable > 0 {
		fmt.Fprintf(w, ", MALFORMED FORWARDED %d", s.Unreadable)
	}
}

func collectLimits(ch chan<- prometheus.Metric, c *proxy.ClientStats) {
	mDenied.send(ch, float64(c.Denied))
	mUnreadable.send(ch, float64(c.Unreadable))
	mPrefaceless.send(ch, float64(c.Prefaceless))
	for limit, n := range c.Limited {
		mLimited.send(ch, float64(n), limit)
	}
	mRated.send(ch, float64(c.Clients), "clients")
	mRated.send(ch, float64(c.Schools), "schools")
}

// allowanceMeaning is empty where nothing is limited.
func allowanceMeaning(a *config.Allowance) string {
	var parts []string
	if a.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%g requests a second, %d at once beyond that", float64(a.Rate), a.Burst))
	}
	if a.AtOnce > 0 {
		parts = append(parts, fmt.Sprintf("%d that wait for the end of their answers", a.AtOnce))
	}
	if len(parts) == 0 {
		return ""
	}
	small := "; check-ins do not count"
	if a.CheckIns {
		small = "; CHECK-INS COUNT, TOO"
	}
	return strings.Join(parts, ", and ") + small
}
