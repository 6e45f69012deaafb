package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy"
	"firstbell/proxy/admission"
)

// This file is about exchanges that last: WebSockets, event streams, and what
// routes with live take.

// rooms hold the places that routes have for what lasts, by route. A reload
// keeps those of routes that are still there: what lives in them goes on.
type rooms map[string]*admission.Limiter

// openRooms makes the rooms that c needs and old does not have. Nothing of old
// changes; see resize.
func openRooms(c *config.Config, old rooms) rooms {
	all := rooms{}
	for _, r := range c.Routes {
		if r.Live == nil || r.Live.Max == 0 {
			continue
		}
		name := roomOf(r)
		if all[name] = old[name]; all[name] == nil {
			all[name] = admission.New(r.Live.Max, 0, 0)
		}
	}
	return all
}

// resize gives each room the places that its route says.
func (all rooms) resize(c *config.Config) {
	for _, r := range c.Routes {
		if r.Live != nil && r.Live.Max > 0 {
			all[roomOf(r)].Resize(r.Live.Max, 0, 0)
		}
	}
}

// roomOf is what a route is known by.
func roomOf(r *config.Route) string {
	return strings.Join(r.Hosts, " ") + " " + r.Path + " " + strings.Join(r.Methods, " ")
}

func liveOf(r *config.Route, all rooms) *proxy.Live {
	if r.Live == nil {
		return nil
	}
	return &proxy.Live{Idle: r.Live.Idle, Lifetime: r.Live.Lifetime, Limit: all[roomOf(r)]}
}

// liveMeaning is what check says of a route.
func liveMeaning(r *config.Route) string {
	s := ""
	if r.WebSocket {
		s += ", WebSocket"
	}
	if l := r.Live; l != nil {
		s += ", for what lasts"
		if l.Max > 0 {
			s += fmt.Sprintf(" (%d at once)", l.Max)
		}
		if l.Idle > 0 {
			s += fmt.Sprintf(", idle %s", l.Idle)
		}
		if l.Lifetime > 0 {
			s += fmt.Sprintf(", %s in all", l.Lifetime)
		}
	}
	return s
}

var (
	mLive         = gauge("live", "Exchanges that last, by kind.", "kind")
	mLiveMax      = gauge("live_max", "How many there may be.")
	mLiveBegun    = counter("live_begun_total", "Exchanges that lasted, by kind.", "kind")
	mLiveEnded    = counter("live_ended_total", "Those that ended, by who or what ended them.", "reason")
	mLiveRefused  = counter("live_refused_total", "Those that found no place (route, total), and handshakes and frames that were none, by reason.", "reason")
	mLiveSent     = counter("live_sent_bytes_total", "Bytes sent to clients by those that ended.")
	mLiveReceived = counter("live_received_bytes_total", "Bytes received from clients over WebSockets that ended.")
)

// liveStatus is about exchanges that last.
type liveStatus struct {
	Max     int              `json:"max"`
	Now     map[string]int   `json:"now"`     // by kind
	Begun   map[string]int64 `json:"begun"`   // by kind
	Ended   map[string]int64 `json:"ended"`   // by reason
	Refused map[string]int64 `json:"refused"` // by reason
}

func liveReport(l *proxy.LiveStats) liveStatus {
	return liveStatus{Max: l.Max, Now: l.Now, Begun: l.Begun, Ended: l.Ended, Refused: l.Refused}
}

func collectLive(ch chan<- prometheus.Metric, l *proxy.LiveStats) {
	mLiveMax.send(ch, float64(l.Max))
	for kind, n := range l.Now {
		mLive.send(ch, float64(n), kind)
		mLiveBegun.send(ch, float64(l.Begun[kind]), kind)
	}
	for reason, n := range l.Ended {
		mLiveEnded.send(ch, float64(n), reason)
	}
	for reason, n := range l.Refused {
		mLiveRefused.send(ch, float64(n), reason)
	}
	mLiveSent.send(ch, float64(l.Sent))
	mLiveReceived.send(ch, float64(l.Received))
}

// printLive writes a line about what lives, or nothing.
func printLive(w io.Writer, l *liveStatus) {
	any := len(l.Refused) > 0
	for _, n := range l.Begun {
		any = any || n > 0
	}
	if !any {
		return
	}
	fmt.Fprint(w, "live     ")
	for _, kind := range config.SortedKeys(l.Now) {
		fmt.Fprintf(w, " %s %d of %d begun,", kind, l.Now[kind], l.Begun[kind])
	}
	fmt.Fprintf(w, " at most %d", l.Max)
	for _, reason := range config.SortedKeys(l.Refused) {
		fmt.Fprintf(w, ", refused %s %d", reason, l.Refused[reason])
	}
	fmt.Fprintln(w)
}

// webSocketNote is for the file's reader.
const webSocketNote = `
websocket and live mean: a WebSocket, an event stream, and whatever a route with
live takes holds a place of its own (limits.live in all, live.max on a route), none
of its origin's concurrency. It ends when nothing came either way for live.idle, and
after live.lifetime. Event streams count so on every route.
`
