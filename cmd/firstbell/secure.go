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
	o := certs.Options{
		// It is asked by handshakes alone, and they come when there is a proxy.
		Serves:     func(host string) bool { return s.proxy.Serves(host) },
		TicketKeys: c.TLS.TicketKeys,
		Log:        s.log,
	}
	if a := c.TLS.ACME; a != nil {
		o.ACME = &certs.ACME{
			Directory: a.Directory, Email: a.Email, Storage: a.Storage, Roots: a.Roots,
			HTTP: addrOf(s.web), TLS: addrOf(s.secureNet),
			Limits: certs.Limits{OrdersPerHour: a.OrdersPerHour, NewPerDomain: a.NewPerDomain},
		}
		if a.Account != nil {
			o.ACME.KeyID, o.ACME.MACKey = a.Account.KeyID, a.Account.MAC
		}
	}
	if s.certs, err = certs.New(o); err != nil {
		return err
	}
	if err := s.certs.Load(config.Pairs(&c.TLS)); err != nil {
		return err
	}
	s.certs.Want(s.work, c.ACMENames())
	return nil
}

// challenge is proxy.Options.Challenge.
func (s *server) challenge() func(host, path string) ([]byte, bool) {
	if s.certs == nil || s.certs.ACME() == nil {
		return nil
	}
	return s.certs.AnswerChallenge
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
	if a := t.ACME; a != nil {
		text += fmt.Sprintf(", others from %s, kept in %s", a.Directory, a.Storage)
	}
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
	ACME         *acmeStatus         `json:"acme,omitempty"`
	First        []certificateStatus `json:"first"` // those to look at, at most 100
}

// acmeStatus is how getting certificates goes.
type acmeStatus struct {
	Wanted  int        `json:"wanted"`  // names
	Missing int        `json:"missing"` // of them, without a certificate
	Failing int        `json:"failing"` // of them, whose last order failed
	Ordered uint64     `json:"ordered"`
	Failed  uint64     `json:"failed"`
	Now     int        `json:"now"`              // orders under way
	Paused  string     `json:"paused,omitempty"` // why nobody is asked at the moment
	Until   *time.Time `json:"until,omitempty"`
}

func acmeStatusOf(a *certs.ACMEStats) *acmeStatus {
	if a == nil {
		return nil
	}
	st := &acmeStatus{a.Wanted, a.Missing, a.Failing, a.Ordered, a.Failed, a.Now, a.Paused, nil}
	if a.Paused != "" {
		st.Until = &a.Until
	}
	return st
}

func collectACME(ch chan<- prometheus.Metric, a *certs.ACMEStats) {
	if a == nil {
		return
	}
	mACMEWanted.send(ch, float64(a.Wanted))
	mACMEMissing.send(ch, float64(a.Missing))
	mACMEFailing.send(ch, float64(a.Failing))
	mACMEOrders.send(ch, float64(a.Ordered), "issued")
	mACMEOrders.send(ch, float64(a.Failed), "failed")
	mACMEPaused.send(ch, truth(a.Paused != ""))
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
		ACME: acmeStatusOf(s.certs.ACME()),
	}
	for _, c := range all[:min(len(all), certificatesShown)] {
		st.First = append(st.First, certificateStatus{c.From, c.Names[:min(len(c.Names), 10)], c.Expires, c.Problem})
	}
	return st
}

func collectTLS(ch chan<- prometheus.Metric, s *server, p *proxy.Stats) {
	collectHTTP3(ch, s, p)
	for outcome, n := range p.Handshakes {
		mHandshakes.send(ch, float64(n), outcome)
	}
	mResumedTLS.send(ch, float64(p.Resumed))
	mGreeting.send(ch, float64(p.Greeting))
	mMisdirected.send(ch, float64(p.Misdirected))
	collectACME(ch, s.certs.ACME())
	all, problems := s.certs.ToLookAt()
	mCertificates.send(ch, float64(len(all)))
	mCertProblem.send(ch, float64(problems))
	for _, c := range all[:min(len(all), certificatesShown)] {
		if c.Expires.IsZero() {
			continue // there is none yet
		}
		mCertificate.send(ch, float64(c.Expires.Unix()), fmt.Sprintf("%s (%s)", c.Names[0], c.From))
	}
}
