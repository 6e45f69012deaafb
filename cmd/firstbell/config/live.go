package config

import (
	"slices"
	"time"

	"firstbell/proxy"
)

// Live are the limits of a route whose exchanges last. Zero is the proxy's
// default.
type Live struct {
	Max      int           `yaml:"max" eg:"2000"`     // at once; as many as limits.live unless said
	Idle     time.Duration `yaml:"idle" eg:"5m"`      // without a byte either way; 5 min unless said
	Lifetime time.Duration `yaml:"lifetime" eg:"12h"` // of one; 12 h unless said
}

// live checks what a route says about exchanges that last.
func (v *validator) live(path string, r *Route) {
	if r.WebSocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET") {
		v.wrong(path+".websocket", "add GET to methods", "a WebSocket is opened with GET, which this route does not take")
	}
	l := r.Live
	if l == nil {
		return
	}
	if r.Cache != nil {
		v.wrong(path+".live", "give it a route of its own, without cache", "what lasts is neither stored nor shared")
	}
	if r.Timeouts.Total > 0 {
		v.wrong(path+".timeouts.total", "remove it, or write live: {lifetime: 2h}", "on a route for what lasts live.lifetime takes its place")
	}
	if l.Max > 1<<20 {
		v.wrong(path+".live.max", "write how many, such as 2000", "%d is no bound", l.Max)
	}
	if most := v.liveMost(); l.Max > most {
		v.warn(path+".live.max", "raise limits.live, or write less", "only %d may live in all", most)
	}
	for _, d := range []struct {
		key string
		d   time.Duration
		max time.Duration
	}{{"idle", l.Idle, 24 * time.Hour}, {"lifetime", l.Lifetime, 7 * 24 * time.Hour}} {
		if at := path + ".live." + d.key; v.given(at) && (d.d < time.Second || d.d > d.max) {
			v.wrong(at, "write 1s to "+d.max.String(), "%s is not a sensible time", d.d)
		}
	}
	if l.Lifetime > 0 && l.Idle > l.Lifetime {
		v.warn(path+".live.idle", "write less than the lifetime", "nothing is idle for %s when it ends after %s", l.Idle, l.Lifetime)
	}
}

// liveMost is how much may live at once in all.
func (v *validator) liveMost() int {
	if n := v.c.Limits.Live; n > 0 {
		return n
	}
	return proxy.LiveMax
}
