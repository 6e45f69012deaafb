package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSlowClientsStopNobody has some of each kind at a real firstbell whose
// limits are short. Memory and waiting are judged with more time and room, in
// "go run ./bench/slow".
func TestSlowClientsStopNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	var out strings.Builder
	faults, err := play(&setting{
		only:      regexp.MustCompile("^1/|^2/(contents|readers|heads|pings|resets)$|^3/(contents|readers|gone)$"),
		attackers: 40, header: 3 * time.Second, grace: 4 * time.Second, idle: 4 * time.Second,
		arrive: 500 * time.Millisecond, wait: time.Minute, slack: time.Minute, memory: 1 << 20,
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) > 0 {
		t.Errorf("%s\n%s", strings.Join(faults, "\n"), out.String())
	}
}
