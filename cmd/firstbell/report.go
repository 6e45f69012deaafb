package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"firstbell/bench/bell"
	"firstbell/bench/lms"
)

// figures are what a morning came to. The names of the first group are fixed;
// programs read them.
type figures struct {
	Students        int     `json:"students"`
	ClientRequests  int64   `json:"client_requests"` // sent by students, check-ins and retries included
	OriginRequests  int64   `json:"origin_requests"` // that reached the origin, bulk posts included, health checks not
	Receipts        int64   `json:"receipts"`        // distinct keys receipted
	ReceiptsLost    int64   `json:"receipts_lost"`   // of those, not in the export or not at the origin
	DuplicateRows   int64   `json:"duplicate_rows"`
	CheckinsPressed int64   `json:"checkins_pressed"` // presses of the button, retries not counted
	StoreRows       int64   `json:"store_rows"`       // present + late + outside
	BulkWrites      int64   `json:"bulk_writes"`      // bulk posts the origin took
	Absent          int64   `json:"absent"`
	Late            int64   `json:"late"`
	Present         int64   `json:"present"`
	P50             float64 `json:"p50_ms"` // of all requests, from due to the last byte
	P99             float64 `json:"p99_ms"`
	FailedRequests  int64   `json:"failed_requests"` // given up after all retries
	Leaks           int64   `json:"leaks"`

	Outside              int64   `json:"outside"`
	Schools              int     `json:"schools"`
	Seed                 uint64  `json:"seed"`
	Direct               bool    `json:"direct"`
	Date                 string  `json:"date"`
	Seconds              float64 `json:"seconds"` // from the first student to the last answer
	RetriedRequests      int64   `json:"retried_requests"`
	RefusedRequests      int64   `json:"refused_requests"` // asked to come back
	BrokenConnections    int64   `json:"broken_connections"`
	LessonRequests       int64   `json:"lesson_requests"`
	LessonOriginRequests int64   `json:"lesson_origin_requests"`
	CheckinRequests      int64   `json:"checkin_requests"`
	CheckinP50           float64 `json:"checkin_p50_ms"`
	CheckinP99           float64 `json:"checkin_p99_ms"`
	ReceiptWaitP50       float64 `json:"receipt_wait_p50_ms"` // from the press to the receipt, retries and outage included
	ReceiptWaitP99       float64 `json:"receipt_wait_p99_ms"`
	ReceiptWaitMax       float64 `json:"receipt_wait_max_ms"`
	StoreStatements      int64   `json:"store_statements"`
	OriginRows           int64   `json:"origin_rows"`
	OriginWrites         int64   `json:"origin_writes"`
	OriginMostAtOnce     int     `json:"origin_most_at_once"`
	OriginPlaces         int     `json:"origin_places"`
	OriginFalls          int     `json:"origin_falls"`
	MostFetched          int     `json:"most_fetched"` // times the same page or segment was fetched whole
	Kills                int     `json:"kills"`
	OutageMs             float64 `json:"outage_ms"`
	WithoutReceipt       int64   `json:"without_receipt"` // pressed, and hold nothing
	AbsentThoughHere     int64   `json:"absent_though_here"`
	MadeLate             int64   `json:"made_late"`
	WrongAnswers         int64   `json:"wrong_answers"`
	ReceiptConflicts     int64   `json:"receipt_conflicts"`
	ReceiptsDiffer       int64   `json:"receipts_differ"`
	InventedRows         int64   `json:"invented_rows"`
	CPUSeconds           float64 `json:"firstbell_cpu_seconds,omitempty"`

	BrokenPromises []string `json:"broken_promises"`

	// For the page and the screen only.
	promises []promise
	kinds    []kindFigures
	schools  []schoolFigures
	notes    []string
	chart    chartData
	morning  bell.Morning
	command  string
	machine  string
}

// kindFigures is a line of the table of requests.
type kindFigures struct {
	Name     string
	Counts   bell.Counts
	Origin   int64
	P50, P99 time.Duration
}

// promise is one of the things that have to hold.
type promise struct {
	Kept   bool
	Says   string // the promise, as a sentence
	Figure string // what was found
}

// figures gathers everything that was counted.
func (d *demo) figures(c *comparison) *figures {
	p, s := d.player, d.stage
	total := p.Total()
	r := &figures{
		Students: d.students, Schools: d.schools, Seed: d.seed, Direct: d.direct, Date: s.morning.Date,
		ClientRequests: total.Sent, FailedRequests: total.GaveUp,
		RetriedRequests: total.Refused + total.Errors + total.Broken + total.TimedOut + total.Wrong - total.GaveUp,
		RefusedRequests: total.Refused, BrokenConnections: total.Broken, WrongAnswers: total.Wrong,
		OriginRequests: s.lms.Requests(), OriginMostAtOnce: s.lms.MostInside(), OriginPlaces: s.lms.Places(),
		OriginFalls: s.lms.Falls(), OriginRows: c.originRows, OriginWrites: s.lms.Writes(),
		Receipts: c.receipts, ReceiptsLost: c.lost, DuplicateRows: c.duplicates, StoreRows: c.storeRows,
		Present: c.present, Late: c.late, Outside: c.outside, Absent: c.absent,
		WithoutReceipt: c.without, AbsentThoughHere: c.absentThoughHere, MadeLate: c.madeLate,
		ReceiptsDiffer: c.differ, InventedRows: c.invented + c.unknownRows,
		CheckinsPressed: p.Progress().Pressed, Leaks: p.Leaks(), ReceiptConflicts: p.Conflicts(),
		CheckinRequests: p.Counts(bell.CheckIn).Sent,
		P50:             ms(p.Took(0.5, bell.Kinds...)), P99: ms(p.Took(0.99, bell.Kinds...)),
		CheckinP50: ms(p.Took(0.5, bell.CheckIn)), CheckinP99: ms(p.Took(0.99, bell.CheckIn)),
		ReceiptWaitP50: ms(p.ToHand(0.5)), ReceiptWaitP99: ms(p.ToHand(0.99)), ReceiptWaitMax: ms(p.ToHand(1)),
		BrokenPromises: []string{},
		schools:        c.schools, morning: s.morning,
		notes:   append(p.Notes(), c.examples...),
		machine: fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
	}
	r.MostFetched, _ = s.lms.MostFetched()
	for _, k := range bell.Kinds {
		r.addKind(k, p, s.lms)
	}
	if d.lives != nil {
		r.addLives(d.lives)
	}
	if !d.direct {
		r.BulkWrites = r.OriginWrites
	}
	r.chart = chartDataOf(p, s.lms, s.morning, d.outages())
	r.Seconds = r.chart.seconds()
	r.command = d.command()
	if !d.direct {
		r.judge(c)
	}
	return r
}

func (d *demo) outages() []outage {
	if d.lives == nil {
		return nil
	}
	return d.lives.outages()
}

// originKinds says under which kind the platform counts what students ask for.
var originKinds = map[bell.Kind]lms.Kind{bell.List: lms.List, bell.Page: lms.Page, bell.Media: lms.Media, bell.Me: lms.Me, bell.CheckIn: lms.CheckIn}

func (r *figures) addKind(k bell.Kind, p *bell.Player, origin *lms.Server) {
	f := kindFigures{
		Name: k.String(), Counts: p.Counts(k), Origin: origin.Counts(originKinds[k]).Arrived,
		P50: p.Took(0.5, k), P99: p.Took(0.99, k),
	}
	r.kinds = append(r.kinds, f)
	if k.Lesson() {
		r.LessonRequests += f.Counts.Sent
		r.LessonOriginRequests += f.Origin
	}
}

func (r *figures) addLives(l *lives) {
	sum := l.sum()
	r.StoreStatements = sum.Statements
	r.CPUSeconds = sum.CPU.Seconds()
	for _, o := range l.outages() {
		r.Kills++
		r.OutageMs += ms(o.Ready.Sub(o.Killed))
	}
}

// judge sets the figures against the promises.
func (r *figures) judge(c *comparison) {
	keep := func(kept bool, says, figure string, args ...any) {
		p := promise{kept, says, fmt.Sprintf(figure, args...)}
		r.promises = append(r.promises, p)
		if !kept {
			r.BrokenPromises = append(r.BrokenPromises, says+" ("+p.Figure+")")
		}
	}
	keep(r.ReceiptsLost == 0, "no receipt is lost", "%s of %s lost: %d not in the export, %d not at the origin",
		thousands(r.ReceiptsLost), thousands(r.Receipts), c.lostFromStore, c.lostFromOrigin)
	keep(r.WithoutReceipt == 0, "everybody who pressed holds a receipt", "%s of %s students hold none",
		thousands(r.WithoutReceipt), thousands(c.pressedN))
	keep(r.DuplicateRows == 0 && r.ReceiptConflicts == 0, "pressing twice is one row and one receipt", "%d rows twice, %d receipts in conflict; %s presses, %s rows",
		r.DuplicateRows, r.ReceiptConflicts, thousands(r.CheckinsPressed), thousands(r.StoreRows))
	keep(r.InventedRows == 0 && r.StoreRows == r.OriginRows && r.StoreRows >= r.Receipts && r.StoreRows-r.Receipts <= r.WithoutReceipt,
		"store, export and origin agree", "%s receipts, %s rows in the export, %s at the origin, %d invented",
		thousands(r.Receipts), thousands(r.StoreRows), thousands(r.OriginRows), r.InventedRows)
	keep(r.ReceiptsDiffer == 0 && r.AbsentThoughHere == 0 && c.rollAdds(), "the register says what the receipts say",
		"%s present, %s late, %s absent of %s; %d rows differ, %d absent though here",
		thousands(r.Present), thousands(r.Late), thousands(r.Absent), thousands(int64(r.Students)), r.ReceiptsDiffer, r.AbsentThoughHere)
	keep(r.MadeLate == 0, "nobody is made late by a refusal", "%d were seen in time and called late", r.MadeLate)
	keep(r.Leaks == 0, "nobody sees what belongs to another", "%d leaks in %s answers", r.Leaks, thousands(r.ClientRequests))
	keep(r.WrongAnswers == 0, "no answer is spoilt or cut short unnoticed", "%d wrong answers", r.WrongAnswers)
	keep(r.OriginFalls == 0 && r.OriginMostAtOnce <= r.OriginPlaces, "the origin is never asked more than it can do",
		"%d at once at most, it bears %d; %d falls", r.OriginMostAtOnce, r.OriginPlaces, r.OriginFalls)
	keep(r.MostFetched <= 1+r.Kills, "one fetch for everybody", "a page or segment was fetched %d times at most, in %d lives of firstbell",
		r.MostFetched, 1+r.Kills)
}

// rollAdds reports whether the register is complete, and counts as the receipts
// in the students' hands do.
func (c *comparison) rollAdds() bool {
	students := int64(c.roster.Students())
	return c.present+c.late+c.absent == students && c.absent == students-c.heldPresent-c.heldLate-c.without &&
		c.present+c.late+c.outside >= c.receipts
}

func (d *demo) command() string {
	s := fmt.Sprintf("firstbell demo -students %d -schools %d -seed %d -duration %s", d.students, d.schools, d.seed, d.duration)
	if !d.kill {
		s += " -kill=false"
	}
	if d.direct {
		s += " -direct"
	}
	return s
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// thousands writes 12,345.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a time as somebody would say it: 0.4 ms, 12 ms, 1.3 s.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", ms(d))
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", ms(d))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// fell says how often the origin fell.
func fell(n int) string {
	if n == 0 {
		return "never fell"
	}
	return "fell " + times(n)
}

// times says how often.
func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return strconv.Itoa(n) + " times"
}

func shortMs(f float64) string { return short(time.Duration(f * float64(time.Millisecond))) }

// share writes a part of a whole: 0.4 %.
func share(part, whole int64) string {
	if whole == 0 {
		return "0 %"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + " %"
}

// headline is the morning in one sentence.
func (r *figures) headline() string {
	switch {
	case r.Direct && r.OriginFalls == 0:
		return "Without firstbell, and the origin held: so few students it bears."
	case r.Direct:
		return fmt.Sprintf("Without firstbell the origin fell %s, and %s students who came count as absent.", times(r.OriginFalls), thousands(r.AbsentThoughHere))
	case len(r.BrokenPromises) == 1:
		return "One promise was broken."
	case len(r.BrokenPromises) > 1:
		return fmt.Sprintf("%d promises were broken.", len(r.BrokenPromises))
	}
	return thousands(int64(r.Students)) + " students, one bell, no receipt lost."
}

// text is the report on the screen.
func (r *figures) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", r.headline())
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	line("register", "%s present, %s late, %s absent; %s check-ins outside the period",
		thousands(r.Present), thousands(r.Late), thousands(r.Absent), thousands(r.Outside))
	line("check-ins", "%s presses, %s receipts; answered in %s (median) and %s (p99), the longest wait for a receipt was %s",
		thousands(r.CheckinsPressed), thousands(r.Receipts), shortMs(r.CheckinP50), shortMs(r.CheckinP99), shortMs(r.ReceiptWaitMax))
	line("requests", "%s from students, %s reached the origin; answered in %s (median) and %s (p99)",
		thousands(r.ClientRequests), thousands(r.OriginRequests), shortMs(r.P50), shortMs(r.P99))
	line("lessons", "%s requests, %s reached the origin (%s)", thousands(r.LessonRequests), thousands(r.LessonOriginRequests), share(r.LessonOriginRequests, r.LessonRequests))
	line("origin", "%d requests inside at most, %d places; it %s", r.OriginMostAtOnce, r.OriginPlaces, fell(r.OriginFalls))
	if r.Direct {
		line("writes", "%s, one for each check-in that got through", thousands(r.OriginWrites))
		line("turned away", "%s tries failed and were made again; %s requests were given up", thousands(r.RetriedRequests), thousands(r.FailedRequests))
		line("absent", "%s students pressed and hold no receipt", thousands(r.WithoutReceipt))
		return b.String()
	}
	line("writes", "%s statements against the store, %s bulk posts to the origin", thousands(r.StoreStatements), thousands(r.BulkWrites))
	if r.Kills > 0 {
		line("kill -9", "firstbell was gone for %s; %s tries failed and were made again, %s requests were given up",
			shortMs(r.OutageMs), thousands(r.RetriedRequests), thousands(r.FailedRequests))
	}
	b.WriteString("\n")
	for _, p := range r.promises {
		mark := "kept  "
		if !p.Kept {
			mark = "BROKEN"
		}
		fmt.Fprintf(&b, "  %s  %s: %s\n", mark, p.Says, p.Figure)
	}
	if len(r.BrokenPromises) > 0 {
		for _, n := range r.notes {
			fmt.Fprintf(&b, "          %s\n", n)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
