package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ReviveEvery is how often a new segment is tried while the log is down.
const ReviveEvery = 5 * time.Second

const (
	segmentBytesDefault = 64 << 20
	segmentBytesMin     = 16 << 10
	segmentBytesMax     = 4 << 30
)

// Options say where and how a journal is kept.
type Options struct {
	Dir   string // made if it is not there
	Spare string // tried when Dir fails, better on another disk; "": none
	// SegmentBytes is the size of a segment, 16 KiB to 4 GiB; 0: 64 MiB. One
	// Append must fit into one segment.
	SegmentBytes int64
	Host         string // written into each segment; "": the host's name
	// Max bounds the bytes of all segments in both directories; 0: no bound.
	// At least three segments: one in use, one made ahead, one to be read.
	Max int64
	// Reserve is what stays free on the file system: no new segment is begun
	// that would leave less. 0: nothing is held back.
	Reserve int64
	// After is a number known from elsewhere to be taken, such as the position
	// the store has reached: new numbers are larger, even if the journal's own
	// directory was lost.
	After uint64
	// Survey is what was read of this journal while another process wrote it;
	// nil: nothing.
	Survey *Survey
	FS     FS // nil: the real file system
}

// Log is the one writer of a journal. Append is called by one goroutine at a
// time; every other method may be called by any goroutine at any time.
type Log struct {
	opt  Options
	fs   FS
	dirs []string // Dir, then Spare; those that could be locked

	// turn is held by whoever writes: one place in a channel rather than a
	// mutex, so that waiting for it is visible to testing/synctest.
	turn chan struct{}
	// The fields from file to ends belong to the holder of turn.
	file   File         // of cur; nil: no segment in use
	off    int64        // where the next frame goes
	room   int64        // frames end here at the latest
	idSeed uint32       // of cur
	buf    []byte       // what one Append writes; kept between calls
	ends   []segmentEnd // for the next link; empty once a link on disk says them

	making   chan struct{} // held while a segment is made or removed
	hurry    atomic.Bool   // somebody waits for making
	wantNext chan struct{} // asks keep for the next segment
	wantLife chan struct{} // asks keep for a segment instead of a broken one
	stop     chan struct{}
	stopped  chan struct{}
	locks    []io.Closer

	closing  sync.Once
	closeErr error

	mu       sync.Mutex // guards what follows; never held during a file call
	state    State
	why      error // why state is Down or Full
	since    time.Time
	amber    []string
	next     uint64
	failed   uint64     // first number of an Append that failed; 0: none, or its end is on disk
	number   uint64     // of the segment made last
	cur      *segment   // in use; nil: none
	sealed   []*segment // read only from now on, oldest first
	ready    *made      // made ahead
	anchored bool       // cur's link is on disk: next survives whatever else is removed
	damages  []Damage
	stats    Stats
}

// made is a segment that holds no record yet.
type made struct {
	seg   *segment
	file  File
	off   int64 // where the next frame goes
	whole bool  // its space is set aside
}

// Open takes the lock, reads the whole journal, cuts a torn tail, sets damage
// aside, and begins a new segment. It reads about a gibibyte a second.
//
// It starts even if records were lost; Damage says which. Its error is
// *LockedError, *VersionError, or says what is wrong with the directories; then
// nothing was changed. A full disk is no error: the log opens and Append
// returns ErrFull.
func Open(opt Options) (*Log, error) {
	if err := opt.complete(); err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	l := newLog(opt)
	if err := l.open(); err != nil {
		l.unlock()
		return nil, fmt.Errorf("opening journal %s: %w", opt.Dir, err)
	}
	go l.keep()
	return l, nil
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return errors.New("no directory given")
	}
	if o.Spare == o.Dir {
		return fmt.Errorf("the spare directory %s is the journal's own", o.Spare)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytesDefault
	}
	if o.SegmentBytes < segmentBytesMin || o.SegmentBytes > segmentBytesMax {
		return fmt.Errorf("segment size %d is not between %d and %d", o.SegmentBytes, segmentBytesMin, int64(segmentBytesMax))
	}
	if o.Max != 0 && o.Max < 3*o.SegmentBytes {
		return fmt.Errorf("max %d does not hold three segments of %d bytes", o.Max, o.SegmentBytes)
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname()
	}
	if o.FS == nil {
		o.FS = defaultFS()
	}
	return nil
}

func newLog(opt Options) *Log {
	l := &Log{
		opt:      opt,
		fs:       opt.FS,
		turn:     make(chan struct{}, 1),
		making:   make(chan struct{}, 1),
		wantNext: make(chan struct{}, 1),
		wantLife: make(chan struct{}, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	l.since = time.Now()
	return l
}

// Next is the number the next record will get, if the log is not down. Every
// record below it that was acknowledged is on disk; whoever reads in this
// process stops here, because what lies behind may be under way, or belong to
// an Append that failed and whose segment is not told to end before it yet.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != 0 {
		return l.failed
	}
	return l.next
}

// Damage lists what was found when the log was opened and what has happened
// since, oldest first.
func (l *Log) Damage() []Damage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.damages)
}

// Close writes an end mark, so that the next Open knows that nothing is
// missing, gives unused space back, and releases the lock. What was
// acknowledged is on disk already; an error says only that the mark is not.
func (l *Log) Close() error {
	l.closing.Do(func() {
		close(l.stop)
		<-l.stopped
		l.turn <- struct{}{}
		defer func() { <-l.turn }()
		l.closeErr = l.shut()
		l.unlock()
	})
	return l.closeErr
}

func (l *Log) shut() error {
	l.mu.Lock()
	l.state, l.since, l.why = Closed, time.Now(), ErrClosed
	cur, next, ready := l.cur, l.next, l.ready
	l.ready = nil
	l.mu.Unlock()
	if ready != nil {
		l.discard(ready)
	}
	if l.file == nil {
		return nil
	}
	defer l.file.Close()
	b := appendFrame(l.buf[:0], cur.id, l.idSeed, kindEnd, next, 0, nil)
	_, err := l.file.WriteAt(b, l.off)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("closing segment %s: %w", cur.path, err)
	}
	if err := l.file.Truncate(l.off + frameBytes); err != nil {
		return fmt.Errorf("giving back the unused space of segment %s: %w", cur.path, err)
	}
	return nil
}

func (l *Log) unlock() {
	for _, c := range l.locks {
		c.Close()
	}
	l.locks = nil
}
