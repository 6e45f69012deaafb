package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// inheritance is the environment variable in which the old process tells the
// new one what it inherits.
const inheritance = "FIRSTBELL_HANDOVER"

// will is what the variable holds.
type will struct {
	PID        int      `json:"pid"` // of the old process
	Generation int      `json:"generation"`
	Sockets    []socket `json:"sockets"` // in the order of their descriptors, behind the two of the link
	Relay      bool     `json:"relay"`   // one more descriptor behind those: Relay
}

// The services by which the two processes call each other.
const (
	OldService = "Old" // what the old process answers
	NewService = "New"
)

// Program is how this process was started, to be started so again: by the name
// under which it was called, so that a binary replaced on disk, or a link that
// leads elsewhere by now, is what starts.
type Program struct {
	Path string // absolute
	Dir  string // the working directory
	Args []string
}

// ThisProgram is the program of this process with args. It is asked for early:
// the name that the process was called by may be relative to a directory or to
// a PATH that changes.
func ThisProgram(args []string) (Program, error) {
	p := Program{Args: args}
	var err error
	if p.Dir, err = os.Getwd(); err != nil {
		return p, fmt.Errorf("finding the working directory: %w", err)
	}
	p.Path = os.Args[0]
	if !strings.Contains(p.Path, "/") {
		if p.Path, err = exec.LookPath(p.Path); err != nil {
			p.Path, err = os.Executable()
		}
	}
	if err == nil {
		p.Path, err = filepath.Abs(p.Path)
	}
	if err != nil {
		return p, fmt.Errorf("finding the program: %w", err)
	}
	return p, nil
}

// Successor is a new process, seen from the old one.
type Successor struct {
	*Link
	PID   int
	Relay *net.UnixConn // what is written at one end is read at the other, message by message; whoever uses it closes it

	process *os.Process
	ended   chan struct{}
	state   *os.ProcessState // once ended is closed
}

// Start starts the program as the successor of this process, in generation, with
// copies of all sockets in use. service answers its calls under OldService. What
// it says goes to stderr. Either Kill is called or the process goes on by itself.
func Start(p Program, generation int, s *Sockets, stderr io.Writer, service any) (*Successor, error) {
	sockets, err := s.files()
	if err != nil {
		return nil, err
	}
	defer closeAll(sockets)
	calls, theirAnswers, err := pair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirAnswers.Close()
	answers, theirCalls, err := pair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, errors.Join(err, calls.Close())
	}
	defer theirCalls.Close()
	relay, theirRelay, err := pair(syscall.SOCK_DGRAM)
	if err != nil {
		return nil, errors.Join(err, calls.Close(), answers.Close())
	}
	defer theirRelay.Close()
	said, err := json.Marshal(will{PID: os.Getpid(), Generation: generation, Sockets: sockets, Relay: true})
	if err != nil {
		return nil, errors.Join(err, calls.Close(), answers.Close(), relay.Close())
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Args[0] = os.Args[0]
	if !strings.Contains(cmd.Args[0], "/") {
		cmd.Args[0] = p.Path // another PATH may hold now
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, os.Stdout, stderr
	cmd.Env = append(os.Environ(), inheritance+"="+string(said))
	cmd.ExtraFiles = []*os.File{theirCalls, theirAnswers}
	for _, o := range sockets {
		cmd.ExtraFiles = append(cmd.ExtraFiles, o.file)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirRelay)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", p.Path, err), calls.Close(), answers.Close(), relay.Close())
	}
	n := &Successor{PID: cmd.Process.Pid, Relay: relay.(*net.UnixConn), process: cmd.Process, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the state says it
		n.state = cmd.ProcessState
		close(n.ended)
	}()
	if n.Link, err = newLink(calls, answers, OldService, service); err != nil {
		n.Kill()
		return nil, err
	}
	return n, nil
}

// Ended is closed when the process has ended.
func (n *Successor) Ended() <-chan struct{} { return n.ended }

// How says how the process ended, after it has.
func (n *Successor) How() string { return n.state.String() }

// Kill ends the process and returns when it is gone: by then it holds no lock.
func (n *Successor) Kill() {
	_ = n.process.Kill() // it may have ended
	<-n.ended
	_ = n.Relay.Close() // nobody is at the other end
	if n.Link != nil {
		_ = n.Close() // as above
	}
}

// Predecessor is the old process, seen from the new one.
type Predecessor struct {
	*Link
	PID        int
	Generation int           // of this process
	Relay      *net.UnixConn // the other end of Successor.Relay; nil: the old process knows of none
	conns      [2]*os.File
}

// Inherit returns what this process inherited: sockets, from an old process or
// from systemd, and the old process, nil where there is none. It is called once
// and before anything else opens a file.
func Inherit() (*Sockets, *Predecessor, error) {
	text := os.Getenv(inheritance)
	if text == "" {
		sockets, err := fromSystemd()
		return &Sockets{inherited: sockets}, nil, err
	}
	if err := os.Unsetenv(inheritance); err != nil {
		return nil, nil, err
	}
	var w will
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return nil, nil, fmt.Errorf("reading %s, which only firstbell itself sets: %w", inheritance, err)
	}
	p := &Predecessor{PID: w.PID, Generation: w.Generation}
	s := &Sockets{}
	for i := range p.conns {
		fd := firstDescriptor + i
		syscall.CloseOnExec(fd)
		p.conns[i] = os.NewFile(uintptr(fd), "handover")
	}
	for i, o := range w.Sockets {
		var err error
		if o.file, o.Network, err = descriptor(firstDescriptor+len(p.conns)+i, o.Name); err != nil {
			return nil, nil, err
		}
		s.inherited = append(s.inherited, o)
	}
	if w.Relay {
		fd := firstDescriptor + len(p.conns) + len(w.Sockets)
		syscall.CloseOnExec(fd)
		c, err := connOf(os.NewFile(uintptr(fd), "relay"))
		if err != nil {
			return nil, nil, fmt.Errorf("taking over the relay: %w", err)
		}
		p.Relay = c.(*net.UnixConn)
	}
	return s, p, nil
}

// endLook is how often AwaitEnd looks: nobody tells a child that its parent has
// ended.
const endLook = time.Millisecond

// AwaitEnd waits until the old process has ended, in whatever way, and holds no
// lock any more; longer than ctx it does not.
func (p *Predecessor) AwaitEnd(ctx context.Context) error {
	tick := time.NewTicker(endLook)
	defer tick.Stop()
	for os.Getppid() == p.PID { // a process gets another parent after its own has closed its files
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("process %d does not answer and does not end: %w", p.PID, context.Cause(ctx))
		}
	}
	return nil
}

// Talk begins to talk to the old process; service answers its calls under
// NewService.
func (p *Predecessor) Talk(service any) error {
	calls, err := connOf(p.conns[0])
	if err != nil {
		return fmt.Errorf("talking to process %d: %w", p.PID, err)
	}
	answers, err := connOf(p.conns[1])
	if err != nil {
		return errors.Join(fmt.Errorf("talking to process %d: %w", p.PID, err), calls.Close())
	}
	p.Link, err = newLink(calls, answers, NewService, service)
	return err
}
