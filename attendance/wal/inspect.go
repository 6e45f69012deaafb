package wal

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// SegmentState says in what order a segment is.
type SegmentState string

const (
	Sealed      SegmentState = "sealed"       // ended in good order, nothing is missing
	InUse       SegmentState = "open"         // the last one: being written, or left by a crash
	TornTail    SegmentState = "torn"         // ends with a piece of an Append that was not acknowledged
	UnknownTail SegmentState = "unknown tail" // an Append failed behind its end
	IsDamaged   SegmentState = "damaged"      // acknowledged records may be missing
	NotReadable SegmentState = "unreadable"   // the file is there and cannot be opened
	Unused      SegmentState = "unused"       // made ahead
)

// SegmentInfo is what firstbell inspect shows of one segment.
type SegmentInfo struct {
	Path        string
	Number, ID  uint64
	Host        string    // "": the header was destroyed
	Created     time.Time // zero: likewise
	Begun       string    // why: "the one before is full", "opened", "revived"; "": unused or not known
	First, Last uint64    // 0: no records
	Records     int64
	Bytes       int64 // size of the file
	Used        int64 // of those, up to the end of the last frame
	State       SegmentState
	Damages     []Damage
}

// Report is everything about a journal but its records.
type Report struct {
	Segments []SegmentInfo // in the order of their records, unused ones last
	Damages  []Damage
	Missing  []Range
	SetAside []string // files that hold what could not be read
}

// Inspect reads a whole journal as OpenReader does: no lock, nothing written.
func Inspect(dirs ...string) (*Report, error) { return InspectFS(defaultFS(), dirs...) }

// InspectFS is Inspect on a file system of the caller's.
func InspectFS(fs FS, dirs ...string) (*Report, error) {
	r, err := OpenReaderFS(fs, dirs...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	r.walk.count = true
	if err := r.toTheEnd(); err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	rep := &Report{Damages: r.damages, Missing: r.Missing(), SetAside: slices.Clone(r.chain.aside)}
	for _, s := range r.chain.segs {
		rep.Segments = append(rep.Segments, r.info(s))
	}
	return rep, nil
}

// toTheEnd reads everything. Bytes behind the last record are a torn tail only
// if they are the same at a second look: else an Append was under way.
func (r *Reader) toTheEnd() error {
	w := r.walk
	for before, tail := (Damage{}), (Damage{}); ; before = tail {
		for ok := true; ok; {
			_, ok = w.next()
		}
		if w.err != nil || w.cur == nil {
			return w.err
		}
		w.scan.win.drop()
		n := w.scan.win.lastNonZero(w.scan.off, w.scan.limit) - w.scan.off
		if n == 0 {
			return nil
		}
		tail = Damage{Kind: Torn, Segment: w.cur.path, Offset: w.scan.off, Bytes: n, Detail: "or just being written"}
		if tail == before {
			r.note(tail)
			return nil
		}
	}
}

func (r *Reader) info(s *segment) SegmentInfo {
	i := SegmentInfo{
		Path: s.path, Number: s.number, ID: s.id, Host: s.host, Created: s.created,
		First: s.first, Last: s.last, Records: s.records, Used: s.dataEnd, State: Sealed,
	}
	if f, err := r.chain.fs.Open(s.path, false); err == nil {
		i.Bytes, _ = f.Size()
		f.Close()
	}
	if s.link != nil {
		i.Begun = map[uint32]string{whyFull: "the one before is full", whyOpened: "opened", whyRevived: "revived"}[s.link.why]
	}
	switch {
	case s.openErr != nil:
		i.State = NotReadable
	case !s.started:
		i.State = Unused
	case s.openEnded() && !s.closed:
		i.State = InUse
	}
	for _, d := range r.damages {
		if d.Segment != s.path {
			continue
		}
		i.Damages = append(i.Damages, d)
		switch {
		case d.Kind == Unreadable || i.State == NotReadable:
			i.State = NotReadable
		case d.Alarm():
			i.State = IsDamaged
		case i.State == IsDamaged:
		case d.Kind == Unknown:
			i.State = UnknownTail
		default:
			i.State = TornTail
		}
	}
	return i
}

// Frame is one frame of a segment as it lies in the file, or a stretch that is
// none.
type Frame struct {
	Offset, Bytes int64
	Kind          string // "link", "record", "end", or "no frame"
	Seq           uint64
	Place         uint32 // of a record in its Append
	Data          []byte // valid until the iteration goes on
}

// Dump yields what lies in one segment file, front to back, without regard to
// what other segments say: also what lies behind the stated end. An error is
// the first and only thing it yields.
func Dump(path string) iter.Seq2[Frame, error] { return DumpFS(defaultFS(), path) }

// DumpFS is Dump on a file system of the caller's.
func DumpFS(fs FS, path string) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		c := &chain{fs: fs}
		s, err := c.load(path)
		if err == nil {
			err = s.openErr
		}
		var f File
		if err == nil {
			f, err = fs.Open(path, false)
		}
		if err != nil {
			yield(Frame{}, fmt.Errorf("dumping segment %s: %w", path, err))
			return
		}
		defer f.Close()
		dump(newScan(f, s.id), yield)
	}
}

func dump(sc *scan, yield func(Frame, error) bool) {
	kinds := map[byte]string{kindLink: "link", kindRecord: "record", kindEnd: "end"}
	for {
		f, g := sc.next()
		if g != nil && g.to > g.from {
			if !yield(Frame{Offset: g.from, Bytes: g.to - g.from, Kind: "no frame", Seq: g.expect}, nil) {
				return
			}
		}
		if f == nil {
			return
		}
		out := Frame{Offset: sc.off - f.size(), Bytes: f.size(), Kind: kinds[f.kind], Seq: f.seq, Place: f.place, Data: f.data}
		if !yield(out, nil) {
			return
		}
	}
}
