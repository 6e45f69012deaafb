//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A duel is one conversation that all servers have in turn, in short bursts,
// and what it costs them.
type duel struct {
	name   string
	conns  int
	talk   []string // requests, sent in turn; {} is another number each time
	status int      // of every answer; 0: 200
	cached bool     // answered from a cache: servers without one are left out
	floor  bool     // the floors answer with firstbell's bytes
	unit   string   // what the figure is, where it is not microseconds for a request
	quick  bool     // part of -quick
	turns  int      // at most so many; 0: as many as the run has
	bars   []bar
	client func(ctx context.Context, s *server) (client, error) // who asks, over TLS; nil: a crowd
	sealed bool                                                 // firstbell's store is locked: receipts are measured, not delivery
}

// A bar is the most that firstbell may cost, as a part of what another does.
type bar struct {
	than string
	most float64
}

const browser = "Host: " + host + "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n"

func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\n" + browser + strings.Join(fields, "") + "\r\n"
}

func post(target, kind, body string) string {
	length := len(strings.ReplaceAll(body, "{}", strings.Repeat("0", numberDigits)))
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", target, browser, kind, length, body)
}

// numberDigits is how wide the number is that takes the place of {}.
const numberDigits = 9

const checkInPath = "/attendance/check-in"

var checkIn = post(checkInPath, "application/json", `{"student_id":"s{}","class_id":"c0042"}`)

// morning is what one student does at nine: the list, a lesson, four media
// segments, the own page, the check-in.
var morning = []string{
	get("/lessons/20480"), get("/coded/20480"),
	get("/media/262144"), get("/media/262144"), get("/media/262144"), get("/media/262144"),
	get("/page/me"), checkIn,
}

// duels are the conversations, in this order.
var duels = []duel{
	{name: "hit, 1 KiB", conns: 64, talk: []string{get("/media/1024")}, cached: true, floor: true, quick: true,
		bars: []bar{{"nginx", 0.75}, {"haproxy", 0.95}, {"varnish", 0.4}, {"epoll", 1.7}}},
	{name: "hit, 1 KiB", conns: 1000, talk: []string{get("/media/1024")}, cached: true, floor: true,
		bars: []bar{{"nginx", 0.75}, {"haproxy", 0.75}}},
	{name: "hit, 20 KiB, origin sends gzip", conns: 64, talk: []string{get("/coded/20480")}, cached: true, floor: true,
		bars: []bar{{"haproxy", 1.0}}},
	{name: "hit, 20 KiB, proxy compresses", conns: 64, talk: []string{get("/lessons/20480")}, cached: true, floor: true, quick: true,
		bars: []bar{{"nginx", 0.12}, {"haproxy", 0.25}}},
	{name: "hit, 1 MiB", conns: 64, talk: []string{get("/media/1048576")}, cached: true, floor: true,
		bars: []bar{{"nginx", 0.4}, {"haproxy", 0.4}}},
	{name: "hit, 1 MiB", conns: 1000, talk: []string{get("/media/1048576")}, cached: true, turns: 3, // Squid needs 4 s for one
		bars: []bar{{"nginx", 0.4}, {"haproxy", 0.4}}},
	{name: "revalidation, 304", conns: 64, talk: []string{get("/media/1024", "If-None-Match: \"v1\"\r\n")}, status: 304, cached: true, floor: true},
	{name: "pass-through, 1 KiB", conns: 64, talk: []string{get("/page/me")}, quick: true,
		bars: []bar{{"nginx", 1.05}}},
	{name: "POST forwarded", conns: 64, talk: []string{post("/forms/quiz", "application/json", `{"answer":"{}"}`)},
		bars: []bar{{"nginx", 1.05}}},
	{name: "durable check-in; others forward it", conns: 64, talk: []string{checkIn}, floor: true, sealed: true, quick: true,
		bars: []bar{{"nginx", 0.9}}},
	{name: "durable check-in; others forward it", conns: 1000, talk: []string{checkIn}, floor: true, sealed: true,
		bars: []bar{{"nginx", 0.9}}},
	// Of these, firstbell alone agrees with browsers on keys that a quantum computer
	// does not break either (X25519MLKEM768); so what that costs is measured apart.
	{name: "new TLS connection, X25519, one hit", conns: newcomersAtOnce, talk: []string{get("/media/1024")}, client: handshakes(false, tls.X25519)},
	{name: "new TLS connection, X25519, resumed, one hit", conns: newcomersAtOnce, talk: []string{get("/media/1024")}, client: handshakes(true, tls.X25519)},
	{name: "new TLS connection as with a browser, one hit", conns: newcomersAtOnce, talk: []string{get("/media/1024")}, client: handshakes(false)},
	{name: "HTTP/2 hit over TLS, 1 KiB, 8 streams", conns: h2Connections, talk: []string{get("/media/1024")}, cached: true, client: streams("/media/1024"),
		bars: []bar{{"nginx", 1.5}}},
	{name: "HTTP/3 hit, 1 KiB", conns: quicConnections, talk: []string{get("/media/1024")}, cached: true, client: datagrams("/media/1024")},
	{name: "a morning, delivery included", conns: 64, talk: morning, unit: "CPU s per 1,000 students", sealed: false},
}

var numbers atomic.Int64 // what takes the place of {} is never the same twice in a run

// requester sends the conversation's requests in turn.
func (d *duel) requester() requester {
	if len(d.talk) == 1 && !strings.Contains(d.talk[0], "{}") {
		return always([]byte(d.talk[0]))
	}
	type part struct {
		before, after []byte
		numbered      bool
	}
	parts := make([]part, len(d.talk))
	for i, t := range d.talk {
		before, after, numbered := strings.Cut(t, "{}")
		parts[i] = part{[]byte(before), []byte(after), numbered}
	}
	turn := 0
	return func(buf []byte) []byte {
		p := &parts[turn%len(parts)]
		turn++
		buf = append(buf, p.before...)
		if p.numbered {
			var digits [numberDigits]byte
			n := numbers.Add(1)
			for i := numberDigits - 1; i >= 0; i-- {
				digits[i] = byte('0' + n%10)
				n /= 10
			}
			buf = append(append(buf, digits[:]...), p.after...)
		}
		return buf
	}
}

// A cell is what a duel cost one server.
type cell struct {
	Server string    `json:"server"`
	Cost   float64   `json:"cost"` // the median of the rounds, in the row's unit
	Rounds []float64 `json:"rounds,omitempty"`
	Ratio  *spread   `json:"ratio,omitempty"` // firstbell's cost as a part of this one's, round by round
	Asked  int64     `json:"origin_requests"` // in all rounds
	Sent   int       `json:"requests"`
	Busy   float64   `json:"busy"` // the part of the time that the server had work for its CPU
	Again  int       `json:"connections_closed,omitempty"`
	Fault  string    `json:"fault,omitempty"` // why there is no figure, or what is wrong with it
}

// spread is the middle and the ends of several figures.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spreadOf(v []float64) *spread {
	if len(v) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(v))
	return &spread{Median: s[len(s)/2], Low: s[0], High: s[len(s)-1]}
}

// A row is one case with all servers.
type row struct {
	Case        string    `json:"case"`
	Connections int       `json:"connections,omitempty"`
	Unit        string    `json:"unit"`
	Cells       []*cell   `json:"cells"`
	Bars        []verdict `json:"bars,omitempty"`
}

// A verdict is a bar and whether it was met.
type verdict struct {
	Bar string `json:"bar"`
	Was string `json:"was"`
	Met bool   `json:"met"`
}

func (r *row) cell(server string) *cell {
	for _, c := range r.Cells {
		if c.Server == server {
			return c
		}
	}
	return nil
}

// fight has the servers take turns and returns the row. Servers that cannot
// take part have a cell that says why.
func (a *arena) fight(ctx context.Context, d *duel) (*row, error) {
	if d.status == 0 {
		d.status = 200
	}
	r := &row{Case: d.name, Connections: d.conns, Unit: "us"}
	if d.unit != "" {
		r.Unit = d.unit
	}
	fighters, stop, err := a.enter(ctx, d)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, f := range fighters {
		r.Cells = append(r.Cells, f.cell)
	}
	rounds := a.rounds
	if d.turns > 0 {
		rounds = min(rounds, d.turns)
	}
	for round := range rounds {
		for i := range fighters {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			// Another one begins each round.
			if f := fighters[(i+round)%len(fighters)]; f.cell.Fault == "" {
				a.turn(f, d)
			}
		}
	}
	for _, f := range fighters {
		f.cell.settle()
	}
	r.compare(d.bars)
	return r, nil
}

// settle makes one figure of all rounds.
func (c *cell) settle() {
	if c.Fault == "" {
		c.Cost = spreadOf(c.Rounds).Median
		c.Busy /= float64(len(c.Rounds))
	}
}

// A fighter is a server in a duel.
type fighter struct {
	*server
	client client
	cell   *cell
}

// A talker is a crowd that is a client: what it asks and expects is set.
type talker struct {
	*crowd
	next   requester
	status int
}

func (t *talker) burst(enough func(int) bool) tally { return t.crowd.burst(t.next, t.status, enough) }

// enter connects the crowds, and has everybody answer until nothing changes any
// more: by then the answer is stored, and coded.
func (a *arena) enter(ctx context.Context, d *duel) (fighters []*fighter, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range slices.Backward(stops) {
			s()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	servers := slices.Clone(a.servers)
	if d.floor {
		sample, err := settled(ctx, a.servers[0].site.Listen, []byte(numbered(d.talk[0])))
		if err != nil {
			return nil, stop, fmt.Errorf("taking a sample from firstbell: %w", err)
		}
		file := filepath.Join(a.dir, "answer")
		if err := os.WriteFile(file, sample, 0o600); err != nil {
			return nil, stop, err
		}
		for _, name := range []string{"epoll", "fasthttp"} {
			f, err := startFloor(a.halves, name, file)
			if err != nil {
				return nil, stop, err
			}
			stops = append(stops, f.stop)
			servers = append(servers, f)
		}
	}
	if d.sealed && a.lock != nil {
		release, err := a.lock()
		if err != nil {
			return nil, stop, fmt.Errorf("locking firstbell's store: %w", err)
		}
		stops = append(stops, release)
	}
	for _, s := range servers {
		f := &fighter{server: s, cell: &cell{Server: s.name}}
		fighters = append(fighters, f)
		if d.cached && s.site.Origin != "" && !s.keeps {
			f.cell.Fault = "has no cache"
			continue
		}
		if d.client != nil && s.site.TLS == "" {
			f.cell.Fault = "has no TLS"
			continue
		}
		if err := f.warm(ctx, d); err != nil {
			f.cell.Fault = err.Error()
			continue
		}
		stops = append(stops, f.client.close)
	}
	return fighters, stop, nil
}

func numbered(request string) string {
	return strings.ReplaceAll(request, "{}", fmt.Sprintf("%0*d", numberDigits, numbers.Add(1)))
}

func (f *fighter) warm(ctx context.Context, d *duel) error {
	for _, t := range d.talk {
		if _, err := settled(ctx, f.site.Listen, []byte(numbered(t))); err != nil {
			return err
		}
	}
	var err error
	if d.client != nil {
		f.client, err = d.client(ctx, f.server)
	} else {
		var c *crowd
		c, err = newCrowd(f.site.Listen, d.conns)
		f.client = &talker{c, d.requester(), d.status}
	}
	if err != nil {
		return err
	}
	for range 2 {
		t := f.client.burst(func(sent int) bool { return sent >= d.conns+100 })
		if err = t.bad(); err == nil {
			return nil
		}
	}
	f.client.close()
	return err
}

// turn is one burst of one server.
func (a *arena) turn(f *fighter, d *duel) {
	asked := a.origin.asked.Load()
	before, err := f.usage()
	if err != nil {
		f.cell.Fault = err.Error()
		return
	}
	began := time.Now()
	end := began.Add(a.burst)
	t := f.client.burst(func(int) bool { return !time.Now().Before(end) })
	wall := time.Since(began)
	after, err := f.usage()
	if err == nil {
		err = t.bad()
	}
	if err != nil {
		f.cell.Fault = err.Error()
		return
	}
	u := after.since(before)
	c := f.cell
	cost := float64(u.cpu.Nanoseconds()) / 1e3 / float64(t.answers)
	if d.unit != "" {
		cost *= float64(len(d.talk)) / 1e3 // us for a request -> s for 1,000 students
	}
	c.Rounds = append(c.Rounds, cost)
	c.Sent += t.answers
	c.Again += t.again
	c.Asked += a.origin.asked.Load() - asked
	c.Busy += min(1, float64(u.cpu+u.wait)/float64(wall))
}

// compare sets firstbell's cost beside the others', and judges.
func (r *row) compare(bars []bar) {
	f := r.cell(ours)
	if f == nil || f.Fault != "" {
		return
	}
	for _, c := range r.Cells {
		if c == f || c.Fault != "" {
			continue
		}
		var ratios []float64
		for i := range min(len(c.Rounds), len(f.Rounds)) {
			ratios = append(ratios, f.Rounds[i]/c.Rounds[i])
		}
		c.Ratio = spreadOf(ratios)
	}
	for _, b := range bars {
		if c := r.cell(b.than); c != nil && c.Ratio != nil {
			r.Bars = append(r.Bars, verdict{fmt.Sprintf("≤ %.2fx %s", b.most, b.than), fmt.Sprintf("%.2fx", c.Ratio.Median), c.Ratio.Median <= b.most})
		}
	}
}

// settled asks until the answer has had the same length for a while, and
// returns it as it came: for content that is kept, by then it is, and coded.
func settled(ctx context.Context, addr string, request []byte) (answer []byte, err error) {
	if bytes.HasPrefix(request, []byte("POST")) {
		return exchange(ctx, addr, request)
	}
	same := 0
	for range 60 {
		next, err := exchange(ctx, addr, request)
		if err != nil {
			return nil, err
		}
		// An age that gets a digit more is no change.
		if same++; len(next) < len(answer)-2 || len(next) > len(answer)+2 {
			same = 0
		}
		if answer = next; same == 6 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return answer, nil
}

// exchange sends one request over a connection of its own and returns the
// answer as it came.
func exchange(ctx context.Context, addr string, request []byte) ([]byte, error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerMax)); err != nil {
		return nil, err
	}
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &raw)), nil)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != 200 && res.StatusCode != 304 {
		return nil, fmt.Errorf("status %s", strconv.Itoa(res.StatusCode))
	}
	return raw.Bytes(), nil
}
