package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"
)

// costs are what firstbell was measured to need.
type costs struct {
	Measured     string  `json:"measured"`       // when, and on what
	HitUS        float64 `json:"hit_us"`         // CPU for a small hit
	HitKiBUS     float64 `json:"hit_kib_us"`     // and for each further KiB
	PassUS       float64 `json:"pass_us"`        // CPU for a request that is passed on
	CheckInUS    float64 `json:"check_in_us"`    // CPU for a durable check-in
	DeliverUS    float64 `json:"deliver_us"`     // and for carrying it into the store
	ConnectUS    float64 `json:"connect_us"`     // CPU for a new connection with a full TLS handshake
	ConnKiB      float64 `json:"connection_kib"` // memory of an idle connection over TLS
	KeyKiB       float64 `json:"stored_key_kib"` // memory of a stored response beside its content
	RollBytes    float64 `json:"roll_bytes"`     // memory of a check-in
	JournalBytes float64 `json:"journal_bytes"`  // disk of a check-in
	StoreBytes   float64 `json:"store_bytes"`    // and in the store
	BaseMiB      float64 `json:"base_mib"`       // memory of a node that does nothing
}

//go:embed costs.json
var measured []byte

// readCosts reads the file, or what was measured last where file is empty.
func readCosts(file string) (c costs, err error) {
	b := measured
	if file != "" {
		if b, err = os.ReadFile(file); err != nil {
			return c, err
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("reading costs from %s: %w", file, err)
	}
	if c.HitUS <= 0 || c.PassUS <= 0 || c.CheckInUS <= 0 {
		return c, fmt.Errorf("reading costs from %s: hit_us, pass_us and check_in_us must be there", file)
	}
	return c, nil
}

// A case is the question: which morning, on which machines.
type question struct {
	students int
	schools  int
	lessons  int           // lessons of a school that are opened this morning
	segments int           // media segments a student watches at most; 3 of 4 on average
	window   time.Duration // check-ins open so long before the bell; late is as long after it

	listKiB, lessonKiB, segmentKiB int           // as sent
	ownTime                        time.Duration // the origin's time for a page that is one user's alone
	pause                          time.Duration // between two segments
	kept                           time.Duration // an idle connection stays so long
	listFresh, lessonFresh         time.Duration // freshness lifetimes; media is fresh all morning

	cores     int     // of a node
	busy      float64 // the part of them that is planned with
	gbits     float64 // of a node's network, of which the same part is planned with
	workers   float64 // the part of the origin's workers that is planned with
	spare     int     // nodes more than needed
	days      int     // that the journal is kept
	socketKiB float64 // the kernel's memory for a connection: tcp_sock, file, inode, epoll item, with room to spare
	wireOver  float64 // bytes on the wire for each of content
}

// asked is the question with the numbers that are assumed unless said otherwise.
func asked() question {
	return question{
		students: 2_000_000, lessons: 6, segments: 4, window: 10 * time.Minute,
		listKiB: 7, lessonKiB: 7, segmentKiB: 96, ownTime: 30 * time.Millisecond, pause: 10 * time.Second,
		kept: time.Minute, listFresh: time.Minute, lessonFresh: 10 * time.Minute,
		cores: 4, busy: 0.5, gbits: 10, workers: 0.7, spare: 1, days: 30, socketKiB: 4, wireOver: 1.05,
	}
}

// kind is what a request asks for.
type kind int

const (
	list kind = iota
	own
	lesson
	segment
	checkIn
	kinds
)

// cost is the CPU for one request, in seconds. A hit's content is copied.
func (c *costs) cost(q *question, k kind) float64 {
	us := 0.0
	switch k {
	case list:
		us = c.HitUS + c.HitKiBUS*float64(q.listKiB)
	case own:
		us = c.PassUS
	case lesson:
		us = c.HitUS + c.HitKiBUS*float64(q.lessonKiB)
	case segment:
		us = c.HitUS + c.HitKiBUS*float64(q.segmentKiB)
	case checkIn:
		us = c.CheckInUS + c.DeliverUS
	}
	return us / 1e6
}

// sent is the KiB of one answer.
func (q *question) sent(k kind) float64 {
	return float64([kinds]int{q.listKiB, 1, q.lessonKiB, q.segmentKiB, 1}[k])
}

// reading is how long a student looks at the list before the lesson is opened.
const reading = 5 * time.Second

// figures are what calculator and simulation both find.
type figures struct {
	requests  float64 // of all students, all morning
	peak      float64 // requests in a second, in the busiest ten seconds
	checkIns  float64 // all morning
	pressPeak float64 // check-ins in a second, likewise
	cpu       float64 // cores busy, likewise
	gbits     float64 // likewise
	conns     float64 // open at once
	ownPeak   float64 // requests for own pages in a second, likewise; all of them are the origin's
	fetches   float64 // requests at the origin for what is shared, all morning and of all nodes
}

// series is what happens in each second of a morning.
type series struct {
	requests, presses, own, cpu, kib, open []float64
	sum                                    figures // what is counted, not a peak
}

func newSeries(seconds int) *series {
	return &series{requests: make([]float64, seconds), presses: make([]float64, seconds), own: make([]float64, seconds), cpu: make([]float64, seconds),
		kib: make([]float64, seconds), open: make([]float64, seconds)}
}

// smooth is the seconds that a peak is taken over.
const smooth = 10

func peakOf(v []float64) float64 {
	sum, best := 0.0, 0.0
	for i := range v {
		sum += v[i]
		if i >= smooth {
			sum -= v[i-smooth]
		}
		best = max(best, sum)
	}
	return best / smooth
}

// figures finds the peaks.
func (s *series) figures(q *question) figures {
	f := s.sum
	f.peak, f.pressPeak, f.ownPeak, f.cpu = peakOf(s.requests), peakOf(s.presses), peakOf(s.own), peakOf(s.cpu)
	f.gbits = peakOf(s.kib) * 1024 * 8 * q.wireOver / 1e9
	now := 0.0
	for _, d := range s.open {
		now += d
		f.conns = max(f.conns, now)
	}
	return f
}

// A plan is the calculator's answer.
type plan struct {
	figures
	nodes   int     // spare ones included
	because string  // what they are limited by
	memory  float64 // GiB of each node
	journal float64 // GiB on each node, for all days
	store   float64 // GiB of the store, for all days
	workers int     // of the origin
	stored  float64 // GiB of content, all of it on each node
	keys    float64
}

// calculate answers the question by densities over seconds.
func calculate(q question, c costs) plan {
	p := plan{figures: densities(&q, &c).figures(&q), because: "CPU"}
	byCPU, byWire := math.Ceil(p.cpu/(float64(q.cores)*q.busy)), math.Ceil(p.gbits/(q.gbits*q.busy))
	if byWire > byCPU {
		p.because = "network"
	}
	p.nodes = int(max(byCPU, byWire, 1))
	nodes := float64(p.nodes)
	p.fetches = fetches(&q, p.nodes)
	schools, lessons, media := float64(q.schools), float64(q.lessons), float64(q.lessons*q.segments)
	p.keys = schools*(1+lessons) + media
	text := schools * (float64(q.listKiB) + lessons*float64(q.lessonKiB))
	// Text is held in two codings: what the origin sends, and what is made of it.
	p.stored = (2*text + media*float64(q.segmentKiB) + p.keys*c.KeyKiB) / (1 << 20)
	p.memory = c.BaseMiB/1024 + p.stored + p.conns/nodes*(c.ConnKiB+q.socketKiB)/(1<<20) + p.checkIns/nodes*c.RollBytes/(1<<30)
	p.journal = p.checkIns / nodes * c.JournalBytes * float64(q.days) / (1 << 30)
	p.store = p.checkIns * c.StoreBytes * float64(q.days) / (1 << 30)
	p.workers = int(math.Ceil(p.ownPeak * q.ownTime.Seconds() / q.workers))
	p.nodes += q.spare
	return p
}
