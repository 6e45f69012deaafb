package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"firstbell/attendance"
)

// PlaceFile is the name of a file in the journal's directory. It gives the
// journal a name of its own, by which a store that several journals are
// delivered into keeps their positions apart, and remembers the position that
// the store was last known to have. It is one line: "firstbell-store-1", 32
// hexadecimal digits, the position. Without the file the journal gets a new
// name, and all of it is delivered again; keys make that harmless.
const PlaceFile = "store-place"

const placeMagic = "firstbell-store-1"

// noteEvery is how often the position is written down at most. What is on disk
// may lie behind: nothing but an age and a lower bound go by it.
const noteEvery = time.Second

// place is the file's content. Its methods but note may be called at any time.
type place struct {
	path    string
	journal string // the journal's name; "": it has none yet
	known   atomic.Uint64

	noted time.Time // used only by note
}

// openPlace reads the file, or makes it.
func openPlace(dir string) (*place, error) {
	p, err := readPlace(dir)
	if err != nil || p.journal != "" {
		return p, err
	}
	var name [16]byte
	rand.Read(name[:]) // never fails, by its own promise
	p.journal = hex.EncodeToString(name[:])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("naming the journal: %w", err)
	}
	if err := p.write(); err != nil {
		return nil, fmt.Errorf("naming the journal: %w", err)
	}
	return p, nil
}

// readPlace reads the file; where there is none the journal has no name.
func readPlace(dir string) (*place, error) {
	if dir == "" {
		return nil, errors.New("opening a store: name the directory of the journal")
	}
	p := &place{path: filepath.Join(dir, PlaceFile)}
	data, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal's name: %w", err)
	}
	fields := bytes.Fields(data)
	if len(data) > 256 || len(fields) != 3 || string(fields[0]) != placeMagic || len(fields[1]) != 32 {
		return nil, fmt.Errorf("reading the journal's name: %s is damaged; remove it, and all that the journal holds is delivered again", p.path)
	}
	next, err := strconv.ParseUint(string(fields[2]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reading the journal's name: %s is damaged; remove it, and all that the journal holds is delivered again", p.path)
	}
	p.journal = string(fields[1])
	p.known.Store(next)
	return p, nil
}

// KnownPosition is the position that the store of the journal in dir was last
// known to have, without asking it; 0 where nobody knows.
func KnownPosition(dir string) (uint64, error) {
	p, err := readPlace(dir)
	if err != nil {
		return 0, err
	}
	return p.known.Load(), nil
}

// note remembers the position. It is a hint, so an error is none.
func (p *place) note(next uint64) {
	p.known.Store(next)
	if now := time.Now(); now.Sub(p.noted) >= noteEvery {
		p.noted = now
		_ = p.write()
	}
}

func (p *place) write() error {
	return attendance.WriteFileSynced(p.path, fmt.Appendf(nil, "%s %s %d\n", placeMagic, p.journal, p.known.Load()), 0o644)
}

// close writes down what note has not.
func (p *place) close() {
	if p.journal != "" && !p.noted.IsZero() {
		_ = p.write()
	}
}

// holder names this process to those who look into the store.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	return fmt.Sprintf("%s, process %d", host, os.Getpid())
}
