package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"firstbell/bench/bell"
	"firstbell/bench/lms"
)

// count waits until every receipt has been delivered, draws up the register, and
// compares what the students hold with what is written down.
func (d *demo) count(ctx context.Context) (*figures, error) {
	c := newComparison(d.stage.roster, d.player)
	if d.direct {
		c.direct = true
	} else {
		d.screen.print("The lesson is over. Waiting for the last deliveries, then drawing up the register …")
		d.awaitDelivery(ctx, c.receipts)
		register := filepath.Join(d.dir, "register.jsonl")
		if err := d.lives.export(ctx, "jsonl", register); err != nil {
			return nil, err
		}
		if err := d.lives.export(ctx, "xlsx", d.stage.workbook()); err != nil {
			return nil, err
		}
		if err := c.readExport(register); err != nil {
			return nil, err
		}
	}
	for r := range d.stage.lms.Register() {
		c.takeOrigin(&r)
	}
	c.finish()
	if d.lives != nil && !d.stay {
		if err := d.lives.stop(drainMax); err != nil {
			return nil, err
		}
	}
	return d.figures(c), nil
}

// awaitDelivery waits until what is in the journal is in the store and at the
// origin. When that takes too long, the comparison says what is missing.
func (d *demo) awaitDelivery(ctx context.Context, receipts int64) {
	patience := 30*time.Second + time.Duration(receipts)*50*time.Microsecond
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !d.lives.delivered(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// comparison sets every receipt in a student's hands against the export and the
// origin's register.
type comparison struct {
	roster *bell.Roster
	hands  hands
	direct bool  // there is no export: the origin's register is all there is
	seen   []see // by student

	receipts, pressedN                  int64 // in hands; students who pressed
	present, late, outside, absent      int64 // as the register has them
	heldPresent, heldLate, heldOutside  int64 // as the students hold them
	storeRows, originRows               int64
	lost, differ, duplicates, invented  int64
	without, absentThoughHere, madeLate int64
	examples                            []string
	schools                             []schoolFigures
	lostFromStore, lostFromOrigin       int64
	unknownRows                         int64
}

// hands are what the students have to show; a bell.Player has them.
type hands interface {
	Hands() iter.Seq2[int, bell.Hand]
	Hand(student int) bell.Hand
}

// see says where something of a student was seen.
type see uint8

const (
	exportPeriod see = 1 << iota
	exportOutside
	exportAbsent
	originPeriod
	originOutside
)

// schoolFigures is one line of the register by school.
type schoolFigures struct {
	School                string
	Present, Late, Absent int64
}

func newComparison(roster *bell.Roster, all hands) *comparison {
	c := &comparison{roster: roster, hands: all, seen: make([]see, roster.Students())}
	for s := range roster.Schools() {
		c.schools = append(c.schools, schoolFigures{School: roster.SchoolID(s)})
	}
	for _, h := range all.Hands() {
		if h.Pressed {
			c.pressedN++
		}
		for _, held := range []bell.Held{h.Period, h.Outside} {
			switch held.Status {
			case bell.Nothing:
				continue
			case bell.Present:
				c.heldPresent++
			case bell.Late:
				c.heldLate++
			case bell.Outside:
				c.heldOutside++
			}
			c.receipts++
		}
		if h.Pressed && h.Period.Status == bell.Nothing && h.Outside.Status == bell.Nothing {
			c.without++
		}
		if h.MadeLate {
			c.madeLate++
		}
	}
	return c
}

func (c *comparison) example(format string, args ...any) {
	if len(c.examples) < 20 {
		c.examples = append(c.examples, fmt.Sprintf(format, args...))
	}
}

// exportRow is one line of the export, as far as it is compared.
type exportRow struct {
	Date         string `json:"date"`
	School       string `json:"school"`
	Class        string `json:"class_id"`
	Student      string `json:"student_id"`
	Name         string `json:"name"`
	Period       string `json:"period"`
	Status       string `json:"status"`
	FirstArrival string `json:"first_arrival"`
	Receipt      string `json:"receipt"`
}

// readExport goes through the export line by line.
func (c *comparison) readExport(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r exportRow
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("reading the export: line %d of %s: %w", n, file, err)
		}
		c.takeExport(&r)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the export %s: %w", file, err)
	}
	return nil
}

// takeExport sets one line of the export against what the student holds.
func (c *comparison) takeExport(r *exportRow) {
	i, ok := c.roster.Index(r.Student)
	if !ok {
		c.unknownRows++
		c.example("the export has %q, who is nobody's student", r.Student)
		return
	}
	st := c.roster.Student(i)
	if r.Class != st.ClassID || r.School != c.roster.SchoolID(st.School) {
		c.differ++
		c.example("the export has %s in class %q of %q; it is %q of %q", st.ID, r.Class, r.School, st.ClassID, c.roster.SchoolID(st.School))
	}
	if r.Status == "absent" {
		c.takeAbsent(i, &st)
		return
	}
	c.storeRows++
	status := bell.ParseStatus(r.Status)
	c.book(status, st.School)
	mark, held := exportPeriod, c.hands.Hand(i).Period
	if status == bell.Outside {
		mark, held = exportOutside, c.hands.Hand(i).Outside
	}
	if c.seen[i]&mark != 0 {
		c.duplicates++
		c.example("the export has %s twice in period %q", st.ID, r.Period)
		return
	}
	if c.agrees("the export", i, &st, held, status, r.Receipt, r.FirstArrival) {
		c.seen[i] |= mark
	}
}

func (c *comparison) takeAbsent(i int, st *bell.Student) {
	c.absent++
	c.schools[st.School].Absent++
	if c.seen[i]&exportAbsent != 0 {
		c.duplicates++
		c.example("the export has %s absent twice", st.ID)
	}
	c.seen[i] |= exportAbsent
	if c.hands.Hand(i).Period.Status != bell.Nothing {
		c.absentThoughHere++
		c.example("%s is absent in the export and holds a receipt", st.ID)
	}
}

// book counts a row of the register.
func (c *comparison) book(status bell.Status, school int) {
	switch status {
	case bell.Present:
		c.present++
		c.schools[school].Present++
	case bell.Late:
		c.late++
		c.schools[school].Late++
	case bell.Outside:
		c.outside++
	default:
		c.unknownRows++
	}
}

// agrees reports whether a row is the one the student holds a receipt for, and
// notes in what it is not. A row may tell of an earlier arrival than the receipt,
// when a retry proved it; never of a later one.
func (c *comparison) agrees(who string, i int, st *bell.Student, held bell.Held, status bell.Status, receipt, first string) bool {
	id, ok := bell.ParseUUID(receipt)
	switch {
	case !c.hands.Hand(i).Pressed:
		c.invented++
		c.example("%s has %s, who never pressed", who, st.ID)
		return false
	case held.Status == bell.Nothing:
		// The press is on disk, and its receipt never reached the student: kept, as
		// it has to be. It counts among those without a receipt.
		return true
	case !ok || id != held.ID:
		c.differ++
		c.example("%s has %s with receipt %q; the student holds %x", who, st.ID, receipt, held.ID)
		return false
	}
	at, err := time.Parse(time.RFC3339, first)
	if err != nil || at.UnixMilli() > held.First || (status != held.Status && at.UnixMilli() == held.First) {
		c.differ++
		c.example("%s has %s %s at %s; the receipt says %s at %s", who, st.ID, status, first, held.Status, time.UnixMilli(held.First))
	}
	return true
}

// takeOrigin sets one row of the origin's register against what the student
// holds.
func (c *comparison) takeOrigin(r *lms.Record) {
	i, ok := c.roster.Index(r.Student)
	if !ok {
		c.unknownRows++
		c.example("the origin has %q, who is nobody's student", r.Student)
		return
	}
	c.originRows++
	st := c.roster.Student(i)
	status := bell.ParseStatus(r.Status)
	if c.direct {
		c.book(status, st.School)
	}
	mark, held := originPeriod, c.hands.Hand(i).Period
	if status == bell.Outside {
		mark, held = originOutside, c.hands.Hand(i).Outside
	}
	if c.seen[i]&mark != 0 {
		c.duplicates++
		c.example("the origin has %s twice in period %q", st.ID, r.Period)
		return
	}
	if c.agrees("the origin", i, &st, held, status, r.Receipt, r.FirstArrival.Format(time.RFC3339Nano)) {
		c.seen[i] |= mark
	}
}

// finish counts what was seen nowhere.
func (c *comparison) finish() {
	for i, h := range c.hands.Hands() {
		c.missing(i, h.Period, exportPeriod, originPeriod)
		c.missing(i, h.Outside, exportOutside, originOutside)
		if c.direct && c.seen[i]&originPeriod == 0 {
			st := c.roster.Student(i)
			c.absent++
			c.schools[st.School].Absent++
			if h.Pressed {
				c.absentThoughHere++
			}
		}
	}
	if c.direct {
		c.storeRows = c.originRows
	}
}

func (c *comparison) missing(i int, held bell.Held, export, origin see) {
	if held.Status == bell.Nothing {
		return
	}
	inExport := c.direct || c.seen[i]&export != 0
	inOrigin := c.seen[i]&origin != 0
	if inExport && inOrigin {
		return
	}
	c.lost++
	if !inExport {
		c.lostFromStore++
		c.example("the receipt %x of %s is not in the export", held.ID, c.roster.Student(i).ID)
	}
	if !inOrigin {
		c.lostFromOrigin++
		c.example("the receipt %x of %s did not reach the origin", held.ID, c.roster.Student(i).ID)
	}
}
