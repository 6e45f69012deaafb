package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// newClassroom is an origin that opens WebSockets, with compression, at /class
// and says back what it hears, and streams events at /events.
// What is told to /heard goes to heard.
func newClassroom(t *testing.T, heard chan<- string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/class":
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"lesson"}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover})
			if err != nil {
				return // it has answered
			}
			c.SetReadLimit(-1)
			for {
				kind, b, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, b) != nil {
					return
				}
			}
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for n := 1; r.Context().Err() == nil; n++ {
				fmt.Fprintf(w, "id: %d\ndata: event %d after %s\n\n", n, n, r.Header.Get("Last-Event-ID"))
				w.(http.Flusher).Flush()
				if n == 3 {
					<-r.Context().Done()
				}
			}
		case "/heard":
			b, _ := io.ReadAll(r.Body)
			heard <- string(b)
		default:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, livePage)
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	return s
}

// forClassroom edits writeFile's file for what lasts.
var forClassroom = []string{
	"{hosts: [\"*\"], origin: lms}", "{hosts: [\"*\"], origin: lms, websocket: true, live: {max: 3, idle: 1m}}",
	"listen: {http: \"127.0.0.1:0\"", "listen: {drain: 20s, http: \"127.0.0.1:0\"",
}

func dial(t *testing.T, r *running) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	return websocket.Dial(t.Context(), "ws://"+r.web+"/class", &websocket.DialOptions{
		Subprotocols: []string{"lesson"}, CompressionMode: websocket.CompressionContextTakeover, HTTPHeader: http.Header{"Origin": {"http://" + r.web}},
	})
}

func TestARealWebSocketThroughReloadAndRestart(t *testing.T) {
	file := writeFile(t, newClassroom(t, nil).URL, forClassroom...)
	r := serve(t, file)
	c, _, err := dial(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subprotocol() != "lesson" {
		t.Errorf("got the subprotocol %q, want lesson", c.Subprotocol())
	}
	c.SetReadLimit(-1)
	says := func(text string) {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != text {
			t.Fatalf("got %d bytes and %v, want the %d that were said", len(b), err, len(text))
		}
	}
	says("here")
	says(strings.Repeat("a long essay ", 100_000))
	edit(t, file, "live: {max: 3, idle: 1m}", "live: {max: 2, idle: 1m}")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 {
		t.Fatalf("reloading: got %d %s", status, answer)
	}
	says("still here")
	second, _, err := dial(t, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, res, err := dial(t, r); err == nil || res == nil || res.StatusCode != 503 {
		t.Errorf("a third one beside two: got %v, want 503", err)
	}
	var st statusReport
	_, answer := ask(t, "GET", "http://"+r.ops+"/status", "")
	if err := json.Unmarshal([]byte(answer), &st); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	if printStatus(&shown, &st); !strings.Contains(shown.String(), "websocket 2 of 2 begun") || !strings.Contains(shown.String(), "refused route 1") {
		t.Errorf("status says\n%s\nwant two WebSockets and one refused", shown.String())
	}
	if _, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", ""); !strings.Contains(metrics, "firstbell_live{kind=\"websocket\"} 2\n") {
		t.Errorf("the metrics do not tell of two WebSockets:\n%s", metrics)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	for _, conn := range []*websocket.Conn{c, second} {
		_, _, err := conn.Read(t.Context())
		if bye, ok := errors.AsType[websocket.CloseError](err); !ok || bye.Code != websocket.StatusGoingAway || bye.Reason != "the server restarts" {
			t.Errorf("at the end a client was told %v, want going away", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("ending: %v", err)
	}
	if log := r.log.String(); strings.Count(log, "live=websocket ended_by=shutdown") != 2 {
		t.Errorf("want a line for each WebSocket that was ended:\n%s", log)
	}
}

// livePage tells what its WebSocket and its EventSource heard.
const livePage = `<!doctype html><meta charset="utf-8"><script>
const heard = [];
const hear = (what) => { heard.push(what); if (heard.length === 5) fetch("/heard", {method: "POST", body: heard.sort().join(", ")}); };
const ws = new WebSocket("ws://" + location.host + "/class", "lesson");
ws.onopen = () => ws.send("안녕하세요");
ws.onmessage = (m) => { hear(ws.protocol + " " + m.data); ws.close(1000, "bye"); };
ws.onclose = (c) => hear("closed " + c.code + " " + c.wasClean);
const es = new EventSource("/events");
es.onmessage = (m) => { hear(m.data.trim() + " id " + m.lastEventId); };
</script>`

func TestABrowserOpensAWebSocketAndAnEventSource(t *testing.T) {
	if testing.Short() {
		t.Skip("left out with -short: a real browser")
	}
	chromium := need(t, "chromium", "apt-get install chromium")
	heard := make(chan string, 1)
	r := serve(t, writeFile(t, newClassroom(t, heard).URL, forClassroom...))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	browser := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", "http://"+r.web+"/page")
	browser.WaitDelay = 5 * time.Second
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = browser.Wait() // it was killed
	}()
	select {
	case got := <-heard:
		want := "closed 1000 true, event 1 after id 1, event 2 after id 2, event 3 after id 3, lesson 안녕하세요"
		if got != want {
			t.Errorf("the page heard %q, want %q", got, want)
		}
	case <-ctx.Done():
		t.Errorf("the page told nothing in a minute:\n%s", r.log)
	}
}
