package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An origin is what the proxy under test stands before. It plays a scene for
// each path that a case has set, and answers 404 to everything else.
type origin struct {
	server *http.Server

	mu     sync.Mutex // guards scenes
	scenes map[string]*scene
}

// A player answers one request for a scene's path.
type player func(s *scene, w http.ResponseWriter, r *http.Request)

// A scene is how one path is answered, and what was asked of it.
type scene struct {
	path string
	body []byte
	play player
	over chan struct{} // closed when the case has ended: nothing waits longer

	began chan struct{} // closed when the first request is there

	mu      sync.Mutex // guards all below
	asked   int        // all requests
	ranges  int        // of them, those for a range
	gone    time.Time  // when the proxy left a request before its end, the last time
	written int        // content bytes written by dribble
}

func newOrigin() *origin {
	o := &origin{scenes: make(map[string]*scene)}
	o.server = &http.Server{Handler: http.HandlerFunc(o.serve), ReadHeaderTimeout: 10 * time.Second}
	return o
}

// listen answers on ln until close.
func (o *origin) listen(ln net.Listener) {
	_ = o.server.Serve(ln) // ends when the server is closed
}

func (o *origin) close() { o.server.Close() }

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	s := o.scenes[r.URL.Path]
	o.mu.Unlock()
	if s == nil {
		http.Error(w, "nothing is played at "+r.URL.Path, http.StatusNotFound)
		return
	}
	s.mu.Lock()
	s.asked++
	if r.Header.Get("Range") != "" {
		s.ranges++
	}
	if s.asked == 1 {
		close(s.began)
	}
	s.mu.Unlock()
	s.play(s, w, r)
}

func (o *origin) add(s *scene) {
	o.mu.Lock()
	o.scenes[s.path] = s
	o.mu.Unlock()
}

func (o *origin) remove(s *scene) {
	o.mu.Lock()
	delete(o.scenes, s.path)
	o.mu.Unlock()
	close(s.over)
}

// fetches is how often the origin was asked, ranges included.
func (s *scene) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// parts is how often the origin was asked for a range.
func (s *scene) parts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ranges
}

// started waits for the first request. It returns false when the context ends.
func (s *scene) started(ctx context.Context) bool {
	select {
	case <-s.began:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits. It returns false when the proxy has left, or the case is over.
func (s *scene) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		s.mu.Lock()
		s.gone = time.Now()
		s.mu.Unlock()
	case <-s.over:
	}
	return false
}

// bodyOf is n bytes that no other path has.
func bodyOf(path string, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(path))).Read(b) // never fails
	return b
}

// tag is the strong validator of the scene's content.
func (s *scene) tag() string {
	return fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(s.path)))[:18] + `"`
}

// shareable sets the fields of a response that everybody may have.
func (s *scene) shareable(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "max-age=60")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", s.tag())
}

// whole answers with all of the content, or with the range asked for, after a
// while.
func whole(after time.Duration) player {
	return func(s *scene, w http.ResponseWriter, r *http.Request) {
		if !s.pause(r.Context(), after) {
			return
		}
		s.shareable(w)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.body))
	}
}

// dribble answers with all of the content, in equal pieces spread over a time,
// after a while.
func dribble(after, over time.Duration) player {
	return func(s *scene, w http.ResponseWriter, r *http.Request) {
		if !s.pause(r.Context(), after) {
			return
		}
		s.shareable(w)
		w.Header().Set("Content-Length", strconv.Itoa(len(s.body)))
		s.drip(r.Context(), w, s.body, over)
	}
}

// dripPieces is how many pieces a dribbled content comes in.
const dripPieces = 64

// drip writes a content in pieces; the first comes at once, the last when the
// time is over. It returns false when it was cut short.
func (s *scene) drip(ctx context.Context, w io.Writer, body []byte, over time.Duration) bool {
	began := time.Now()
	for i := range dripPieces {
		due := began.Add(over * time.Duration(i) / (dripPieces - 1))
		if i > 0 && !s.pause(ctx, time.Until(due)) {
			return false
		}
		piece := body[len(body)*i/dripPieces : len(body)*(i+1)/dripPieces]
		if _, err := w.Write(piece); err != nil {
			return false
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		s.mu.Lock()
		s.written += len(piece)
		s.mu.Unlock()
	}
	return true
}

// raw takes the connection over: play writes what it likes, and then the
// connection is closed.
func raw(play func(s *scene, w io.Writer, r *http.Request)) player {
	return func(s *scene, w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, "cannot be played over this protocol", http.StatusHTTPVersionNotSupported)
			return
		}
		defer conn.Close()
		play(s, conn, r)
	}
}

// dies answers the first request with half of the content over a time, and
// then the connection is gone. Later requests are answered well.
func dies(inChunks bool, over time.Duration) player {
	var once sync.Once
	half := raw(func(s *scene, w io.Writer, r *http.Request) {
		fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: application/octet-stream\r\nETag: %s\r\n", s.tag())
		if inChunks {
			io.WriteString(w, "Transfer-Encoding: chunked\r\n\r\n")
			w = &chunks{w}
		} else {
			fmt.Fprintf(w, "Accept-Ranges: bytes\r\nContent-Length: %d\r\n\r\n", len(s.body))
		}
		s.drip(context.Background(), w, s.body[:len(s.body)/2], over) // ends with the case at the latest
	})
	return func(s *scene, w http.ResponseWriter, r *http.Request) {
		first := false
		once.Do(func() { first = true })
		switch {
		case first:
			half(s, w, r)
		case inChunks:
			s.shareable(w)
			w.Write(s.body)
		default:
			whole(0)(s, w, r)
		}
	}
}

// chunks writes each piece as one chunk.
type chunks struct{ to io.Writer }

// Write implements io.Writer.
func (c *chunks) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(c.to, "%x\r\n%s\r\n", len(p), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// user is who asks, by the cookie or the credentials of the request.
func user(r *http.Request) string {
	if c, err := r.Cookie("user"); err == nil {
		return c.Value
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}
