//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// halves is which CPU the servers under measurement have, one at a time, and
// which the load and the origin have. On a machine with one CPU they are the
// same, and the report says so.
type halves struct{ servers, load int }

// allowedCPUs are those that this process may use, in order.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("asking which CPUs may be used: %w", err)
	}
	var cpus []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// divide moves this process, which is load and origin, to the first CPU and
// leaves the last to the servers.
func divide() (halves, error) {
	cpus, err := allowedCPUs()
	if err != nil {
		return halves{}, err
	}
	h := halves{servers: cpus[len(cpus)-1], load: cpus[0]}
	// Threads inherit their maker's CPUs: after a second look all have them.
	for range 2 {
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return h, err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return h, err
			}
			if err := pin(tid, h.load); err != nil && !errors.Is(err, unix.ESRCH) {
				return h, err
			}
		}
	}
	return h, nil
}

// pin binds a thread to one CPU; 0 is the calling thread.
func pin(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("binding thread %d to CPU %d: %w", tid, cpu, err)
	}
	return nil
}

// timerSlack is TimerSlackNSec of deploy/firstbell.service, which all servers
// have here. Those whose timers are seconds do not notice.
const timerSlack = time.Millisecond

// onServersCPU calls start, which starts a process, so that the process and all
// that it starts have the servers' CPU and no other, and timerSlack.
func (h halves) onServersCPU(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("setting the timer slack: %w", err)
	}
	defer restoreTimers()
	if h.servers < 0 { // it may use all
		return start()
	}
	if err := pin(0, h.servers); err != nil {
		return err
	}
	err := start()
	return errors.Join(err, pin(0, h.load))
}

// restoreTimers gives the calling thread its default back, which cannot fail.
func restoreTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }

// family is a process and all below it, the process first. Those that have
// ended are not in it.
func family(root int) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	parents := make(map[int]int, len(dirs))
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The parent is the second field behind the command's parenthesis (proc(5)).
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		var children []int
		for pid, parent := range parents {
			if parent == all[i] {
				children = append(children, pid)
			}
		}
		slices.Sort(children)
		all = append(all, children...)
	}
	return all
}

// usage is what a family of processes has had of the CPU since each began.
type usage map[int]share

type share struct {
	cpu  time.Duration // user and system, of all threads, those that have ended too
	wait time.Duration // ready to run, but another process had the CPU
}

// used reads the usage of a family. The kernel's clock of a process counts
// nanoseconds (clock_gettime(2) with the process's clock), so bursts can be short.
func used(pids []int) usage {
	u := make(usage, len(pids))
	for _, pid := range pids {
		var ts unix.Timespec
		// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers.h.
		if unix.ClockGettime(int32(^pid<<3|2), &ts) != nil {
			continue // it has ended
		}
		s := share{cpu: time.Duration(ts.Nano())}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}
			if f := strings.Fields(string(b)); len(f) > 1 {
				ns, _ := strconv.ParseInt(f[1], 10, 64)
				s.wait += time.Duration(ns)
			}
		}
		u[pid] = s
	}
	return u
}

// since is what was used between two readings. Of a process that has ended
// meanwhile it does not know, of one that has begun it knows all.
func (u usage) since(before usage) (sum share) {
	for pid, s := range u {
		sum.cpu += s.cpu - before[pid].cpu
		sum.wait += max(0, s.wait-before[pid].wait)
	}
	return sum
}

// memory is the bytes that a family has of the machine's memory: its own, and
// its part of what it shares (Pss of proc(5)).
func memory(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}

// machine says in one line what was measured on.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	kernel := "Linux"
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d x %s, %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}
