package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked: another process, or another Log in this one, writes this
	// journal. The error found is a *LockedError.
	ErrLocked = errors.New("the journal is in use")
	// ErrDown: the disk refused a write or a sync. Nothing was recorded; a new
	// segment is tried every ReviveEvery.
	ErrDown = errors.New("the journal cannot write")
	// ErrFull: recording more would leave less than Options.Reserve free, or
	// pass Options.Max, or the disk said that it is full. Nothing was recorded
	// and nothing recorded before is in danger. It ends when RemoveBefore, or
	// somebody else, makes room.
	ErrFull = errors.New("the journal's disk space is used up")
	// ErrTooLarge: a record is larger than RecordBytesMax, or the records of one
	// Append do not fit into one segment. Nothing was recorded.
	ErrTooLarge = errors.New("too large for the journal")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the journal is closed")
)

// LockedError says who holds a journal.
type LockedError struct {
	Path string // the lock file
	PID  int    // the process that holds it; 0: it does not say
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("locking %s: the journal is in use by another process", e.Path)
	}
	return fmt.Sprintf("locking %s: the journal is in use by process %d", e.Path, e.PID)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }
