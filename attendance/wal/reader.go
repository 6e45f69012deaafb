package wal

import (
	"fmt"
	"iter"
	"math"
)

// Reader reads a journal without a lock and without writing, beside a running
// Log or when none runs. Used by one goroutine.
type Reader struct {
	chain   *chain
	walk    *walk
	next    uint64 // what walk yields next is this or higher
	last    uint64
	damages []Damage
	known   map[damageKey]bool
}

type damageKey struct {
	segment string
	kind    DamageKind
	offset  int64
	from    uint64
}

// OpenReader opens the journal kept in dirs (Options.Dir, then Options.Spare,
// "" is passed over). A directory that cannot be listed is an error only when
// none can.
func OpenReader(dirs ...string) (*Reader, error) { return OpenReaderFS(defaultFS(), dirs...) }

// OpenReaderFS is OpenReader on a file system of the caller's.
func OpenReaderFS(fs FS, dirs ...string) (*Reader, error) {
	c := &chain{fs: fs}
	for _, d := range dirs {
		if d != "" {
			c.dirs = append(c.dirs, d)
		}
	}
	r := &Reader{chain: c, known: map[damageKey]bool{}}
	if err := c.refresh(); err != nil {
		return nil, fmt.Errorf("reading journal: %w", err)
	}
	r.walk = &walk{chain: c, report: r.note}
	r.next = math.MaxUint64
	return r, nil
}

// Records yields the records numbered from and higher, in order, up to the end
// of what is there: at least everything acknowledged before the call and not
// removed since. Called again with the number after the last one it goes on
// where it was; any other number is found anew. At the end of a journal in use
// it may yield records whose Append has not returned: who reads in the writer's
// process stops at Log.Next.
//
// What cannot be read is passed over and told by Damage and Missing; never what
// is only being written, and what RemoveBefore takes away ahead of the reader
// is passed over without being told. An error means that the directories cannot
// be listed, that no more files can be opened, or that a newer program wrote
// them; it ends the iteration and passes nothing over.
func (r *Reader) Records(from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := r.walk.refresh(); err != nil {
			yield(Record{}, fmt.Errorf("reading journal: %w", err))
			return
		}
		if from != r.next {
			r.walk.startAt(from)
			r.next = from
		}
		for {
			rec, ok := r.walk.next()
			if !ok {
				if err := r.walk.err; err != nil {
					yield(Record{}, fmt.Errorf("reading journal: %w", err))
				}
				return
			}
			if rec.Seq < from {
				continue
			}
			r.next = max(r.next, rec.Seq+1)
			r.last = max(r.last, rec.Seq)
			if !yield(rec, nil) {
				return
			}
		}
	}
}

func (r *Reader) note(d Damage) {
	k := damageKey{d.Segment, d.Kind, d.Offset, d.From}
	if r.known[k] || len(r.damages) >= damagesMax {
		return
	}
	r.known[k] = true
	r.damages = append(r.damages, d)
}

// damagesMax bounds what a Reader remembers. Each costs some 200 bytes.
const damagesMax = 100_000

// Damage lists what was found in the part read so far.
func (r *Reader) Damage() []Damage { return r.damages }

// Missing lists the numbers, in the part read so far, that may have been
// acknowledged and cannot be read.
func (r *Reader) Missing() []Range { return missing(r.damages) }

// First is the number at which the journal begins: the lowest that its oldest
// segment holds or would hold. 0: there is none.
func (r *Reader) First() uint64 {
	for _, s := range r.chain.inUse() {
		if s.base != 0 {
			return s.base
		}
	}
	return 0
}

// Last is the highest number Records has read. 0: none yet.
func (r *Reader) Last() uint64 { return r.last }

// Close gives the open file back.
func (r *Reader) Close() error {
	r.walk.leave()
	r.next = math.MaxUint64
	return nil
}
