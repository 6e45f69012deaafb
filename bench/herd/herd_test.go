package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"firstbell/bench/ports"
)

// judged plays cases (none named: all) against a reference proxy, in fake time,
// and returns the rows that missed their bar.
func judged(t *testing.T, m manner, cases ...int) (missed []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		front, back := newPipes(), newPipes()
		s := newSuite(back, front.dial, back.dial)
		s.colds, s.film = 80, 1<<20
		proxy := &http.Server{Handler: newReference(m, back.dial)}
		go func() { _ = proxy.Serve(front) }() // ends when it is closed
		rows, err := s.play(t.Context(), cases)
		s.origin.close()
		proxy.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Verdict == fail {
				missed = append(missed, r.Case+": "+r.What+": "+r.Value)
			}
		}
	})
	return missed
}

func TestAGoodProxyMissesNothing(t *testing.T) {
	for _, m := range judged(t, manner{}) {
		t.Errorf("missed: %s", m)
	}
}

func TestALiarIsFoundOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		manner manner
		cases  []int
		want   []string // some of what it misses
		spared []string // what it does right all the same
	}{
		{
			"one who leaks", manner{leaks: true}, []int{1, 6, 7},
			[]string{"20: no-store: 19", "20: private: 19", "20: Set-Cookie: 19", "20: Vary: Cookie: 19", "20: no directives: 19", "20: Authorization: 19"},
			[]string{"origin fetches", "whole"},
		},
		{
			"one who hides that the origin died", manner{hides: true}, []int{5, 6, 7, 10, 12},
			[]string{"short but clean: 10", "length unknown: short but clean, of 10: 10", "Content-Length too long: short but clean, of 5: 5", "nonsense: short but clean, of 5: 5", "304 to a fetch without validators: passed on as if it were one, of 5: 5", "206 to a request for the whole: passed on as if it were one, of 5: 5"},
			[]string{"another user's content", "503"},
		},
		{
			"one who asks for everybody", manner{passes: true}, []int{1, 2, 3, 5, 6, 7, 9},
			[]string{"origin fetches, 100 clients: 100", "origin fetches, 31 clients: 31", "origin fetches, 30 clients: 30", "4.000 a URL, most 4"},
			[]string{"another user's content", "short but clean", "no-store"},
		},
		{
			"one who answers errors with nothing", manner{blanks: true}, []int{5, 6, 7},
			[]string{"blank answers: 29", "answers that are no error: 29"},
			[]string{"another user's content", "short but clean"},
		},
		{
			"one who gives nothing before all is there", manner{slow: true}, []int{1, 3, 5, 7},
			[]string{"followers' first byte, worst: 1.90 s"},
			[]string{"another user's content", "short but clean", "origin fetches"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			missed := strings.Join(judged(t, c.manner, c.cases...), "\n")
			for _, want := range c.want {
				if !strings.Contains(missed, want) {
					t.Errorf("got\n%s\nwant among it: %s", missed, want)
				}
			}
			for _, spared := range c.spared {
				if strings.Contains(missed, spared) {
					t.Errorf("got\n%s\nwant nothing about: %s", missed, spared)
				}
			}
		})
	}
}

func TestTruncationIsToldFromACleanEnd(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name, response string
		want           ending
		content        string
		more           bool
	}{
		{"all of the length", ok + "Content-Length: 4\r\n\r\nbell", clean, "bell", false},
		{"less than the length", ok + "Content-Length: 5\r\n\r\nbell", broken, "bell", false},
		{"more than the length", ok + "Content-Length: 3\r\n\r\nbell", clean, "bel", true},
		{"all chunks", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nbell\r\n0\r\n\r\n", clean, "bell", false},
		{"all chunks and a trailer", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nbell\r\n0\r\nA: b\r\n\r\n", clean, "bell", false},
		{"no last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nbell\r\n", broken, "bell", false},
		{"no end of the trailer", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nbell\r\n0\r\n", broken, "bell", false},
		{"a chunk cut off", ok + "Transfer-Encoding: chunked\r\n\r\n6\r\nbell", broken, "bell", false},
		{"to the connection's end", ok + "\r\nbell", clean, "bell", false},
		{"two lengths", ok + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbell", broken, "", false},
		{"no length at all", ok + "Content-Length: some\r\n\r\nbell", broken, "", false},
		{"no content by its status", "HTTP/1.1 204 No Content\r\n\r\n", clean, "", false},
		{"an interim response first", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok + "Content-Length: 4\r\n\r\nbell", clean, "bell", false},
		{"half a header section", ok + "Content-Le", broken, "", false},
		{"nothing", "", broken, "", false},
		{"another protocol", "SSH-2.0-bell\r\n", broken, "", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := (&client{host: "herd.test", dial: said(c.response)}).get(t.Context(), ask{path: "/"})
			if a.ending != c.want || string(a.content) != c.content || a.more != c.more {
				t.Errorf("%s: got ending %d, content %q, more %t (%v); want %d, %q, %t", c.name, a.ending, a.content, a.more, a.err, c.want, c.content, c.more)
			}
		})
	}
}

func TestEveryAnswerIsSorted(t *testing.T) {
	want := []byte("bell")
	got := sortOut([]answer{
		{status: 200, ending: clean, content: want},
		{status: 200, ending: broken, content: want[:2]},
		{status: 502, ending: clean, content: []byte("no")},
		{ending: broken},
		{status: 200, ending: clean, content: want[:2]},
		{status: 200, ending: clean, content: want, more: true},
		{status: 204, ending: clean},
		{status: 200, ending: late, content: want[:2]},
	}, want)
	if (got != verdict{whole: 1, visible: 3, short: 3, waiting: 1}) {
		t.Errorf("got %+v, want 1 whole, 3 visibly broken, 3 short but clean, 1 waiting", got)
	}
}

func TestResultsStandSideBySide(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, rows ...row) string {
		b, err := json.Marshal(result{Name: name, Rows: rows})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	a := write("a", row{"1 x", "fetches", "1", "1", pass}, row{"2 y", "time", "3 s", "", ""})
	b := write("b", row{"1 x", "fetches", "9", "1", fail})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-merge", a, b}, &out, &out); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"| case | measured | bar | a | b |",
		"|---|---|---|---|---|",
		"| 1 x | fetches | 1 | 1 | **9** |",
		"| 2 y | time |  | 3 s | – |",
		"| | **bars missed** | | 0 | 1 |",
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), strings.Join(want, "\n"))
	}
}

func TestFlagsThatMeanNothingAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"-requests", "0"}, {"-requests", "100000000"}, {"-cases", "99"}, {"-cases", "x"}, {"-urls", "0"}, {"-urls", "1000000"}, {"a.json"}, {"-merge"},
		{"-target", "127.0.0.1:80"}, {"-target", "https://a:1"}, {"-merge", "/nowhere/a.json"},
	} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out, &out); err == nil {
			t.Errorf("%q: got no error, want one", args)
		}
	}
}

// TestLeaksAreLookedForAndTold asks an origin that lies, with no proxy between.
func TestLeaksAreLookedForAndTold(t *testing.T) {
	address, err := ports.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	var out, told bytes.Buffer
	args := []string{"-leaks", "-requests", "1500", "-seed", "7", "-json", "-name", "nobody", "-target", "http://" + address, "-origin", address}
	if err := run(t.Context(), args, &out, &told); !errors.Is(err, errMissed) {
		t.Errorf("run: %v, want %v", err, errMissed)
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Name != "nobody" {
		t.Fatalf("%v: %s", err, out.String())
	}
	found := make(map[string]string)
	for _, row := range r.Rows {
		found[row.What] = row.Verdict
	}
	for what, want := range map[string]string{
		"bytes that nobody asked for":                          fail,
		"a page from before a change that was confirmed":       pass,
		"a user's no-cache page given to another after a 304*": pass,
	} {
		if found[what] != want {
			t.Errorf("%s: got %q, want %q", what, found[what], want)
		}
	}
	if !strings.Contains(told.String(), "before that, at the same resource:") || !strings.Contains(told.String(), "overruns") {
		t.Errorf("the findings are not told: %s", told.String())
	}
}
