//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file has servers be replaced by the program on disk while they are asked.

// keep starts a program and returns when everything that came of it has ended:
// a server that another process replaces would be nobody's child. When ctx ends,
// all of them are told to end.
func keep(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("-keep needs a program")
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("taking in orphans: %w", err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		for _, pid := range family(os.Getpid())[1:] {
			_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
		}
	})()
	for {
		var status unix.WaitStatus
		switch _, err := unix.Wait4(-1, &status, 0, nil); err {
		case nil, unix.EINTR:
		case unix.ECHILD:
			return nil
		default:
			return err
		}
	}
}

// kept is the command that starts a program below one that stays.
func kept(program string, args []string) (self string, all []string, err error) {
	self, err = os.Executable()
	return self, append([]string{"-keep", "--", program}, args...), err
}

// replaceMax is how long a server may take to be replaced: it shares its CPU
// with all that asks it.
const replaceMax = 20 * time.Second

// upgradeFirstbell has the command do it, which returns when the new process
// serves.
func upgradeFirstbell(ctx context.Context, program string, s *server) error {
	out, err := exec.CommandContext(ctx, program, "upgrade", "-config", s.site.Dir+"/firstbell.yaml").CombinedOutput()
	if err != nil {
		return fmt.Errorf("upgrading firstbell: %w\n%s", err, out)
	}
	return nil
}

// upgradeNginx does what nginx's manual says (Upgrading Executable on the Fly):
// USR2 for a new master, and QUIT to the old one when the new one has workers.
func upgradeNginx(ctx context.Context, _ string, s *server) error {
	file := filepath.Join(s.site.Dir, "nginx.pid")
	pid := func() int {
		b, _ := os.ReadFile(file) // there is none for a moment
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	old := pid()
	if old == 0 {
		return fmt.Errorf("upgrading nginx: %s names no process", file)
	}
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("telling nginx to start another master: %w", err)
	}
	if err := until(ctx, "upgrading nginx: no other master has workers", func() bool {
		now := pid()
		return now != 0 && now != old && len(family(now)) > 1
	}); err != nil {
		return err
	}
	return syscall.Kill(old, syscall.SIGQUIT)
}

// upgradeHAProxy tells the master, which starts the program on disk in its own
// place, and that a worker with the sockets of the old one.
func upgradeHAProxy(ctx context.Context, _ string, s *server) error {
	before := family(s.cmd.Process.Pid) // who stays, the master, the worker
	if len(before) < 3 {
		return errors.New("upgrading HAProxy: it has no worker")
	}
	if err := syscall.Kill(before[1], syscall.SIGUSR2); err != nil {
		return fmt.Errorf("telling HAProxy's master: %w", err)
	}
	return until(ctx, "upgrading HAProxy: the master has no other worker", func() bool {
		return slices.ContainsFunc(family(s.cmd.Process.Pid), func(pid int) bool { return !slices.Contains(before, pid) })
	})
}

// until looks again and again until done says so; not is what is wrong when it
// never does.
func until(ctx context.Context, not string, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return errors.New(not)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// around is how long load goes on before an upgrade, and behind it.
const around = time.Second

// upgrade is played with a server of its own, as its process changes.
func (a *arena) upgrade(ctx context.Context, s *server) error {
	if s.peer.upgrade == nil {
		return nil
	}
	alone, err := a.startOne(ctx, s.peer, s.cmd.Path, s.name+"-upgrade", func(at *site) { at.Replaced = true })
	if err != nil {
		return err
	}
	defer alone.stop()
	base := a.fresh("many")
	for range 3 { // by then all know that they are wanted
		if _, err := a.many(ctx, alone, base); err != nil {
			return err
		}
	}
	c, err := newCrowd(alone.site.Listen, 64)
	if err != nil {
		return err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, replaceMax)
	defer cancel()
	var told error
	var took time.Duration
	over := make(chan struct{})
	go func() {
		defer close(over)
		pause(ctx, around)
		began := time.Now()
		told = s.peer.upgrade(ctx, s.cmd.Path, alone)
		took = time.Since(began)
		pause(ctx, around)
	}()
	ended := func(int) bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	asked := a.origin.asked.Load()
	newcomers := make(chan tally, 1)
	var worst time.Duration
	go func() {
		next := many(base)
		newcomers <- together(1, ended, func(int) (int, error) {
			began := time.Now()
			_, err := exchange(ctx, alone.site.Listen, next(nil))
			worst = max(worst, time.Since(began))
			return 1, err
		})
	}()
	t := c.burst(many(base), 200, ended)
	n := <-newcomers
	if told != nil {
		return told
	}
	if _, err := a.many(ctx, alone, base); err != nil {
		return err
	}
	asked = a.origin.asked.Load() - asked
	a.noteFailed("failed requests, 64 connections that are kept", s, t)
	a.noteFailed("failed requests, a new connection for each", s, n)
	a.note("connections closed, and made again", s, float64(t.again), strconv.Itoa(t.again))
	a.note("longest wait over a new connection", s, worst.Seconds(), lasting(worst))
	a.note("stored responses fetched again, of "+strconv.Itoa(stored), s, float64(asked), strconv.FormatInt(asked, 10))
	a.note("from the command to the next process", s, took.Seconds(), lasting(took))
	return nil
}

// noteFailed notes what came to nothing; why the first did goes to stderr.
func (a *arena) noteFailed(what string, s *server, t tally) {
	bad := t.failed + t.wrong
	a.note(what, s, float64(bad), fmt.Sprintf("%d of %d", bad, bad+t.answers))
	if bad > 0 {
		fmt.Fprintf(os.Stderr, "compare: %s, %s: %v\n", s.name, what, t.bad())
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
