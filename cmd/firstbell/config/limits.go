package config

import (
	"strings"
	"time"

	"firstbell/proxy"
)

// Limits are what clients' connections are held to. Zero is the proxy's
// default.
type Limits struct {
	Connections int           `yaml:"connections" eg:"65536"`             // open at once; 65536 unless said, or three quarters of the files the process may open
	PerAddress  int           `yaml:"connections_per_address" eg:"16384"` // of those, of one address or /64 of IPv6; a quarter unless said
	Header      time.Duration `yaml:"header" eg:"10s"`                    // for a request's head, from its first byte on; 10 s unless said
	Idle        time.Duration `yaml:"idle" eg:"75s"`                      // for a request to come; 75 s unless said
	MinRate     Size          `yaml:"min_rate" eg:"256B"`                 // a second, of content that comes and of answers that are taken; 256 B unless said
	Live        int           `yaml:"live" eg:"10000"`                    // WebSockets, event streams and whatever routes with live take, at once; 10000 unless said
	Grace       time.Duration `yaml:"grace" eg:"30s"`                     // how long a client may stand still, and min_rate is averaged over; 30 s unless said
}

// Spool is where contents wait that are too large for memory: requests' until
// they are whole, answers' until a slow client has taken them.
type Spool struct {
	Path string `yaml:"path" eg:"/var/lib/firstbell/spool"` // a directory; the system's for temporary files unless said
	Size Size   `yaml:"size" eg:"4GiB"`                     // of all; 4 GiB unless said, of which one content has a quarter
}

// Proxy is the limits as the proxy takes them.
func (l *Limits) Proxy() proxy.Limits {
	return proxy.Limits{
		Connections: l.Connections, PerAddress: l.PerAddress, Header: l.Header, Idle: l.Idle,
		MinRate: int64(l.MinRate), Grace: l.Grace,
	}
}

// spool checks where contents wait.
func (v *validator) spool() {
	s := &v.c.Spool
	if v.given("spool.path") && s.Path == "" {
		v.wrong("spool.path", "write path: /var/lib/firstbell/spool, or leave it out for the system's temporary directory", "there is no directory named")
	}
	s.Path = v.beside(s.Path)
	if v.given("spool.size") && s.Size < spoolMin {
		v.wrong("spool.size", "write what the disk can spare, such as 4GiB", "%s is not enough for a class that hands in its homework", s.Size)
	}
	if a := v.c.Attendance; a != nil && s.Path != "" {
		for _, journal := range [...]string{a.Journal, a.JournalSpare} {
			if journal != "" && (within(s.Path, journal) || within(journal, s.Path)) {
				v.wrong("spool.path", "name a directory of its own, such as /var/lib/firstbell/spool", "it is the journal, or within it, or around it")
			}
		}
	}
}

// spoolMin is the smallest spool: one content has a quarter of it.
const spoolMin = 16 << 20

func (v *validator) limits() {
	l := &v.c.Limits
	for _, n := range []struct {
		key string
		n   int
	}{{"connections", l.Connections}, {"connections_per_address", l.PerAddress}, {"live", l.Live}} {
		if path := "limits." + n.key; v.given(path) && (n.n < 1 || n.n > 1<<22) {
			v.wrong(path, "write how many, such as 65536", "%d is no number of %s", n.n, strings.ReplaceAll(n.key, "_", " "))
		}
	}
	if v.given("limits.connections") && l.PerAddress > l.Connections {
		v.warn("limits.connections_per_address", "write less, such as a quarter", "one address may have all %d connections, and more", l.Connections)
	}
	for _, d := range []struct {
		key      string
		d        time.Duration
		min, max time.Duration
	}{
		{"header", l.Header, time.Second, 10 * time.Minute},
		{"idle", l.Idle, time.Second, 24 * time.Hour},
		{"grace", l.Grace, time.Second, 10 * time.Minute},
	} {
		if path := "limits." + d.key; v.given(path) && (d.d < d.min || d.d > d.max) {
			v.wrong(path, "write "+d.min.String()+" to "+d.max.String(), "%s is not a sensible time", d.d)
		}
	}
	if l.MinRate > 1<<20 {
		v.wrong("limits.min_rate", "write what the slowest phone does, such as 256B", "%s a second is more than a phone does", l.MinRate)
	}
}
