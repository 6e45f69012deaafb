package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A manner is how a reference proxy treats its clients.
type manner struct {
	passes bool // asks the origin for every client
	leaks  bool // gives everybody what one user was given
	hides  bool // passes off what came before the origin died as the whole
	blanks bool // answers followers of an error with an empty 200
	slow   bool // gives followers nothing before the fetch has ended
}

// A reference is a small proxy that keeps all for ever. With the zero manner it
// does everything right that the suite asks for.
type reference struct {
	manner
	origin  *http.Transport
	mu      sync.Mutex // guards flights
	flights map[string]*flight
}

func newReference(m manner, origin dial) *reference {
	return &reference{
		manner:  m,
		flights: make(map[string]*flight),
		origin: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return origin(ctx) },
			DisableCompression: true,
			DisableKeepAlives:  true,
		},
	}
}

// A flight is a fetch and what it has brought so far.
type flight struct {
	headed chan struct{} // closed when the header section is there, or err

	res *http.Response // its Body is the fetch's
	err error

	mu    sync.Mutex // guards all below
	body  []byte
	ended bool
	cut   bool
	grown chan struct{}
}

// ServeHTTP implements http.Handler.
func (p *reference) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	personal := r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != ""
	if p.passes || personal && !p.leaks {
		p.pass(w, r)
		return
	}
	p.mu.Lock()
	f := p.flights[r.URL.Path]
	follows := f != nil
	if !follows {
		f = &flight{headed: make(chan struct{}), grown: make(chan struct{})}
		p.flights[r.URL.Path] = f
		header := r.Header.Clone()
		header.Del("Range")
		go p.fetch(f, r.URL.Path, header)
	}
	p.mu.Unlock()
	<-f.headed
	switch {
	case f.err != nil:
		http.Error(w, f.err.Error(), http.StatusBadGateway)
	case f.res.Header.Get("Cache-Control") == "no-store" && !p.leaks:
		p.pass(w, r)
	case f.res.StatusCode >= 500 && follows && p.blanks:
		w.WriteHeader(http.StatusOK)
	default:
		p.answer(w, r, f)
	}
}

func (p *reference) ask(path string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequest("GET", "http://origin"+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header = header
	return p.origin.RoundTrip(r)
}

// pass asks for one client alone.
func (p *reference) pass(w http.ResponseWriter, r *http.Request) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://origin"+r.URL.Path, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out.Header = r.Header.Clone()
	res, err := p.origin.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// fetch asks once for all, and asks for the rest when the origin dies.
func (p *reference) fetch(f *flight, path string, header http.Header) {
	if f.res, f.err = p.ask(path, header); f.err == nil && (f.res.StatusCode == 304 || f.res.StatusCode == 206) && !p.hides {
		f.res.Body.Close()
		f.err = errors.New("no answer to this")
	}
	close(f.headed)
	if f.err != nil {
		return
	}
	err := f.fill(f.res.Body)
	if tag := f.res.Header.Get("ETag"); err != nil && tag != "" && f.res.ContentLength > 0 && !p.hides {
		rest := header.Clone()
		rest.Set("Range", "bytes="+strconv.Itoa(len(f.body))+"-")
		rest.Set("If-Range", tag)
		if res, again := p.ask(path, rest); again == nil {
			if res.StatusCode == http.StatusPartialContent {
				err = f.fill(res.Body)
			}
			res.Body.Close()
		}
	}
	f.mu.Lock()
	f.ended, f.cut = true, err != nil
	close(f.grown)
	f.mu.Unlock()
}

func (f *flight) fill(from io.ReadCloser) error {
	defer from.Close()
	piece := make([]byte, 16<<10)
	for {
		n, err := from.Read(piece)
		f.mu.Lock()
		f.body = append(f.body, piece[:n]...)
		close(f.grown)
		f.grown = make(chan struct{})
		f.mu.Unlock()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// from returns what there is behind an offset, and waits when there is nothing.
func (f *flight) from(n int) (piece []byte, ended, cut bool) {
	for {
		f.mu.Lock()
		piece, ended, cut, grown := f.body[n:], f.ended, f.cut, f.grown
		f.mu.Unlock()
		if len(piece) > 0 || ended {
			return piece, ended, cut
		}
		<-grown
	}
}

func (p *reference) answer(w http.ResponseWriter, r *http.Request, f *flight) {
	for name, values := range f.res.Header {
		w.Header()[name] = values
	}
	if p.slow || p.hides || r.Header.Get("Range") != "" {
		p.answerLater(w, r, f)
		return
	}
	w.WriteHeader(f.res.StatusCode)
	for n := 0; r.Method != "HEAD"; {
		piece, ended, cut := f.from(n)
		n += len(piece)
		if _, err := w.Write(piece); err != nil || ended && cut {
			panic(http.ErrAbortHandler)
		}
		_ = http.NewResponseController(w).Flush() // the client's leaving is found by the next write
		if ended {
			return
		}
	}
}

// answerLater answers when all is there.
func (p *reference) answerLater(w http.ResponseWriter, r *http.Request, f *flight) {
	for n, ended := 0, false; !ended; {
		var piece []byte
		piece, ended, _ = f.from(n)
		n += len(piece)
	}
	if f.cut && !p.hides {
		panic(http.ErrAbortHandler)
	}
	w.Header().Del("Content-Length")
	if f.res.StatusCode != http.StatusOK {
		w.WriteHeader(f.res.StatusCode)
		w.Write(f.body)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (l *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// said is a server's answer, word by word, to whatever it is asked.
func said(response string) dial {
	return func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			var request []byte
			piece := make([]byte, 512)
			for !strings.HasSuffix(string(request), "\r\n\r\n") {
				n, err := there.Read(piece)
				if err != nil {
					return
				}
				request = append(request, piece[:n]...)
			}
			io.WriteString(there, response)
		}()
		return here, nil
	}
}
