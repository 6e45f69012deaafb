package attendance

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrBusy says that the open batch, or the room for those who wait, is
	// full. Nothing was recorded.
	ErrBusy = errors.New("check-ins arrive faster than the disk takes them")

	// ErrDown says that the journal does not take records. Nothing was
	// promised.
	ErrDown = errors.New("the journal takes no check-ins")

	// ErrStopped says that the recorder has ended. Nothing was promised.
	ErrStopped = errors.New("the recorder has stopped")
)

// Refused says that no receipt could be given and when to try again. It wraps
// ErrBusy, ErrDown or ErrStopped, and with ErrDown what the journal said.
type Refused struct {
	// RetryAfter is when to come back; it differs from press to press, so that
	// those refused together do not return together.
	RetryAfter time.Duration

	// FirstSeen is a token: handed back in Press.FirstSeen within 15 minutes,
	// the retry counts from the refused press.
	FirstSeen string

	Err error
}

func (e *Refused) Error() string {
	return fmt.Sprintf("taking a check-in: %v (try again in %v)", e.Err, e.RetryAfter)
}

func (e *Refused) Unwrap() error { return e.Err }

// FieldError says which field of a press cannot be taken, and why. Nothing was
// recorded. Its text never repeats the field's value.
type FieldError struct {
	Field  string // student, class, date, period, attempt, host
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }
