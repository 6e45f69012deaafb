package origin

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// What can go wrong, to be told apart with errors.Is.
var (
	// ErrConnect: no connection could be opened. Nothing was sent.
	ErrConnect = errors.New("no connection")
	// ErrTimeout: a phase took longer than allowed. With ErrConnect: opening the
	// connection did.
	ErrTimeout = errors.New("time limit passed")
	// ErrCut: the connection ended before the response's head was complete.
	ErrCut = errors.New("connection ended before the response")
	// ErrMalformed: the response breaks HTTP; the error is a *MalformedError too.
	ErrMalformed = errors.New("malformed response")
	// ErrBusy: every server has as many requests as Config.ConnsMax allows.
	// Nothing was sent.
	ErrBusy = errors.New("every server has all the connections it may have")
	// ErrRequest: the request cannot be sent as it is, nothing was sent.
	ErrRequest = errors.New("invalid request")
	// ErrRequestBody: reading the request's content failed or ended early; the
	// connection to the server was closed on it.
	ErrRequestBody = errors.New("reading the request's content")
	// ErrClosed: the pool has been closed, or the body has.
	ErrClosed = errors.New("closed")
)

// Error is what every failure of Do, and of a Body but io.ErrUnexpectedEOF,
// looks like.
type Error struct {
	Doing  string // the phase, such as "connecting"
	Server string // host:port, or the origin's name when no server was chosen yet
	Kind   error  // one of the errors above, or the context's error
	Err    error  // the cause, nil if Kind says it all
	// MayHaveReached says that the server may have acted on the request. While
	// it is false, sending the request elsewhere is safe whatever its method.
	MayHaveReached bool
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s %s: %v", e.Doing, e.Server, e.Kind)
	}
	return fmt.Sprintf("%s %s: %v: %v", e.Doing, e.Server, e.Kind, e.Err)
}

// Unwrap lets errors.Is and errors.As see kind and cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// MalformedError says where a response breaks HTTP.
type MalformedError struct {
	Reason string
}

func (e *MalformedError) Error() string { return e.Reason }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

// kindOf sorts the cause of a failure on an open connection.
func kindOf(ctx context.Context, err error) error {
	var m *MalformedError
	var t interface{ Timeout() bool }
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &m):
		return ErrMalformed
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &t) && t.Timeout():
		return ErrTimeout
	}
	return ErrCut
}
