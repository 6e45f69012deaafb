package main

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
	"firstbell/proxy/certs"
)

// This file is about TLS: the certificates of listen.https, and what is told of
// them.

// openCertificates reads what is shown on listen.https, if there is one.
func (s *server) openCertificates(c *config.Config) (err error) {
	if s.secureNet == nil {
		return nil
	}
	s.certs, err = certs.New(certs.Options{
		// It is asked by handshakes alone, and they come when there is a proxy.
		Serves:     func(host string) bool { return s.proxy.Serves(host) },
		TicketKeys: c.TLS.TicketKeys,
		Log:        s.log,
	})
	if err != nil {
		return err
	}
	return s.certs.Load(config.Pairs(&c.TLS))
}

// covers is proxy.Options.Covers.
func (s *server) covers() func(sni, host string) bool {
	if s.certs == nil {
		return nil
	}
	return s.certs.Covers
}

// tlsMeaning is what check says about certificates.
func tlsMeaning(t *config.TLS) string {
	text := "TLS 1.2 and 1.3" + plural(", ", len(t.Certificates), "certificate")
	if t.TicketKeys != "" {
		text += ", sessions resumed by the keys in " + t.TicketKeys
	}
	return text
}

// certificatesShown bounds the certificates that are listed one by one: thousands
// of them would bury what needs somebody. Those with a problem come first, then
// those that expire first.
const certificatesShown = 100

// tlsStatus is how listen.https does.
type tlsStatus struct {
	Handshakes  map[string]int64 `json:"handshakes"` // by what became of them
	Resumed     int64            `json:"resumed"`
	Now         int              `json:"now"` // under way
	Misdirected int64            `json:"misdirected"`
	HTTP2       http2Status      `json:"http2"`

	Certificates int                 `json:"certificates"`
	Problems     int                 `json:"problems"`
	Tickets      string              `json:"tickets,omitempty"` // what is wrong with the keys of session tickets
	First        []certificateStatus `json:"first"`             // those to look at, at most 100
}

// http2Status is how connections do that speak HTTP/2.
type http2Status struct {
	Connections int64            `json:"connections"`
	Streams     int64            `json:"streams"`
	TakenBack   int64            `json:"taken_back"`
	Refused     map[string]int64 `json:"refused"` // by reason, where there was one
}

func http2StatusOf(p *proxy.HTTP2Stats) http2Status {
	st := http2Status{Connections: p.Connections, Streams: p.Streams, TakenBack: p.TakenBack, Refused: make(map[string]int64)}
	for reason, n := range p.Refused {
		if n > 0 {
			st.Refused[reason] = n
		}
	}
	return st
}

type certificateStatus struct {
	From    string    `json:"from"`
	Names   []string  `json:"names"`
	Expires time.Time `json:"expires"`
	Problem string    `json:"problem,omitempty"`
}

func tlsStatusOf(s *server, p *proxy.Stats) *tlsStatus {
	if s.certs == nil {
		return nil
	}
	all, problems := s.certs.ToLookAt()
	st := &tlsStatus{
		Handshakes: p.Handshakes, Resumed: p.Resumed, Now: p.Greeting, Misdirected: p.Misdirected, HTTP2: http2StatusOf(&p.HTTP2),
		Certificates: len(all), Problems: problems, Tickets: s.certs.TicketsProblem(),
	}
	for _, c := range all[:min(len(all), certificatesShown)] {
		st.First = append(st.First, certificateStatus{c.From, c.Names[:min(len(c.Names), 10)], c.Expires, c.Problem})
	}
	return st
}

func collectTLS(ch chan<- prometheus.Metric, s *server, p *proxy.Stats) {
	collectHTTP3(ch, p)
	for outcome, n := range p.Handshakes {
		mHandshakes.send(ch, float64(n), outcome)
	}
	mResumedTLS.send(ch, float64(p.Resumed))
	mGreeting.send(ch, float64(p.Greeting))
	mMisdirected.send(ch, float64(p.Misdirected))
	all, problems := s.certs.ToLookAt()
	mCertificates.send(ch, float64(len(all)))
	mCertProblem.send(ch, float64(problems))
	for _, c := range all[:min(len(all), certificatesShown)] {
		mCertificate.send(ch, float64(c.Expires.Unix()), fmt.Sprintf("%s (%s)", c.Names[0], c.From))
	}
}
