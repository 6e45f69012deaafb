package sink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"firstbell/attendance"
)

// Config is what every sink is made of. Zero bounds take their defaults.
type Config struct {
	Name     string   // in Idempotency-Key and in errors; required
	Dir      string   // where position and parked records are kept; made when it is not there
	Endpoint Endpoint // where to, and with which credential
	ParkMax  float64  // share of records that may be parked, 0.01; 1 parks whatever is refused
}

const (
	defaultParkMax = 0.01

	// parkedMin is how many records must be parked before their share counts:
	// one bad record in a small bulk is no reason to stop.
	parkedMin = 20

	// windowRecords is over how many records the share is taken, at most twice
	// as many.
	windowRecords = 10_000
)

// Sink is an attendance.Target with files of its own. Position and Deliver are
// called by one goroutine; its other methods by any number.
type Sink struct {
	name    string
	dir     string
	parkMax float64
	carrier carrier

	// turn is held by whoever sends: one place in a channel rather than a mutex,
	// so that who waits for it can give up.
	turn chan struct{}
	// The following belong to the holder of turn.
	at      attendance.Position
	parked  *os.File
	begun   *passage // the bulk that did not go through last time, with what did
	records int      // of the window
	refused int      // of them, parked

	lot map[parkedID]bool // parked, and nobody has dealt with them

	open atomic.Int64 // how many are in lot
}

// carrier is how records are sent.
type carrier interface {
	// carry sends records, all of them one bulk or a part of it, and notes in p
	// what became of each. After an error some may be settled; those are passed
	// over when the same passage comes again.
	carry(ctx context.Context, s *Sink, p *passage, records []record) error
	setHeader(http.Header)
	close()
}

// A record is one of a bulk's events as it is sent: a check-in folded to its
// row, or what was collected.
type record struct {
	attendance.Row                   // of a check-in; of what was collected: ID, School, Date, FirstArrival and Seq
	event          *attendance.Event // what was collected, or nil
	key            string            // on the wire
}

// appendJSON appends the record in the names of the wire.
func (r *record) appendJSON(dst []byte) []byte {
	if r.event != nil {
		return r.event.AppendCollectedJSON(dst)
	}
	return r.AppendRecordJSON(dst, r.key)
}

// asEvent is what makes the record again.
func (r *record) asEvent() attendance.Event {
	if r.event != nil {
		return *r.event
	}
	return r.Row.Event()
}

// recordsOf are a bulk's records in the order of the journal, one per key of a
// check-in.
func recordsOf(b *attendance.Bulk) []record {
	rows, _ := b.Fold()
	records := make([]record, 0, len(rows))
	for i := range rows {
		records = append(records, record{Row: rows[i], key: rows[i].Key()})
	}
	for i := range b.Events {
		if e := &b.Events[i]; e.Kind == attendance.KindCollected {
			records = append(records, recordOf(e))
		}
	}
	return records
}

func recordOf(e *attendance.Event) record {
	if row, ok := attendance.RowOf(e); ok {
		return record{Row: row, key: row.Key()}
	}
	return record{Row: attendance.Row{Receipt: e.Receipt, Seq: e.Seq}, event: e, key: e.WireKey()}
}

// passage is one bulk on its way, or parked records that are tried again.
type passage struct {
	first, next uint64             // 0: no bulk
	again       bool               // somebody asked for it: whatever is refused stays parked
	size        int                // records in all
	settled     map[[2]uint64]bool // by first and last position: parts that went through
	single      map[uint64]string  // by position: of a paced replay, what became of each
	done        attendance.Delivered
	parked      []Parked // not on disk yet
	parkedNow   int      // on disk already
}

func newPassage(first, next uint64) *passage {
	return &passage{first: first, next: next, settled: make(map[[2]uint64]bool)}
}

// open makes a sink of its files and its way of sending. Nothing is sent yet.
func open(c *Config, how carrier) (*Sink, error) {
	s := &Sink{name: c.Name, dir: c.Dir, parkMax: c.ParkMax, carrier: how, turn: make(chan struct{}, 1)}
	if s.parkMax <= 0 {
		s.parkMax = defaultParkMax
	}
	if err := s.openFiles(); err != nil {
		how.close()
		return nil, fmt.Errorf("opening sink %s: %w", s.name, err)
	}
	return s, nil
}

func (s *Sink) openFiles() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := attendance.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	var err error
	if s.at, err = readPosition(s.dir); err != nil {
		return err
	}
	if s.parked, err = openParked(s.dir); err != nil {
		return err
	}
	open, err := readParked(s.dir)
	if err != nil {
		return errors.Join(err, s.parked.Close())
	}
	s.lot = make(map[parkedID]bool)
	for i := range open {
		s.lot[open[i].id()] = true
	}
	s.open.Store(int64(len(s.lot)))
	return nil
}

// Close lets go of files and connections.
func (s *Sink) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.carrier.close()
	if err := s.parked.Close(); err != nil {
		return fmt.Errorf("closing sink %s: %w", s.name, err)
	}
	return nil
}

// SetHeader puts other fields in the place of Endpoint.Header, at once: a
// credential that was renewed.
func (s *Sink) SetHeader(h http.Header) { s.carrier.setHeader(h) }

// ParkedNow is how many parked records nobody has dealt with.
func (s *Sink) ParkedNow() int { return int(s.open.Load()) }

// Position implements attendance.Target.
func (s *Sink) Position(context.Context) (attendance.Position, error) { return s.at, nil }

// Deliver implements attendance.Target. A bulk without records moves the
// position and sends nothing.
func (s *Sink) Deliver(ctx context.Context, b *attendance.Bulk) (attendance.Delivered, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return attendance.Delivered{}, ctx.Err()
	}
	records := recordsOf(b)
	if s.begun == nil || s.begun.first != b.First || s.begun.next != b.Next {
		s.begun = newPassage(b.First, b.Next)
	}
	p := s.begun
	p.size = len(records)
	if len(records) > 0 {
		if err := s.move(attendance.Position{Next: b.First, Until: b.Next}); err != nil {
			return attendance.Delivered{}, err
		}
	}
	writes := p.done.Writes
	if err := s.carrier.carry(ctx, s, p, records); err != nil {
		var how *attendance.DeliverError
		if errors.As(err, &how) && how.Stop {
			s.begun = nil // whatever somebody changes, the whole bulk is asked again
		}
		return attendance.Delivered{Writes: p.done.Writes - writes}, err
	}
	if err := s.parkAll(p); err != nil {
		return attendance.Delivered{}, err
	}
	if err := s.move(attendance.Position{Next: b.Next}); err != nil {
		return attendance.Delivered{}, err
	}
	done := p.done
	done.Writes -= writes // those before were told with their error
	done.Parked = p.parkedNow
	s.count(len(records), done.Parked)
	s.begun = nil
	return done, nil
}

// move writes the position down, unless it stands there already.
func (s *Sink) move(at attendance.Position) error {
	if s.at == at {
		return nil
	}
	if err := writePosition(s.dir, at); err != nil {
		return fmt.Errorf("writing the position down: %w", err)
	}
	s.at = at
	return nil
}

// count moves the window on.
func (s *Sink) count(records, refused int) {
	s.records += records
	s.refused += refused
	if s.records > 2*windowRecords {
		s.records, s.refused = s.records/2, s.refused/2
	}
}

// tooMany is the error that stops the sink when one more record of p, refused
// for a reason, would be more than may be parked; nil while it may.
func (s *Sink) tooMany(p *passage, more int, key, reason string) error {
	refused := s.refused + len(p.parked) + p.parkedNow + more
	if p.again || refused < parkedMin || float64(refused) <= s.parkMax*float64(s.records+p.size) {
		return nil
	}
	return stop("%d of %d records were refused, more than %.3g %%; the last, %s: %s", refused, s.records+p.size, 100*s.parkMax, key, reason)
}

// idempotencyKey is the same for the same records to the same sink, also after
// a restart: 32 hexadecimal digits of SHA-256 over the sink's name and the first
// and last record, by position and receipt (positions alone would begin anew
// with a new journal).
func (s *Sink) idempotencyKey(first, last *record) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s %d %s %d %s", len(s.name), s.name, first.Seq, first.ID, last.Seq, last.ID))
	return hex.EncodeToString(sum[:16])
}
