package proxy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"firstbell/attendance"
)

// keptDisk is a disk that keeps what it is given.
type keptDisk struct {
	brokenDisk
	mu   sync.Mutex
	kept []attendance.Event
}

func (d *keptDisk) Append(records [][]byte) (uint64, error) {
	first, err := d.brokenDisk.Append(records)
	if err != nil {
		return first, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range records {
		e, err := attendance.DecodeEvent(r)
		if err != nil {
			return first, err
		}
		d.kept = append(d.kept, e)
	}
	return first, nil
}

// collected is what was kept for sinks.
func (d *keptDisk) collected() []attendance.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.kept), func(e attendance.Event) bool { return e.Kind != attendance.KindCollected })
}

// collectGate is a gate with three collect routes that write to d, before an
// origin with room for nobody; all it logs goes to log.
func collectGate(t *testing.T, d *keptDisk, log *bytes.Buffer) *gate {
	t.Helper()
	post := []string{"POST"}
	g := newGate(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(up *Upstream) []*Route {
		return []*Route{
			{Hosts: []string{"*"}, Methods: post, Path: "/progress/*", Collect: &Collect{Sink: "progress"}},
			{Hosts: []string{"*"}, Methods: post, Path: "/quiz", Collect: &Collect{Sink: "quiz", NoContent: true,
				Key: []Ref{{Kind: RefJSON, Path: []string{"student"}}, {Kind: RefHeader, Name: "X-Quiz"}}}},
			{Hosts: []string{"*"}, Methods: post, Path: "/form", Collect: &Collect{Sink: "quiz", BytesMax: 100,
				Key: []Ref{{Kind: RefForm, Name: "id"}}}},
			{Hosts: []string{"*"}, Origin: up},
		}
	})
	rec := newRecorder(t, d)
	g.proxy.recorder = rec
	if log != nil {
		g.proxy.access.set(AccessLog{}, slog.New(slog.NewTextHandler(log, nil)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { rec.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return g
}

func TestASmallWriteIsKeptAsItCame(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var d keptDisk
		var log bytes.Buffer
		g := collectGate(t, &d, &log)
		body := "{ \"answer\" : 42,\r\n\"answer\":43 }\x00\xff"
		a := g.do("POST", "/progress/lesson%201/a?session=hidden", strings.NewReader(body), "Host: s01.school.example", "Content-Type: text/odd",
			"Idempotency-Key: \"k-1\"", "Cookie: session=hidden", "Authorization: Bearer hidden")
		if a.StatusCode != 200 || !strings.Contains(a.body, `"durable":"disk"`) || !strings.Contains(a.body, a.Header.Get("Receipt")) || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %d %v %s, want 200 with the receipt, no-store", a.StatusCode, a.Header, a.body)
		}
		kept := d.collected()
		if len(kept) != 1 {
			t.Fatalf("got %d records, want 1", len(kept))
		}
		want := attendance.Collected{Sink: "progress", Key: "k-1", Path: "/progress/lesson%201/a", ContentType: "text/odd", Body: body}
		if got := *kept[0].Collected; got != want || kept[0].School != "s01" {
			t.Errorf("got %+v of %s, want %+v of s01", got, kept[0].School, want)
		}
		if strings.Contains(fmt.Sprintf("%+v", kept), "hidden") {
			t.Error("a credential was written down")
		}
		settle() // the line is written behind the answer
		if !strings.Contains(log.String(), "outcome=collected") || strings.Contains(log.String(), "answer") {
			t.Errorf("the log says %s, want the outcome and nothing of the body", &log)
		}
		again := g.do("POST", "/progress/lesson%201/a", strings.NewReader("another"), "Host: s01.school.example", "Idempotency-Key: k-1")
		if again.StatusCode != 200 || again.body != a.body || len(d.collected()) != 1 {
			t.Errorf("again: got %d %s and %d records, want the same answer and one record", again.StatusCode, again.body, len(d.collected()))
		}
	})
}

func TestAWriteIsKnownByAllPartsOfItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var d keptDisk
		g := collectGate(t, &d, nil)
		receipts := map[string]string{}
		for _, c := range []struct{ path, body, quiz string }{
			{"/quiz", `{"student":"a/b"}`, "c"}, {"/quiz", `{"student":"a"}`, "b/c"}, {"/quiz", `{"student":"a/b","x":1}`, "c"}, {"/form", "id=1&x=2", ""},
		} {
			a := g.do("POST", c.path, strings.NewReader(c.body), "X-Quiz: "+c.quiz)
			want := 204
			if c.path == "/form" {
				want = 200
			}
			if a.StatusCode != want || a.Header.Get("Receipt") == "" || (want == 204) != (a.body == "") {
				t.Errorf("%v: got %d %q %v, want %d with a receipt", c, a.StatusCode, a.body, a.Header, want)
			}
			receipts[a.Header.Get("Receipt")] += c.body + " "
		}
		if len(receipts) != 3 || len(d.collected()) != 3 {
			t.Errorf("got %v and %d records, want three keys", receipts, len(d.collected()))
		}
	})
}

func TestAMalformedWriteIsRefusedAndNotKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var d keptDisk
		g := collectGate(t, &d, nil)
		for _, c := range []struct {
			name, path, body string
			fields           []string
			status           int
			says             string
		}{
			{"no key", "/progress/1", `{}`, nil, 400, "Idempotency-Key"},
			{"an empty key", "/progress/1", `{}`, []string{`Idempotency-Key: ""`}, 400, "Idempotency-Key"},
			{"a long key", "/progress/1", `{}`, []string{"Idempotency-Key: " + strings.Repeat("k", 300)}, 400, "256 bytes"},
			{"64 KiB and one", "/progress/1", strings.Repeat("x", 64<<10+1), []string{"Idempotency-Key: k"}, 413, "65536"},
			{"10 MB", "/progress/1", strings.Repeat("x", 10<<20), []string{"Idempotency-Key: k"}, 413, "65536"},
			{"beyond the route's own bound", "/form", "id=1&x=" + strings.Repeat("x", 100), nil, 413, "100"},
			{"a coding", "/progress/1", "\x1f\x8b", []string{"Idempotency-Key: k", "Content-Encoding: gzip"}, 415, "Content-Encoding"},
			{"a long content type", "/progress/1", "{}", []string{"Idempotency-Key: k", "Content-Type: " + strings.Repeat("t", 300)}, 400, "content type"},
			{"a long path", "/progress/" + strings.Repeat("p", 2100), "{}", []string{"Idempotency-Key: k"}, 400, "path"},
			{"no JSON", "/quiz", `student=a`, []string{"X-Quiz: 1"}, 400, "not JSON"},
			{"a part missing", "/quiz", `{"student":"a"}`, nil, 400, "header:X-Quiz, is missing"},
			{"a part twice", "/quiz", `{"student":"a","student":"b"}`, []string{"X-Quiz: 1"}, 400, "more than once"},
			{"a part that is an object", "/quiz", `{"student":{}}`, []string{"X-Quiz: 1"}, 400, "json:/student"},
			{"NUL in a key", "/quiz", `{"student":"a\u0000"}`, []string{"X-Quiz: 1"}, 400, "json:/student"},
			{"a field twice", "/form", "id=1&id=2", nil, 400, "more than once"},
			{"an empty body", "/quiz", ``, []string{"X-Quiz: 1"}, 400, "not JSON"},
		} {
			a := g.do("POST", c.path, strings.NewReader(c.body), c.fields...)
			if a.StatusCode != c.status || !strings.Contains(a.body, c.says) {
				t.Errorf("%s: got %d %.200s; want %d and a word of %q", c.name, a.StatusCode, a.body, c.status, c.says)
			}
		}
		if a := g.get("/quiz"); a.StatusCode != 405 || a.Header.Get("Allow") != "POST" {
			t.Errorf("GET: got %d %v, want 405", a.StatusCode, a.Header)
		}
		if n := len(d.collected()); n != 0 {
			t.Errorf("got %d records, want none", n)
		}
		if a := g.do("POST", "/progress/1", nil, "Idempotency-Key: k"); a.StatusCode != 200 {
			t.Errorf("a beacon without content: got %d %s, want 200", a.StatusCode, a.body)
		}
	})
}

func TestAWriteThatCannotBeKeptIsRefusedLoudly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var d keptDisk
		g := collectGate(t, &d, nil)
		d.broken.Store(true)
		a := g.do("POST", "/progress/1", strings.NewReader("{}"), "Idempotency-Key: k")
		if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || a.Header.Get("Receipt") != "" {
			t.Errorf("got %d %v, want 503, when to come back, and no receipt", a.StatusCode, a.Header)
		}
		d.broken.Store(false)
		if a := g.do("POST", "/progress/1", strings.NewReader("{}"), "Idempotency-Key: k"); a.StatusCode != 200 || len(d.collected()) != 1 {
			t.Errorf("the retry: got %d and %d records, want 200 and 1", a.StatusCode, len(d.collected()))
		}
		var st sync.Map
		herd(300, func(i int) *answer {
			a := g.do("POST", "/progress/1", strings.NewReader("{}"), fmt.Sprintf("Idempotency-Key: %d", i%100))
			st.Store(a.Header.Get("Receipt"), true)
			return a
		})
		settle()
		receipts := 0
		st.Range(func(any, any) bool { receipts++; return true })
		if receipts != 100 || len(d.collected()) != 101 {
			t.Errorf("300 presses of 100 keys: got %d receipts and %d records, want 100 and 101", receipts, len(d.collected()))
		}
		if n := g.proxy.Stats().Outcomes["collected"]; n != 301 {
			t.Errorf("counted %d collected, want 301", n)
		}
	})
}
