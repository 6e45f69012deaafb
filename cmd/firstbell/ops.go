package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newOps is the operators' side. It listens on the loopback address unless a
// token guards it.
func newOps(s *server) *http.Server {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(&collector{s})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { sayState(w, "") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { sayState(w, s.notReady()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", s.serveStatus)
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("POST /reload", s.serveReload)
	mux.HandleFunc("POST /upgrade", s.serveUpgrade)
	mux.HandleFunc("POST /purge", s.servePurge)
	mux.HandleFunc("POST /attendance/parked", s.serveParked)
	mux.HandleFunc("POST /attendance/recompute", s.serveRecompute)
	mux.HandleFunc("POST /attendance/keys/rotate", s.serveRotate)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &http.Server{
		Handler:           s.guard(mux),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// guard lets nobody in without the token, where there is one, and lets no web
// page make an operator's browser act.
func (s *server) guard(next http.Handler) http.Handler {
	var sameSite http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := sameSite.Check(r); err != nil {
			http.Error(w, "refused: the request comes from a page of another site", http.StatusForbidden)
			return
		}
		token := s.now.Load().config.Ops.Token
		switch {
		case token == "" && !localHost(r.Host):
			// A page whose name resolves to 127.0.0.1 is same-site to itself.
			http.Error(w, "refused: ask for 127.0.0.1 or localhost, or set ops.token", http.StatusForbidden)
		case token != "" && !sameToken(token, r):
			w.Header().Set("WWW-Authenticate", `Bearer realm="firstbell ops"`)
			http.Error(w, "refused: send Authorization: Bearer with the ops token", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sameToken compares digests, so that the time taken says nothing about the
// token. Browsers may send it as the password of any user.
func sameToken(token string, r *http.Request) bool {
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		_, given, _ = r.BasicAuth()
	}
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// localHost says whether a Host field names this machine to itself.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

// notReady says why requests should not come here; empty when they should.
func (s *server) notReady() string {
	if !s.ready.Load() {
		return "not serving: starting or draining"
	}
	if s.bereft.Load() {
		return "the journal was let go for an upgrade that failed, and cannot be had again yet"
	}
	if takes := s.takes.Load(); takes != nil {
		if h := takes.journal.Health(); h.Why != nil {
			return "the journal takes no check-ins (" + h.State.String() + "): " + h.Why.Error()
		}
	}
	return ""
}

func sayState(w http.ResponseWriter, notReady string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if notReady != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(notReady + "\n")) // whoever asked has gone
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	sayJSON(w, http.StatusOK, s.report())
}

func (s *server) serveReload(w http.ResponseWriter, r *http.Request) {
	out := s.reload("POST /reload")
	if !out.OK {
		sayJSON(w, http.StatusUnprocessableEntity, out)
		return
	}
	sayJSON(w, http.StatusOK, out)
}

func sayJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever asked has gone
}

func (s *server) servePage(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := page.Execute(&b, s.report()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = b.WriteTo(w) // whoever asked has gone
}

// page reads without scripts and by itself every five seconds.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>firstbell</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:0 0 1.5rem}td,th{padding:.1rem 1.5rem .1rem 0;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#b00020;font-weight:600}.good{color:#0a7a3b;font-weight:600}
h2{font-size:1.1rem;margin:1.5rem 0 .3rem}small{color:#666}
</style></head><body>
<h1>firstbell</h1>
<p>{{if .Ready}}<span class="good">ready</span>{{else}}<span class="bad">not ready: {{.NotReady}}</span>{{end}}
· up {{.Uptime}} · version {{.Build.Version}}<br>
<small>{{.Config.File}}, digest {{.Config.Digest}}, in force since {{.Config.Loaded.Format "2006-01-02 15:04:05 MST"}}</small></p>
{{with .Config.LastReload}}{{if not .OK}}<p class="bad">The last reload was refused, the file before it is in force:</p><ul>{{range .Problems}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{if .NeedsRestart}}<p>Waiting for a restart: {{range .NeedsRestart}}{{.}} {{end}}</p>{{end}}{{end}}
{{with .Attendance}}<h2>Attendance</h2><table>
<tr><td>receipts</td><td class="n">{{.Receipts}}</td></tr>
<tr><td>the same again</td><td class="n">{{.Again}}</td></tr>
<tr><td>refused for the moment</td><td class="n">{{.Refused}}</td></tr>
<tr><td>not understood</td><td class="n">{{.Invalid}}</td></tr>
<tr><td>waiting right now</td><td class="n">{{.Waiting}}</td></tr>
<tr><td>journal</td><td>{{if eq .Journal.State "open"}}<span class="good">open</span>{{else}}<span class="bad">{{.Journal.State}}: {{.Journal.Why}}</span>{{end}}, {{.Journal.Batches}} batches, {{.Journal.Bytes}} bytes{{range .Journal.Amber}}<br><span class="bad">{{.}}</span>{{end}}{{range .Journal.Damage}}<br><span class="bad">{{.}}</span>{{end}}</td></tr>
<tr><td>store</td><td>{{template "delivery" .Store.Delivery}}</td></tr>
{{with .Collect}}{{if .Records}}<tr><td>collected</td><td>{{.Records}}, {{.Repeats}} came again{{if .Differing}}, {{.Differing}} of them with another body{{end}}</td></tr>{{end}}{{end}}
{{range .Sinks}}<tr><td>sink {{.Name}}</td><td>{{template "delivery" .Delivery}}{{if .Parked}}, <span class="bad">{{.Parked}} parked: firstbell attendance parked -sink {{.Name}}</span>{{end}}</td></tr>{{end}}
</table>{{end}}
{{with .TLS}}<h2>TLS</h2><table>
<tr><td>certificates</td><td>{{.Certificates}}{{if .Problems}}, <span class="bad">{{.Problems}} with a problem</span>{{end}}{{with .Tickets}}<br><span class="bad">{{.}}</span>{{end}}</td></tr>
{{range $i, $c := .First}}{{if or .Problem (lt $i 3)}}<tr><td>{{index .Names 0}}</td><td>{{if not .Expires.IsZero}}until {{.Expires.Format "2006-01-02 15:04:05 MST"}}{{end}}{{with .Problem}}, <span class="bad">{{.}}</span>{{end}}</td></tr>{{end}}{{end}}
{{with .ACME}}<tr><td>certificates got</td><td>{{.Ordered}}; of {{.Wanted}} names {{if .Missing}}<span class="bad">{{.Missing}} have none</span>{{else}}all have one{{end}}{{if .Failing}}, <span class="bad">{{.Failing}} fail or wait</span>{{end}}{{with .Paused}}<br><span class="bad">paused: {{.}}</span>{{end}}</td></tr>{{end}}
<tr><td>handshakes</td><td>{{range $name, $n := .Handshakes}}{{if $n}}{{$n}} {{$name}} {{end}}{{end}}({{.Resumed}} resumed)</td></tr>
<tr><td>HTTP/2</td><td>{{.HTTP2.Connections}} connections, {{.HTTP2.Streams}} requests under way, {{.HTTP2.TakenBack}} taken back{{range $reason, $n := .HTTP2.Refused}}<br>{{$n}} refused: {{$reason}}{{end}}</td></tr>
{{if .Misdirected}}<tr><td>for another host</td><td class="n">{{.Misdirected}}</td></tr>{{end}}</table>{{end}}
{{if .Identities}}<h2>Identities</h2><table><tr><th>identity</th><th>known</th><th>verified</th><th>refused</th><th>state</th></tr>
{{range .Identities}}<tr><td>{{.Name}}</td><td class="n">{{.Known}}</td><td class="n">{{.Verified}}</td><td class="n">{{.Invalid}}</td>
<td>{{if .Error}}<span class="bad">{{.Error}}</span>{{else}}<span class="good">well</span>{{end}}{{with .Keys}}, {{.Keys}} keys since {{.Since.Format "2006-01-02 15:04:05 MST"}}{{end}}</td></tr>{{end}}</table>{{end}}
{{if .Contradictions}}<h2>Check-ins for somebody else</h2><table>{{range $school, $n := .Contradictions}}<tr><td>{{$school}}</td><td class="n">{{$n}}</td></tr>{{end}}</table>{{end}}
<h2>Requests</h2><table>{{range $name, $n := .Requests}}{{if $n}}<tr><td>{{$name}}</td><td class="n">{{$n}}</td></tr>{{end}}{{end}}</table>
<h2>Origins</h2><table><tr><th>origin</th><th>asked now</th><th>waiting</th><th>refused</th><th>servers</th></tr>
{{range .Origins}}<tr><td>{{.Name}}</td><td class="n">{{.InUse}} of {{.Max}}</td><td class="n">{{.Waiting}}</td><td class="n">{{.Refused}}</td>
<td>{{range .Servers}}{{.Address}}: {{if .Healthy}}<span class="good">well</span>{{else}}<span class="bad">ill</span>{{end}}, {{.Requests}} requests, {{.Failures}} failures<br>{{end}}</td></tr>{{end}}</table>
<h2>Cache</h2><table>
<tr><td>stored responses</td><td class="n">{{.Cache.Objects}}</td></tr>
<tr><td>not sent, as it was compressed here</td><td class="n">{{.Codings.SavedBytes}} bytes</td></tr>
<tr><td>memory</td><td class="n">{{.Cache.Bytes}} of {{.Cache.MaxBytes}} bytes</td></tr>
<tr><td>evicted</td><td class="n">{{.Cache.Evictions}}</td></tr>
{{if .Cache.PinnedBytes}}<tr><td>pinned</td><td class="n">{{.Cache.Pinned}}, {{.Cache.PinnedBytes}} of {{.Cache.PinnedMaxBytes}} bytes{{if .Cache.PinsRefused}}, <span class="bad">{{.Cache.PinsRefused}} times no room</span>{{end}}</td></tr>{{end}}
{{with .Cache.Disk}}<tr><td>on disk</td><td class="n">{{.Objects}}, {{.Bytes}} of {{.MaxBytes}} bytes</td></tr>
{{range $kind, $n := .Alarms}}<tr><td>alarm: {{$kind}}</td><td class="n">{{$n}}</td></tr>{{end}}
{{if .Paused}}<tr><td>nothing is stored on disk</td><td>{{.Why}}</td></tr>{{end}}{{end}}
{{with .Cache.LastPurge}}<tr><td>last purge</td><td>{{range .Purged}}{{.By}} {{.What}}: {{.Count}}<br>{{end}}{{if .Hard}}hard, {{end}}from {{.From}}{{with .By}}, {{.}}{{end}}, {{.At.Format "2006-01-02 15:04:05 MST"}}</td></tr>{{end}}</table>
<p><small><a href="/status">status as JSON</a> · <a href="/metrics">metrics</a> · <a href="/readyz">readyz</a></small></p>
</body></html>
{{define "delivery"}}{{if .Error}}<span class="bad">{{if .Stopped}}stopped, look at it{{else}}failing, trying again{{end}}: {{.Error}}</span>{{else}}<span class="good">delivering</span>{{end}}, {{.Rows}} rows in {{.Writes}} writes{{if .Lag}}, {{.Lag}} records behind{{end}}{{if .Lost}}, <span class="bad">{{.Lost}} lost</span>{{end}}{{if .Age}}, the oldest waits {{.Age}} s{{end}}{{end}}
`))
