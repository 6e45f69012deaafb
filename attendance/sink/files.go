package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"firstbell/attendance"
)

// The files of a sink's directory; a paced replay has a third, see progress.go.
//
// position is one line of JSON, replaced as a whole: {"next":N,"until":M}. All
// records before next are delivered or parked. until is 0, or ends the bulk
// that was being sent.
//
// parked.jsonl is drawn in parked.go.
const (
	positionFile = "position"
	parkedFile   = "parked.jsonl"
)

type positionJSON struct {
	Next  uint64 `json:"next"`
	Until uint64 `json:"until"`
}

// ReadPosition returns how far the sink whose directory this is has come. It may
// be called beside a running sink.
func ReadPosition(dir string) (attendance.Position, error) { return readPosition(dir) }

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
