package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// walk goes through the records of a chain in order and reports what is not as
// it should be. Used by one goroutine.
type walk struct {
	chain  *chain
	report func(Damage)
	count  bool // fill in the segments' figures; only for one walk over all of it

	survey  *Survey // filled in by a walk that counts; nil: not wanted
	read    *Survey // what was read before; nil: nothing
	reports int     // damage told so far
	// At the beginning of cur:
	before   uint64 // seen
	knew     bool   // known
	reported int    // reports

	seen  uint64   // every number up to here was read, reported, or never used
	known bool     // seen is known: not so before the first link or record
	after *segment // the segment left last
	cur   *segment // the one being read
	file  File
	scan  *scan
	copy  bool   // cur was read before under another path
	holes []hole // in the Append being read: torn or damaged, not known yet
	err   error  // why next cannot go on just now
}

// hole waits for proof that the Append around it was acknowledged.
type hole struct {
	damage Damage
	append uint64 // first number of the Append it lies in
}

// Record is one record of the journal.
type Record struct {
	Seq uint64
	// Data is valid until the iteration goes on; copy what is kept.
	Data    []byte
	Segment string // path of the file it was read from
}

// refresh learns what has changed on disk since.
func (w *walk) refresh() error {
	err := w.chain.refresh()
	switch {
	case w.cur == nil:
	case !slices.Contains(w.chain.segs, w.cur):
		w.after = w.cur
		w.leave() // removed: what it held was delivered
	case !w.growing():
		w.scan.quiet = 0 // what is judged now is judged for good: look through all of it
	}
	return err
}

// startAt makes next begin where from is, or behind it.
func (w *walk) startAt(from uint64) {
	w.leave()
	w.seen, w.known, w.after = 0, false, nil
	for _, s := range w.chain.inUse() {
		if s.base != 0 && s.base > from {
			break
		}
		if s.base != 0 && s.link != nil {
			w.startBefore(s)
		}
	}
}

// startBefore makes s the next segment to be read.
func (w *walk) startBefore(s *segment) {
	w.after = nil
	if i := slices.Index(w.chain.segs, s); i > 0 {
		w.after = w.chain.segs[i-1]
	}
}

// next returns the next record. ok is false at the end of what is there now,
// and when err says so; asked again, it goes on from there.
func (w *walk) next() (r Record, ok bool) {
	w.err = nil
	for {
		if w.cur == nil {
			if !w.enter() || w.err != nil {
				return Record{}, false
			}
			continue
		}
		if w.cur.end != nil {
			w.scan.limit = w.cur.end.offset
		}
		f, g := w.scan.next()
		if g != nil {
			if g.found == nil && w.growing() {
				if n, ok := w.scan.wrecked(g.from); ok {
					w.tell(w.wreck(g, n))
				}
				return Record{}, false
			}
			w.gap(g)
		}
		if f == nil {
			w.finish()
			continue
		}
		if f.kind != kindRecord {
			continue
		}
		if w.copy && f.seq <= w.seen {
			continue
		}
		w.accept(f)
		return Record{Seq: f.seq, Data: f.data, Segment: w.cur.path}, true
	}
}

// growing says whether the writer may still add to the segment being read.
func (w *walk) growing() bool {
	used := w.chain.inUse()
	return !w.chain.final && w.cur.openEnded() && len(used) > 0 && used[len(used)-1] == w.cur
}

func (w *walk) accept(f *frame) {
	first := f.seq - uint64(f.place)
	w.holes = slices.DeleteFunc(w.holes, func(h hole) bool {
		if first <= h.append {
			return false
		}
		w.cur.damaged = true
		w.tell(h.damage) // a later Append: the one with the hole had been synced
		return true
	})
	w.seen, w.known = max(w.seen, f.seq), true
	if !w.count {
		return
	}
	if w.cur.first == 0 {
		w.cur.first = f.seq
	}
	w.cur.last = f.seq
	w.cur.records++
	w.cur.dataEnd = w.scan.off
}

// enter opens the next segment in use. When it could not be judged, or was
// removed meanwhile, cur is nil still and the next try may differ.
func (w *walk) enter() bool {
	used := w.chain.inUse()
	at := slices.Index(used, w.after)
	for _, s := range used[at+1:] {
		if at < 0 && w.after != nil && s.base != 0 && s.base <= w.seen {
			continue // the one left last was removed, this one was read before it
		}
		if w.read.passes(w, s) {
			continue
		}
		f, err := w.chain.fs.Open(s.path, false)
		if errors.Is(err, fs.ErrNotExist) {
			w.after = s
			continue // removed since; what it held was delivered
		}
		if passing(err) {
			w.err = err
			return false
		}
		if err != nil {
			w.unreadable(s, err)
			continue
		}
		w.cur, w.file, w.scan = s, f, newScan(f, s.id)
		w.copy = w.isCopy(s, used)
		w.before, w.knew, w.reported = w.seen, w.known, w.reports
		w.begin()
		return true
	}
	return false
}

// unreadable passes over a segment that is there and cannot be opened. What it
// holds is known from the links around it.
func (w *walk) unreadable(s *segment, err error) {
	d := Damage{Kind: Unreadable, Segment: s.path, Detail: err.Error()}
	if s.end != nil && s.end.last > w.seen {
		d.From, d.To = w.firstMissing(s.number, s.end.last), s.end.last
		w.seen, w.known = s.end.last, true
	}
	w.tell(d)
	s.damaged = true
	w.after = s
}

func (w *walk) isCopy(s *segment, used []*segment) bool {
	for _, o := range used {
		if o == s {
			return false
		}
		if o.number == s.number && o.id == s.id {
			return true
		}
	}
	return false
}

// begin compares what a segment's link says with what was read before it.
func (w *walk) begin() {
	s := w.cur
	if s.headerErr != nil {
		s.damaged = true
		w.tell(Damage{Kind: Damaged, Segment: s.path, Bytes: headerBytes, Detail: s.headerErr.Error()})
	}
	if s.link == nil || w.copy {
		return
	}
	if w.known && w.seen >= s.base {
		w.tell(Damage{Kind: Overlap, Segment: s.path, From: s.base, To: w.seen, Detail: "these numbers were given out twice"})
		return
	}
	if w.known && w.overtaken() {
		return
	}
	for _, e := range s.link.ends {
		file := w.chain.find(e.number, e.id)
		if e.last <= w.seen || !w.known && (file == nil || file.started) {
			continue // all there, or removed because it was delivered, or not asked for
		}
		d := Damage{
			Kind: Gone, Segment: segmentName(e.number, e.id), From: w.firstMissing(e.number, e.last), To: e.last,
			Detail: "named by " + segmentName(s.number, s.id),
		}
		if file != nil {
			d.Segment = file.path
			file.damaged = true
		}
		w.tell(d)
		w.seen = e.last
	}
	w.seen, w.known = s.base-1, true
}

// overtaken says whether what cur's link names and was not read is not to be
// judged: it was removed while the walk was before it, because it had been
// delivered, or one cannot tell just now. Removal goes in order, so nothing is
// left before cur then; a file missing between others is damage.
func (w *walk) overtaken() bool {
	s := w.cur
	lacks := func(e segmentEnd) bool { return e.last > w.seen }
	if w.chain.final || !slices.ContainsFunc(s.link.ends, lacks) {
		return false
	}
	if w.err = w.refresh(); w.err != nil {
		w.leave()
		return true
	}
	if slices.Index(w.chain.inUse(), s) > 0 {
		return false
	}
	w.seen = s.base - 1
	return true
}

// firstMissing is the lowest number that may be missing when the highest is
// last: the one behind what was read, else the first of all in the first
// segment of all, else only last itself can be named.
func (w *walk) firstMissing(number, last uint64) uint64 {
	switch {
	case w.known:
		return w.seen + 1
	case number == 1:
		return 1
	}
	return last
}

// gap judges a stretch without frames.
func (w *walk) gap(g *gap) {
	s := w.cur
	if g.found == nil && s.openEnded() {
		w.openGap(g)
		return
	}
	d := Damage{Kind: Damaged, Segment: s.path, Offset: g.from, Bytes: g.to - g.from, From: g.expect}
	if g.found == nil {
		d.Bytes = max(0, s.end.offset-g.from)
		d.To = s.end.last
	} else {
		d.To = g.found.seq - 1
	}
	if d.From == 0 {
		d.From = w.firstMissing(s.number, d.To)
		d.Detail = "the link was destroyed, where the numbers begin is not certain"
	}
	if d.To == 0 || d.To < d.From {
		d.From, d.To = 0, 0
	}
	if w.scan.win.refused != nil {
		d.Detail = w.scan.win.refused.Error()
	}
	torn := w.maybeTorn(g)
	if d.To != 0 {
		w.seen, w.known = max(w.seen, d.To), true
	}
	if torn {
		w.holes = append(w.holes, hole{damage: d, append: g.found.seq - uint64(g.found.place)})
		return
	}
	s.damaged = true
	w.tell(d)
}

// openGap judges what lies behind the last frame of a segment whose end is not
// stated: what a power cut left of an Append, unless it is all there and wrong.
func (w *walk) openGap(g *gap) {
	if g.zero {
		return
	}
	d := Damage{Kind: Torn, Segment: w.cur.path, Offset: g.from, Bytes: g.to - g.from}
	if n, ok := w.scan.wrecked(g.from); ok {
		d = w.wreck(g, n)
		w.seen, w.known = g.expect, true
		w.cur.damaged, w.cur.lost = true, g.expect
		w.scan.off += n // so that the next link names it
	}
	w.tell(d)
}

func (w *walk) wreck(g *gap, n int64) Damage {
	return Damage{
		Kind: Damaged, Segment: w.cur.path, Offset: g.from, Bytes: n, From: g.expect, To: g.expect,
		Detail: "in the last Append, which may not have been acknowledged",
	}
}

// maybeTorn says whether a hole lies within one Append that may be the last
// before a crash.
func (w *walk) maybeTorn(g *gap) bool {
	expect := g.expect
	if expect == 0 && w.known {
		expect = w.seen + 1 // the link went out with the first Append
	}
	if g.found == nil || g.found.kind != kindRecord || expect == 0 {
		return false
	}
	if e := w.cur.end; e != nil && e.flags&endFound == 0 {
		return false
	}
	return g.found.seq-uint64(g.found.place) <= expect && w.scan.lostSector(g.from, g.to)
}

// finish leaves a segment that was read to its end.
func (w *walk) finish() {
	s := w.cur
	for _, h := range w.holes {
		if w.scan.closed {
			s.damaged = true
		} else {
			h.damage.Kind, h.damage.Detail = Torn, "in the last Append before a crash"
		}
		w.tell(h.damage)
	}
	w.holes = w.holes[:0]
	if w.count {
		s.closed = w.scan.closed
		s.dataEnd = min(w.scan.off, w.scan.limit)
		s.unreadable = w.scan.win.unreadable
	}
	if e := s.end; e != nil {
		if e.last > w.seen {
			s.damaged = true
			w.tell(Damage{Kind: Gone, Segment: s.path, Offset: w.scan.off, From: w.firstMissing(s.number, e.last), To: e.last, Detail: "the file is shorter than it was"})
			w.seen, w.known = e.last, true
		}
		w.tail(e)
		if w.survey != nil && w.reports == w.reported && !w.copy && s.unreadable == 0 && s.link != nil {
			w.survey.note(w)
		}
	}
	w.leave()
	w.after = s
}

// tail reports what lies behind the stated end of a segment.
func (w *walk) tail(e *segmentEnd) {
	size, err := w.file.Size()
	if err != nil {
		size = e.offset
	}
	d := Damage{Kind: Torn, Segment: w.cur.path, Offset: e.offset}
	d.Bytes = w.scan.win.lastNonZero(e.offset, size) - e.offset
	if e.flags&endUnknown != 0 {
		d.Kind = Unknown
		d.Detail = fmt.Sprintf("an Append failed behind record %d", e.last)
	} else if d.Bytes == 0 || w.scan.closed {
		return
	}
	w.tell(d)
}

// tell reports damage.
func (w *walk) tell(d Damage) {
	w.reports++
	w.report(d)
}

func (w *walk) leave() {
	if w.file != nil {
		w.file.Close()
	}
	w.cur, w.file, w.scan = nil, nil, nil
	w.holes = w.holes[:0]
}
