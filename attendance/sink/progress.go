package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"firstbell/attendance"
)

// progress is the checkpoint of a paced replay within a bulk:
//
//	firstbell-replay-1 FIRST NEXT
//	SEQ taken|duplicate|parked
//	...
//
// The first line names the bulk by its bounds; what stands in it for another
// bulk counts for nothing. A line is written when its record is settled, so
// that kill -9 repeats no more records than are under way; it is synced within
// a second, so that a power cut repeats a second's worth. A last line without
// its end counts for nothing.
const progressFile = "progress"

const progressMagic = "firstbell-replay-1"

// progressSync is how long a line may wait to be synced.
const progressSync = time.Second

type progress struct {
	file   *os.File
	synced time.Time
}

// openProgress reads how far the bulk [first, next) had come and goes on from
// there; that of another bulk is cleared.
func openProgress(dir string, first, next uint64) (p *progress, settled map[uint64]string, err error) {
	path := filepath.Join(dir, progressFile)
	head := fmt.Sprintf("%s %d %d\n", progressMagic, first, next)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	settled = make(map[uint64]string)
	lines, ours := bytes.CutPrefix(whole, []byte(head))
	if !ours {
		if err := attendance.WriteFileSynced(path, []byte(head), 0o600); err != nil {
			return nil, nil, err
		}
		whole = []byte(head)
	}
	for line := range bytes.Lines(lines) {
		if !ours {
			break
		}
		number, result, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if seq, err := strconv.ParseUint(string(number), 10, 64); err == nil {
			settled[seq] = string(result)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	// A torn line is cut, or the next one would be part of it.
	if err = f.Truncate(int64(len(whole))); err == nil {
		_, err = f.Seek(0, 2)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &progress{file: f, synced: time.Now()}, settled, nil
}

// note writes down what became of a record.
func (p *progress) note(seq uint64, result string) error {
	if _, err := fmt.Fprintf(p.file, "%d %s\n", seq, result); err != nil {
		return err
	}
	if time.Since(p.synced) < progressSync {
		return nil
	}
	p.synced = time.Now()
	return p.file.Sync()
}

func (p *progress) close() error { return p.file.Close() }
