package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// kindsT are the attacks of slowhttptest (Debian has it): slow heads, slow
// contents, overlapping ranges, and slow reading of an answer that the origin
// has to send each time.
func kindsT(s *setting) []*kind {
	made := func(name string, within time.Duration, args ...string) *kind {
		return &kind{name: "t/" + name, within: within + s.slack, slack: s.slack, streams: s.attackers, run: func(k *kind, at *target, _ int) error {
			return slowhttptest(k, at, args)
		}}
	}
	return []*kind{
		made("H", s.header, "-H", "/attack"),
		made("B", 2*s.grace, "-B", "/attack"),
		made("R", 2*s.grace, "-R", "/films/1"),
		// It goes on reading what its socket holds of an answer that was cut off.
		made("X", 2*s.grace+12*s.slack, "-X", "/mine/400000", "-w", "256", "-y", "512", "-n", "1", "-z", "64"),
	}
}

// slowhttptest attacks until the program has no connection left. How it is
// called is said by args: how, the path, and more.
func slowhttptest(k *kind, at *target, args []string) error {
	n := strconv.Itoa(k.streams)
	all := append([]string{args[0], "-u", "http://" + at.plain + args[1], "-c", n, "-r", "500", "-i", "2", "-p", "3",
		"-s", "100000", "-l", strconv.Itoa(int((k.within + k.slack).Seconds()))}, args[2:]...)
	began := time.Now()
	out, err := exec.Command("slowhttptest", all...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("slowhttptest %s (on Debian: apt-get install slowhttptest): %w\n%s", strings.Join(all, " "), err, out)
	}
	k.opened.Add(int64(k.streams))
	switch text := string(out); {
	case strings.Contains(text, "No open connections left"):
		k.cutOff(began, k.streams)
	default:
		why := text[max(0, len(text)-1500):]
		k.why.CompareAndSwap(nil, &why)
	}
	return nil
}
