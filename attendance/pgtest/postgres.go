package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"firstbell/bench/ports"
)

// Password is that of the role school, who owns the databases, over TCP. Over
// the unix socket nobody is asked for one.
const Password = "seven-bells"

// Postgres is a server. Its methods may not run at once.
type Postgres struct {
	Port int
	Dir  string // of its socket

	bin      string // directory of its programs
	settings []string
	as       *syscall.Credential // nil: the user of this process
	process  *os.Process         // nil: it is down
	ended    chan struct{}       // closed when process has ended
	log      *bytes.Buffer       // guarded by logging
	logging  sync.Mutex
	bases    int
	mounted  []string
}

// Start starts a server that lives until the test ends; settings are such as
// "max_connections=10".
func Start(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	p := &Postgres{bin: programs(t), settings: settings, log: new(bytes.Buffer)}
	// Its path must be short enough for a socket, and its parents open to
	// another user: those of t.TempDir are neither.
	dir, err := os.MkdirTemp("", "fbpg")
	if err != nil {
		t.Fatal(err)
	}
	p.Dir = dir
	t.Cleanup(func() {
		p.Kill(t)
		for _, m := range p.mounted {
			_ = syscall.Unmount(m, syscall.MNT_DETACH)
		}
		os.RemoveAll(dir)
	})
	if os.Geteuid() == 0 {
		p.as = unprivileged(t)
		if err := os.Chown(dir, int(p.as.Uid), int(p.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	p.program(t, "initdb", "-D", filepath.Join(dir, "data"), "-U", "operator", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8")
	p.Port = freePort(t)
	p.Start(t)
	p.SQL(t, "postgres", "CREATE ROLE school LOGIN PASSWORD '"+Password+"'")
	return p
}

// programs finds PostgreSQL: where Debian keeps it, or on the path.
func programs(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
	}
	path, err := exec.LookPath("postgres")
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		return filepath.Dir(path)
	}
	if os.Getenv("FIRSTBELL_REQUIRE_SERVICES") == "1" {
		t.Fatal("PostgreSQL is required and not installed: no postgres in /usr/lib/postgresql/*/bin nor on the path")
	}
	t.Skip("PostgreSQL is not installed: left out is the store in a real database")
	return ""
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("PostgreSQL refuses to be root, and there is neither a user postgres nor nobody")
	return nil
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.Dir
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C", "PGOPTIONS=-c default_transaction_read_only=off"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as, Setpgid: true}
	return cmd
}

func (p *Postgres) program(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Write implements io.Writer for the server's log.
func (p *Postgres) Write(b []byte) (int, error) {
	p.logging.Lock()
	defer p.logging.Unlock()
	return p.log.Write(b)
}

// Start starts the server again, with further settings, and returns when it
// answers.
func (p *Postgres) Start(t testing.TB, settings ...string) {
	t.Helper()
	args := []string{"-D", filepath.Join(p.Dir, "data"), "-p", strconv.Itoa(p.Port), "-k", p.Dir}
	all := []string{"listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=32MB", "max_connections=40"}
	for _, s := range append(append(all, p.settings...), settings...) {
		args = append(args, "-c", s)
	}
	cmd := p.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // its immediate shutdown
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal comes when the thread that started it ends: it stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	p.process, p.ended = cmd.Process, ended
	p.await(t)
}

// await returns when the server takes connections.
func (p *Postgres) await(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := p.command("psql", "-h", p.Dir, "-p", strconv.Itoa(p.Port), "-U", "operator", "-d", "postgres", "-Atqc", "SELECT 1").Run()
		if err == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("PostgreSQL ended:\n%s", p.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL does not answer: %v\n%s", err, p.Log())
		}
	}
}

// Log returns what the server has said.
func (p *Postgres) Log() string {
	p.logging.Lock()
	defer p.logging.Unlock()
	return p.log.String()
}

// Stop ends the server as its operator would, whoever is connected.
func (p *Postgres) Stop(t testing.TB) { p.end(t, syscall.SIGINT) }

// Kill ends the server and all of its processes with SIGKILL.
func (p *Postgres) Kill(t testing.TB) {
	t.Helper()
	if p.process == nil {
		return
	}
	// Its children would see it and end, but not before the next start looks.
	children := p.children()
	p.end(t, syscall.SIGKILL)
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range children {
		for syscall.Kill(pid, 0) == nil && !dead(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// children are the processes that the server has started.
func (p *Postgres) children() (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.process.Pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// dead reports whether nothing is left of a process but its entry.
func dead(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, found := strings.Cut(string(text), ") ")
	return err != nil || found && strings.HasPrefix(after, "Z")
}

// CPU is how long the server and its children have worked, those that have
// ended included. A tick is too coarse for what one of 64 clients asks for, so
// the scheduler is asked about those that live, where it keeps statistics.
func (p *Postgres) CPU(t testing.TB) time.Duration {
	t.Helper()
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs on Linux
	var sum time.Duration
	for _, pid := range append(p.children(), p.process.Pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ")
		exact := int64(-1)
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)); err == nil {
			if on, _, found := strings.Cut(string(stat), " "); found {
				exact, _ = strconv.ParseInt(on, 10, 64)
			}
		}
		fields := strings.Fields(after) // from the third on: 11 to 14 are utime, stime, cutime, cstime
		ticks := fields[11:13]
		if exact > 0 {
			sum += time.Duration(exact)
			ticks = nil
		}
		if pid == p.process.Pid {
			ticks = append(ticks[:len(ticks):len(ticks)], fields[13:15]...)
		}
		for _, f := range ticks {
			n, _ := strconv.Atoi(f)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

func (p *Postgres) end(t testing.TB, with syscall.Signal) {
	t.Helper()
	if p.process == nil {
		return
	}
	if err := p.process.Signal(with); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("ending PostgreSQL: %v", err)
	}
	<-p.ended
	p.process = nil
}

// SmallDisk mounts a file system of one megabyte for the server, until the test
// ends; ok is false where that is not permitted.
func (p *Postgres) SmallDisk(t testing.TB) (dir string, ok bool) {
	t.Helper()
	dir = filepath.Join(p.Dir, "small")
	if os.Mkdir(dir, 0o755) != nil || syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m") != nil {
		return "", false
	}
	p.mounted = append(p.mounted, dir)
	if p.as != nil && os.Chown(dir, int(p.as.Uid), int(p.as.Gid)) != nil {
		return "", false
	}
	return dir, true
}

// Freeze lets the server answer nothing any more, as when its machine hangs,
// until the returned function is called.
func (p *Postgres) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	all := append([]int{p.process.Pid}, p.children()...) // the first of them makes no more
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	return func() {
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// Database makes a database and returns its location over TCP, with no
// password in it.
func (p *Postgres) Database(t testing.TB) string {
	t.Helper()
	p.bases++
	name := fmt.Sprintf("attendance%d", p.bases)
	p.SQL(t, "postgres", "CREATE DATABASE "+name+" OWNER school")
	return fmt.Sprintf("postgres://school@127.0.0.1:%d/%s?sslmode=disable", p.Port, name)
}

// SQL runs statements as somebody at the database would, by psql, and returns
// what it says, fields apart by |. The database is a name or a location.
func (p *Postgres) SQL(t testing.TB, database, statements string) string {
	t.Helper()
	if i := strings.LastIndex(database, "/"); i >= 0 {
		database, _, _ = strings.Cut(database[i+1:], "?")
	}
	return strings.TrimSpace(p.program(t, "psql", "-h", p.Dir, "-p", strconv.Itoa(p.Port), "-U", "operator", "-d", database,
		"-v", "ON_ERROR_STOP=1", "-Atqc", statements))
}
