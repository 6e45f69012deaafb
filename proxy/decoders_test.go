package proxy

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"firstbell/cache"
)

// slowSource is a source that counts how many are asked at once.
type slowSource struct {
	pieceSource
	now, most *int
}

func (s *slowSource) Next() ([]byte, error) {
	*s.now++
	*s.most = max(*s.most, *s.now)
	synctest.Wait() // whoever may go on has come here
	*s.now--
	return s.pieceSource.Next()
}

func TestHalfOfTheProcessorsDecodeAtOnceAtMost(t *testing.T) {
	const many = 32
	coded, err := encode(cache.Gzip, []byte(strings.Repeat("a lesson, ", 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := newDecoders()
		d.turns = make(chan struct{}, 1)
		now, most, done := 0, 0, make(chan int)
		for range many {
			body := d.decode(cache.Gzip, &slowSource{pieceSource{coded}, &now, &most})
			go func() {
				n := 0
				for {
					p, err := body.Next()
					if n += len(p); err != nil {
						break
					}
				}
				body.Close()
				done <- n
			}()
		}
		for range many {
			if n := <-done; n != 100_000 {
				t.Errorf("decoded %d bytes, want 100,000", n)
			}
		}
		if most != 1 || d.bytes.Load() != 0 {
			t.Errorf("%d decoded at once, %d bytes are held behind; want 1 and 0", most, d.bytes.Load())
		}
	})
}

func TestDecodersHoldNoMoreThanTheirBound(t *testing.T) {
	d := newDecoders()
	for c := range cache.OtherCoding {
		if c == cache.Identity {
			continue
		}
		var open []source
		for len(open) <= decodersBytesMax>>16 {
			s := d.decode(c, &pieceSource{})
			if s == nil {
				break
			}
			open = append(open, s)
		}
		if want := int(decodersBytesMax / decoderBytes[c]); len(open) != want {
			t.Errorf("%s: %d at once, want %d", c, len(open), want)
		}
		for _, s := range open {
			s.Close()
		}
	}
	if d.bytes.Load() != 0 || d.refused.Load() != 3 {
		t.Errorf("%d bytes held, %d refused; want 0 and 3", d.bytes.Load(), d.refused.Load())
	}
}

func TestWhoRefusesTheStoredCodingIsAskedToWaitWhenTooMuchIsDecoded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		page := strings.Repeat("a page of a lesson. ", 500)
		coded, err := encode(cache.Gzip, []byte(page))
		if err != nil {
			t.Fatal(err)
		}
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(coded)
		}, cached(cache.Policy{}))
		g.proxy.coder.close() // as it is for what is large and on disk
		g.get("/l", "Accept-Encoding: gzip")
		room := int64(decodersBytesMax - decoderBytes[cache.Gzip] + 1)
		g.proxy.decoders.bytes.Add(room)
		a := g.get("/l", "Accept-Encoding: identity")
		if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
			t.Errorf("with no room: %d, Retry-After %q; want 503 with one", a.StatusCode, a.Header.Get("Retry-After"))
		}
		if a := g.do("HEAD", "/l", nil); a.StatusCode != 200 {
			t.Errorf("HEAD with no room: %d, want 200: nothing is decoded", a.StatusCode)
		}
		if a := g.get("/l", "Accept-Encoding: gzip"); a.StatusCode != 200 {
			t.Errorf("who takes it as it is, with no room: %d, want 200", a.StatusCode)
		}
		g.proxy.decoders.bytes.Add(-room)
		if a := g.get("/l", "Accept-Encoding: identity"); a.StatusCode != 200 || a.body != page {
			t.Errorf("with room again: %d, %d bytes; want the page", a.StatusCode, len(a.body))
		}
		settle() // a body is closed behind its last byte
		if n := g.proxy.decoders.bytes.Load(); n != 0 {
			t.Errorf("%d bytes are held behind the answers, want 0", n)
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: %d, want 1", n)
		}
	})
}
