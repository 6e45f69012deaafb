package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAccessLinesStandForWhatTheyLeaveOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var a accessLog
		a.set(AccessLog{PerSecond: 50, Sample: 10}, slog.New(slog.NewTextHandler(&out, nil)))
		for second := range 3 {
			for i := range 1050 {
				// Some took long: they began in an earlier second.
				took := time.Duration(i%3*second) * time.Second
				a.line(&exchange{arrived: time.Now().Add(-took)}, took)
			}
			time.Sleep(time.Second)
		}
		if got, want := strings.Count(out.String(), "stands_for=1\n"), 3*50; got != want {
			t.Errorf("lines in full: got %d, want %d", got, want)
		}
		if got, want := strings.Count(out.String(), "stands_for=10\n"), 3*100; got != want {
			t.Errorf("sampled lines: got %d, want %d", got, want)
		}
		a.set(AccessLog{Off: true}, slog.Default())
		out.Reset()
		if a.line(&exchange{arrived: time.Now()}, 0); out.Len() != 0 {
			t.Errorf("a log that is off wrote %q", out.String())
		}
	})
}

func TestSecretsInAQueryAreNotLogged(t *testing.T) {
	for raw, want := range map[string]string{
		"/a":                                   "/a",
		"/a?page=2&q=x%20y":                    "/a?page=2&q=x%20y",
		"/a?access_token=abc&page=2":           "/a?access_token=(hidden)&page=2",
		"/a?page=2&sesskey=abc&Id_Token=def":   "/a?page=2&sesskey=(hidden)&Id_Token=(hidden)",
		"/cb?code=abc=def&state=1":             "/cb?code=(hidden)&state=1",
		"/a?acce%73s_toke%6e=abc&PASSWORD=def": "/a?acce%73s_toke%6e=(hidden)&PASSWORD=(hidden)",
		"/a?token":                             "/a?token",
	} {
		x, refusal := readTarget([]byte(raw))
		if refusal != "" {
			t.Fatal(refusal)
		}
		if got := x.shown(); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}
