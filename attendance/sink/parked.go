package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"firstbell/attendance"
)

// parked.jsonl has one line of JSON per record that was parked, and one per
// record that somebody dealt with, in the order in which it happened; it only
// grows. The last line about a record counts: one with "settled" closes it. So
// the line that closes a record is also the audit line: who did it, when, what
// and why. A line that a crash cut short is followed by the whole one.

// Parked is a record that the sink would not take.
type Parked struct {
	Time     time.Time       `json:"time"`
	Position uint64          `json:"position"` // in the journal
	Key      string          `json:"key"`
	Reason   string          `json:"reason,omitempty"`
	Record   json.RawMessage `json:"record,omitempty"`  // a check-in in the names of the wire; what was collected is not shown
	Event    []byte          `json:"event,omitempty"`   // as the journal holds it: what is tried again
	Settled  string          `json:"settled,omitempty"` // delivered or dropped: the record is not parked any more
	Author   string          `json:"author,omitempty"`  // who asked for what this line is about
	Why      string          `json:"why,omitempty"`     // and why
}

// id tells parked records apart: positions begin anew with a new journal.
func (p *Parked) id() parkedID { return parkedID{p.Position, p.Key} }

type parkedID struct {
	position uint64
	key      string
}

func newParked(r *record, reason string) Parked {
	p := Parked{Time: time.Now().UTC(), Position: r.Seq, Key: r.key, Reason: reason}
	e := r.asEvent()
	p.Event, _ = attendance.AppendEvent(nil, &e) // its fields came out of the journal: they are within bounds
	if r.event == nil {
		p.Record = r.appendJSON(nil)
	}
	return p
}

// openParked opens the file at its end, on a new line.
func openParked(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, parkedFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, err = f.Write([]byte{'\n'})
		}
	}
	if err == nil {
		err = attendance.SyncDir(dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// park appends what was parked, or settled; on return it is on disk. The caller
// holds turn.
func (s *Sink) park(records []Parked) error {
	if len(records) == 0 {
		return nil
	}
	var lines []byte
	for i := range records {
		line, err := json.Marshal(&records[i])
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if _, err := s.parked.Write(lines); err != nil {
		return err
	}
	if err := s.parked.Sync(); err != nil {
		return err
	}
	for i := range records {
		if id := records[i].id(); records[i].Settled == "" {
			s.lot[id] = true
		} else {
			delete(s.lot, id)
		}
	}
	s.open.Store(int64(len(s.lot)))
	return nil
}

// parkedLineMax bounds a line: a body of 64 KiB in base64, and five fields of
// 256 bytes, escaped, twice.
const parkedLineMax = 128 << 10

// ReadParked yields what is parked in a sink's directory and not dealt with, in
// the order in which it was parked first. It may be called beside a running
// sink. A directory without parked records yields nothing.
func ReadParked(dir string) iter.Seq2[Parked, error] {
	return func(yield func(Parked, error) bool) {
		open, err := readParked(dir)
		if err != nil {
			yield(Parked{}, err)
			return
		}
		for i := range open {
			if !yield(open[i], nil) {
				return
			}
		}
	}
}

// ReadHandled yields the audit lines of a sink's directory, oldest first: what
// was tried again or dropped, by whom, when and why.
func ReadHandled(dir string) iter.Seq2[Parked, error] {
	return func(yield func(Parked, error) bool) {
		for p, err := range parkedLines(dir) {
			if (err != nil || p.Author != "") && !yield(p, err) {
				return
			}
		}
	}
}

// parkedLines yields the lines of the file.
func parkedLines(dir string) iter.Seq2[Parked, error] {
	return func(yield func(Parked, error) bool) {
		f, err := os.Open(filepath.Join(dir, parkedFile))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(Parked{}, err)
			return
		}
		defer f.Close()
		for lines := bufio.NewReaderSize(f, parkedLineMax); ; {
			line, err := lines.ReadSlice('\n')
			if err == io.EOF {
				return // a last line without its end was never acknowledged
			}
			var p Parked
			if err != nil {
				yield(p, fmt.Errorf("reading %s: %w", f.Name(), err))
				return
			}
			if json.Unmarshal(line, &p) == nil && !yield(p, nil) {
				return
			}
		}
	}
}

func readParked(dir string) ([]Parked, error) {
	var all []Parked
	at := make(map[parkedID]int) // index in all
	for p, err := range parkedLines(dir) {
		if err != nil {
			return nil, err
		}
		i, known := at[p.id()]
		switch {
		case known && p.Settled != "":
			delete(at, p.id())
			all[i].Settled = p.Settled
		case known:
			p.Time = all[i].Time
			all[i] = p
		case p.Settled == "":
			at[p.id()] = len(all)
			all = append(all, p)
		}
	}
	return slices.DeleteFunc(all, func(p Parked) bool { return p.Settled != "" }), nil
}

// Handled is what became of one parked record that somebody asked for.
type Handled struct {
	Key      string `json:"key"`
	Position uint64 `json:"position"`
	Result   string `json:"result"`           // delivered, dropped, or parked: it was refused again
	Reason   string `json:"reason,omitempty"` // why it is still parked
}

const (
	// handleMax bounds how many parked records are dealt with in one go.
	handleMax = 10_000

	// handlePart is how many of them are sent together.
	handlePart = 1000
)

// Asked says who wants parked records dealt with, and why. Both are required.
type Asked struct{ Author, Why string }

// choose returns the parked records of the keys, at most handleMax; without
// keys the oldest. Keys that are not parked here are passed over. The caller
// holds turn.
func (s *Sink) choose(keys []string) ([]Parked, error) {
	open, err := readParked(s.dir)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		wanted := make(map[string]bool, len(keys))
		for _, key := range keys {
			wanted[key] = true
		}
		open = slices.DeleteFunc(open, func(p Parked) bool { return !wanted[p.Key] })
	}
	return open[:min(len(open), handleMax)], nil
}

// take waits for its turn behind a bulk that is being sent.
func (s *Sink) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for sink %s, which is sending: %w", s.name, ctx.Err())
	}
}

// Retry sends parked records of the keys again, without keys the oldest 10,000,
// beside the delivery. Those that the receiver takes now are not parked any
// more, which is on disk when it returns; those that it refuses stay with the
// new reason. With an error comes what was dealt with before it; of the rest,
// which is parked as before, the receiver may have taken some: their keys make
// that harmless.
func (s *Sink) Retry(ctx context.Context, keys []string, by Asked) ([]Handled, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	chosen, err := s.choose(keys)
	var handled []Handled
	for part := range slices.Chunk(chosen, handlePart) {
		var some []Handled
		if some, err = s.retry(ctx, part, by); err != nil {
			break
		}
		handled = append(handled, some...)
	}
	if err != nil {
		return handled, fmt.Errorf("trying parked records of sink %s again: %w", s.name, err)
	}
	return handled, nil
}

func (s *Sink) retry(ctx context.Context, chosen []Parked, by Asked) ([]Handled, error) {
	records := make([]record, 0, len(chosen))
	for i := range chosen {
		e, err := attendance.DecodeEvent(chosen[i].Event)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read (%w); deliver it by hand and drop it here", chosen[i].Key, err)
		}
		e.Seq = chosen[i].Position
		records = append(records, recordOf(&e))
	}
	p := newPassage(0, 0)
	p.again, p.size = true, len(records)
	if err := s.carrier.carry(ctx, s, p, records); err != nil {
		return nil, err
	}
	return s.settle(chosen, p.parked, "delivered", by)
}

// Drop takes parked records of the keys off the list for good, without keys the
// oldest 10,000. They stay in the file, marked.
func (s *Sink) Drop(ctx context.Context, keys []string, by Asked) ([]Handled, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	chosen, err := s.choose(keys)
	if err != nil {
		return nil, fmt.Errorf("dropping parked records of sink %s: %w", s.name, err)
	}
	return s.settle(chosen, nil, "dropped", by)
}

// settle notes what became of the chosen: still parked, or the result.
func (s *Sink) settle(chosen, still []Parked, result string, by Asked) ([]Handled, error) {
	refused := make(map[parkedID]Parked)
	for _, p := range still {
		refused[p.id()] = p
	}
	handled, lines := []Handled{}, []Parked(nil)
	for i := range chosen {
		h := Handled{Key: chosen[i].Key, Position: chosen[i].Position, Result: result}
		line := Parked{Time: time.Now().UTC(), Position: h.Position, Key: h.Key, Settled: result}
		if again, is := refused[chosen[i].id()]; is {
			h.Result, h.Reason, line = "parked", again.Reason, again
		}
		line.Author, line.Why = by.Author, by.Why
		handled, lines = append(handled, h), append(lines, line)
	}
	if err := s.park(lines); err != nil {
		return nil, fmt.Errorf("noting what became of parked records of sink %s: %w", s.name, err)
	}
	return handled, nil
}
