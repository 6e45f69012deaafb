package sink

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"firstbell/attendance"
)

// The two files of a sink's directory.
//
// position is one line of JSON, replaced as a whole: {"next":N,"until":M}. All
// records before next are delivered or parked. until is 0, or ends the bulk
// that was being sent.
//
// parked.jsonl has one line of JSON per parked record and only grows. A line
// that a crash cut short is followed by the whole one; a record may stand there
// twice.
const (
	positionFile = "position"
	parkedFile   = "parked.jsonl"
)

type positionJSON struct {
	Next  uint64 `json:"next"`
	Until uint64 `json:"until"`
}

func readPosition(dir string) (attendance.Position, error) {
	path := filepath.Join(dir, positionFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return attendance.Position{}, nil
	}
	if err != nil {
		return attendance.Position{}, err
	}
	var p positionJSON
	if err := json.Unmarshal(data, &p); err != nil || (p.Until != 0 && p.Until <= p.Next) {
		return attendance.Position{}, fmt.Errorf("%s is damaged; remove it and everything in the journal is delivered again, which keys make harmless", path)
	}
	return attendance.Position(p), nil
}

func writePosition(dir string, at attendance.Position) error {
	data, err := json.Marshal(positionJSON(at))
	if err != nil {
		return err
	}
	return attendance.WriteFileSynced(filepath.Join(dir, positionFile), append(data, '\n'), 0o600)
}

// Parked is a record that the sink would not take.
type Parked struct {
	Time     time.Time       `json:"time"`
	Position uint64          `json:"position"` // in the journal
	Key      string          `json:"key"`
	Reason   string          `json:"reason"`
	Record   json.RawMessage `json:"record"` // as it was sent
}

func newParked(row *attendance.Row, reason string) Parked {
	key := row.Key()
	return Parked{Time: time.Now().UTC(), Position: row.Seq, Key: key, Reason: reason, Record: row.AppendRecordJSON(nil, key)}
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

// park appends records; on return they are on disk.
func park(f *os.File, records []Parked) error {
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
	if _, err := f.Write(lines); err != nil {
		return err
	}
	return f.Sync()
}

// parkedLineMax bounds a line: five fields of 256 bytes, escaped, twice.
const parkedLineMax = 64 << 10

// ReadParked yields what was parked in a sink's directory, oldest first, each
// record of the journal once. It may be called beside a running sink. A
// directory without parked records yields nothing.
func ReadParked(dir string) iter.Seq2[Parked, error] {
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
		seen := make(map[uint64]bool)
		lines := bufio.NewReaderSize(f, parkedLineMax)
		for {
			line, err := lines.ReadSlice('\n')
			if err == io.EOF {
				return // a last line without its end was never acknowledged
			}
			if err != nil {
				yield(Parked{}, fmt.Errorf("reading %s: %w", f.Name(), err))
				return
			}
			var p Parked
			if json.Unmarshal(line, &p) != nil || seen[p.Position] {
				continue
			}
			seen[p.Position] = true
			if !yield(p, nil) {
				return
			}
		}
	}
}
