package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sync/atomic"
	"syscall"
)

// Link is one end of the talk between the old process and the new: each may
// call the other. Its methods may be called by many at once.
type Link struct {
	calls   *rpc.Client // to the other
	answers net.Conn    // from the other
	gone    chan struct{}
	closed  atomic.Bool
}

// ErrGone says that the other process has ended, or does not talk any more.
var ErrGone = errors.New("the other process is gone")

// newLink makes a link of two connected sockets; service's exported methods
// answer the other's calls (see net/rpc), under the name it is served by.
func newLink(calls, answers net.Conn, name string, service any) (*Link, error) {
	l := &Link{answers: answers, gone: make(chan struct{})}
	server := rpc.NewServer()
	if err := server.RegisterName(name, service); err != nil {
		return nil, fmt.Errorf("talking to the other process: %w", err)
	}
	l.calls = rpc.NewClient(calls)
	go func() {
		server.ServeConn(answers) // until it is closed, here or there
		close(l.gone)
		_ = l.calls.Close() // who waits for an answer waits in vain
	}()
	return l, nil
}

// Call has the other process do something and waits for what it says, no longer
// than ctx. The other's own error comes as its text.
func (l *Link) Call(ctx context.Context, method string, args, reply any) error {
	call := l.calls.Go(method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return fmt.Errorf("asking the other process (%s): %w", method, context.Cause(ctx))
	}
	if call.Error == nil {
		return nil
	}
	if _, said := errors.AsType[rpc.ServerError](call.Error); said {
		return call.Error
	}
	return fmt.Errorf("asking the other process (%s): %w: %w", method, ErrGone, call.Error)
}

// Gone is closed when the other process has ended, or Close was called.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// Close ends the talk.
func (l *Link) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	err := l.answers.Close()
	if shut := l.calls.Close(); !errors.Is(shut, rpc.ErrShutdown) {
		err = errors.Join(err, shut)
	}
	return err
}

// pair is two connected sockets of Unix, of that kind.
func pair(kind int) (ours net.Conn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "handover")
	if ours, err = connOf(os.NewFile(uintptr(fds[0]), "handover")); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// connOf is a file as the connection that it is.
func connOf(f *os.File) (net.Conn, error) {
	c, err := net.FileConn(f)
	return c, errors.Join(err, f.Close())
}
