package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// lives is firstbell's process through its lives: started, killed, started
// again. What it counts in memory dies with each of them, so it is asked often
// and the last answers are added up.
type lives struct {
	program string
	st      *stage
	client  *http.Client

	mu      sync.Mutex // guards what follows
	current *life
	past    []lifeCounts
	kills   []outage
}

// outage is a kill and what came after it.
type outage struct {
	Killed, Ready time.Time
}

// life is one process.
type life struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of Wait; read it after done

	stopPolling context.CancelFunc
	polled      sync.WaitGroup

	mu        sync.Mutex // guards what follows
	counts    lifeCounts
	delivered bool // everything in the journal is in the store and at the origin
}

// lifeCounts are what one process said about itself.
type lifeCounts struct {
	Statements   int64 // against the store
	SinkRequests int64
	CPU          time.Duration // known once it has ended
}

func newLives(program string, st *stage) *lives {
	return &lives{program: program, st: st, client: &http.Client{Timeout: 5 * time.Second}}
}

// start begins a life and returns when it is ready.
func (l *lives) start(ctx context.Context) error {
	log, err := os.OpenFile(l.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("starting firstbell: %w", err)
	}
	defer log.Close()
	b := &life{done: make(chan struct{})}
	b.cmd = exec.Command(l.program, "serve", "-config", l.st.config())
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = childAttributes()
	started := make(chan error)
	go func() {
		// The child is told to die with the thread that made it, so the thread has
		// to live as long as the child may.
		runtime.LockOSThread()
		err := b.cmd.Start()
		started <- err
		if err == nil {
			b.err = b.cmd.Wait()
			close(b.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting firstbell: %w", err)
	}
	l.mu.Lock()
	l.current = b
	l.mu.Unlock()
	if err := l.waitReady(ctx, b); err != nil {
		return err
	}
	pollCtx, stop := context.WithCancel(ctx)
	b.stopPolling = stop
	b.polled.Go(func() { l.poll(pollCtx, b) })
	return nil
}

func (l *lives) logFile() string { return filepath.Join(l.st.o.dir, "firstbell.log") }

// readyMax is how long firstbell may take to get ready: a roster of a million
// and a journal to repair included.
const readyMax = 2 * time.Minute

// waitReady asks until firstbell says that it is ready.
func (l *lives) waitReady(ctx context.Context, b *life) error {
	ctx, stop := context.WithTimeout(ctx, readyMax)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := l.get(ctx, "/readyz"); err == nil {
			return nil
		}
		select {
		case <-b.done:
			return fmt.Errorf("firstbell ended before it was ready (%v); the end of %s says:\n%s", b.err, l.logFile(), l.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for firstbell to be ready: %w; the end of %s says:\n%s", ctx.Err(), l.logFile(), l.lastWords())
		case <-tick.C:
		}
	}
}

// lastWords is the end of the log.
func (l *lives) lastWords() string {
	text, err := os.ReadFile(l.logFile())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return "  " + string(bytes.Join(lines[max(0, len(lines)-6):], []byte("\n  ")))
}

// get asks the ops listener; an error unless the answer is 200.
func (l *lives) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.st.opsAddr+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return body, err
}

// ask reads the counts of the life that is on.
func (l *lives) ask(ctx context.Context, b *life) error {
	body, err := l.get(ctx, "/status")
	if err != nil {
		return err
	}
	var s statusReport
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("reading firstbell's /status: %w", err)
	}
	if s.Attendance == nil {
		return errors.New("reading firstbell's /status: it says nothing of attendance")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Statements = int64(s.Attendance.Store.Statements)
	b.counts.SinkRequests = 0
	b.delivered = s.Attendance.Store.Delivery.Next >= s.Attendance.Journal.Next
	for _, sink := range s.Attendance.Sinks {
		b.counts.SinkRequests += int64(sink.Requests)
		b.delivered = b.delivered && sink.Delivery.Next >= s.Attendance.Journal.Next
	}
	return nil
}

// poll asks four times a second. An answer that does not come is no harm: the
// next one will, or the process is dead.
func (l *lives) poll(ctx context.Context, b *life) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = l.ask(ctx, b)
		select {
		case <-ctx.Done():
			return
		case <-b.done:
			return
		case <-tick.C:
		}
	}
}

// delivered asks whether everything in the journal is where it belongs.
func (l *lives) delivered(ctx context.Context) bool {
	l.mu.Lock()
	b := l.current
	l.mu.Unlock()
	if b == nil || l.ask(ctx, b) != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.delivered
}

// restartPause is how long a service manager waits before it starts again what
// died (systemd's RestartSec unless said otherwise).
const restartPause = 100 * time.Millisecond

// killAt waits for the moment, kills firstbell as kill -9 does, and starts it
// again.
func (l *lives) killAt(ctx context.Context, at time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(at)):
	}
	l.mu.Lock()
	b := l.current
	l.mu.Unlock()
	_ = l.ask(ctx, b) // its counts die with it
	killed := time.Now()
	l.mu.Lock()
	l.kills = append(l.kills, outage{Killed: killed})
	l.mu.Unlock()
	if err := b.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("killing firstbell: %w", err)
	}
	l.bury(b)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(restartPause):
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	l.kills[len(l.kills)-1].Ready = time.Now()
	l.mu.Unlock()
	return nil
}

// bury waits for the end of a process and keeps its counts.
func (l *lives) bury(b *life) {
	<-b.done
	if b.stopPolling != nil {
		b.stopPolling()
		b.polled.Wait()
	}
	b.mu.Lock()
	counts := b.counts
	b.mu.Unlock()
	counts.CPU = b.cmd.ProcessState.UserTime() + b.cmd.ProcessState.SystemTime()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.past = append(l.past, counts)
	l.current = nil
}

// drainMax is how long firstbell may take to end when asked to.
const drainMax = 40 * time.Second

// stop asks firstbell to end and waits for it; one that is still there after the
// time given is killed. It is an error when it does not,
// or ends with one. Without a process there is nothing to do.
func (l *lives) stop(patience time.Duration) error {
	l.mu.Lock()
	b := l.current
	l.mu.Unlock()
	if b == nil {
		return nil
	}
	defer l.bury(b)
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping firstbell: %w", err)
	}
	select {
	case <-b.done:
	case <-time.After(patience):
		_ = b.cmd.Process.Kill()
		return fmt.Errorf("stopping firstbell: it was still there %s after SIGTERM, and was killed", patience)
	}
	if b.err != nil {
		return fmt.Errorf("firstbell ended with an error (%w); the end of %s says:\n%s", b.err, l.logFile(), l.lastWords())
	}
	return nil
}

// sum adds up the counts of all lives so far.
func (l *lives) sum() lifeCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	var total lifeCounts
	all := l.past
	if l.current != nil {
		l.current.mu.Lock()
		all = append(all[:len(all):len(all)], l.current.counts)
		l.current.mu.Unlock()
	}
	for _, c := range all {
		total.Statements += c.Statements
		total.SinkRequests += c.SinkRequests
		total.CPU += c.CPU
	}
	return total
}

// outages are the kills so far.
func (l *lives) outages() []outage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]outage(nil), l.kills...)
}

// export runs "firstbell export" into a file.
func (l *lives) export(ctx context.Context, format, file string) error {
	cmd := exec.CommandContext(ctx, l.program, "export", "-config", l.st.config(),
		"-date", l.st.morning.Date, "-format", format, "-o", file)
	cmd.SysProcAttr = childAttributes()
	// Ctrl-C lets it clear away its half of a file.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("exporting the register as %s: %w: %s", format, err, bytes.TrimSpace(out))
	}
	return nil
}
