package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// identityStatus is how one way to find out who asks does.
type identityStatus struct {
	Name     string `json:"name"`
	Known    int    `json:"known"` // credentials remembered
	Warm     uint64 `json:"warm"`  // found among them
	Verified uint64 `json:"verified"`
	Missing  uint64 `json:"missing"` // requests without a credential
	Invalid  uint64 `json:"invalid"`
	Down     uint64 `json:"down"` // nothing could be found out
	Error    string `json:"error,omitempty"`

	Keys    *keysStatus    `json:"keys,omitempty"`
	Service *serviceStatus `json:"service,omitempty"`
}

type keysStatus struct {
	Keys     int       `json:"keys"`
	Ignored  int       `json:"ignored"` // for other uses
	Since    time.Time `json:"since"`   // that these are in force
	Fetched  time.Time `json:"fetched"` // the last good look of this process
	Kept     bool      `json:"kept"`    // from before the last start
	Fetches  uint64    `json:"fetches"`
	Failures uint64    `json:"failures"`
}

type serviceStatus struct {
	Asked  uint64 `json:"asked"`
	Failed uint64 `json:"failed"`
	Stale  uint64 `json:"stale"` // answers used past their time
	Outage bool   `json:"outage"`
}

func identityReport(v *verifier) identityStatus {
	st := v.Stats()
	r := identityStatus{
		Name: v.name, Known: st.Known, Warm: st.Warm, Verified: st.Verified,
		Missing: st.Missing, Invalid: st.Invalid, Down: st.Down, Error: st.LastErr,
	}
	if k := st.Keys; k != nil {
		r.Error = k.Err
		r.Keys = &keysStatus{Keys: k.Keys, Ignored: k.Ignored, Since: k.Since, Fetched: k.Fetched, Kept: k.Kept, Fetches: k.Fetches, Failures: k.Failures}
	}
	if st.Kind == "forward_auth" {
		r.Service = &serviceStatus{Asked: st.Asked, Failed: st.Failed, Stale: st.Stale, Outage: st.Outage}
	}
	return r
}

var (
	mCredentials    = counter("identity_credentials_total", "Credentials looked at, by what was found.", "identity", "found")
	mSessions       = gauge("identity_sessions", "Credentials remembered.", "identity")
	mKeys           = gauge("identity_keys", "Keys in force that verify tokens.", "identity")
	mKeyFailures    = counter("identity_key_failures_total", "Looks at a key set that brought none, or one that is refused.", "identity")
	mKeysFailing    = gauge("identity_keys_failing", "1 when the last look at the key set failed and older keys are in force.", "identity")
	mAsked          = counter("identity_asked_total", "Questions to a login service.", "identity")
	mAskFailures    = counter("identity_ask_failures_total", "Questions to a login service without an answer.", "identity")
	mStaleAnswers   = counter("identity_stale_total", "Answers of a login service used past their time, as it was down.", "identity")
	mOutage         = gauge("identity_outage", "1 when a login service does not answer.", "identity")
	mContradictions = counter("identity_contradictions_total", "Check-ins that named another student than their credential does.", "school")
)

func collectIdentities(ch chan<- prometheus.Metric, s *server) {
	for _, v := range s.now.Load().who.list() {
		st := v.Stats()
		mCredentials.send(ch, float64(st.Warm), v.name, "known")
		mCredentials.send(ch, float64(st.Verified), v.name, "verified")
		mCredentials.send(ch, float64(st.Missing), v.name, "missing")
		mCredentials.send(ch, float64(st.Invalid), v.name, "invalid")
		mCredentials.send(ch, float64(st.Down), v.name, "down")
		mSessions.send(ch, float64(st.Known), v.name)
		if k := st.Keys; k != nil {
			mKeys.send(ch, float64(k.Keys), v.name)
			mKeyFailures.send(ch, float64(k.Failures), v.name)
			mKeysFailing.send(ch, truth(k.Err != ""), v.name)
		}
		if st.Kind == "forward_auth" {
			mAsked.send(ch, float64(st.Asked), v.name)
			mAskFailures.send(ch, float64(st.Failed), v.name)
			mStaleAnswers.send(ch, float64(st.Stale), v.name)
			mOutage.send(ch, truth(st.Outage), v.name)
		}
	}
	for school, n := range s.proxy.Stats().Contradictions {
		mContradictions.send(ch, float64(n), school)
	}
}
