package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"

	"firstbell/cache"
	"firstbell/proxy/field"
)

const (
	// codedBytesMin: below a KiB a lesson fits one packet either way.
	codedBytesMin = 1 << 10
	// codedBytesMax bounds content that is coded here, and what a coding is
	// decoded to for keeping: more is passed on in the coding that it has.
	codedBytesMax = 8 << 20
	// codingJobsMax and codingBytesMax bound what waits to be coded. A job holds
	// on to a body that the cache may have dropped meanwhile.
	codingJobsMax  = 1024
	codingBytesMax = 32 << 20
	// codedShare: a coding that saves less than a 16th is left.
	codedShare = 16
)

// coder makes variants of stored responses in other codings, in the
// background: each once, however often it is served. Its goroutines end when
// there is nothing to do.
type coder struct {
	p          *Proxy
	workersMax int

	mu      sync.Mutex // guards what follows
	jobs    []codingJob
	bytes   int64 // of the bodies in jobs
	workers int
	closed  bool

	full    atomic.Bool // jobs has no room: nobody needs to ask for the lock
	made    [cache.Codings]atomic.Int64
	left    atomic.Int64
	dropped atomic.Int64
}

// codingJob is to make the variant of s in the coding to.
type codingJob struct {
	s  *cache.Stored
	to cache.Coding
}

// newCoder uses a quarter of the processors, one at least: at nine o'clock
// the others are for those who ask.
func newCoder(p *Proxy) *coder {
	return &coder{p: p, workersMax: max(1, runtime.GOMAXPROCS(0)/4)}
}

// wish notes that the client of x would be served better by s in the coding,
// and has that made when it is worth it. It is called on every hit: where the
// variant is there, asked for already or not worth keeping it only reads. What
// is too large for memory stays in the coding that it has on disk.
func (p *Proxy) wish(x *exchange, s *cache.Stored, to cache.Coding) {
	if to == cache.OtherCoding || s.Large() || s.In(to) != nil || to != cache.Identity && x.route.Uncoded || p.coder.full.Load() {
		return
	}
	if s.Wish(to) {
		p.coder.add(codingJob{s, to})
	}
}

// add queues a job, or drops it when there is no room.
func (c *coder) add(j codingJob) {
	if !codable(j.s.Status, j.s.Fields, -1) && j.to != cache.Identity || cache.Untouchable(j.s.Fields) {
		c.p.cache.LeaveCoded(j.s, j.to)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := j.s.Length()
	if c.closed || len(c.jobs) == codingJobsMax || c.bytes+size > codingBytesMax && len(c.jobs) > 0 {
		c.full.Store(true)
		c.dropped.Add(1)
		j.s.Unwish(j.to)
		return
	}
	c.jobs, c.bytes = append(c.jobs, j), c.bytes+size
	if c.workers < c.workersMax {
		c.workers++
		c.p.work.Go(c.work)
	}
}

// close takes no more jobs and forgets those that wait.
func (c *coder) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.jobs, c.bytes = true, nil, 0
	c.full.Store(true)
}

// work does jobs until there are none.
func (c *coder) work() {
	for {
		c.mu.Lock()
		if len(c.jobs) == 0 {
			c.workers--
			c.jobs = nil
			c.full.Store(c.closed)
			c.mu.Unlock()
			return
		}
		j := c.jobs[0]
		c.jobs[0] = codingJob{}
		c.jobs, c.bytes = c.jobs[1:], c.bytes-j.s.Length()
		c.full.Store(false)
		c.mu.Unlock()
		c.do(j)
	}
}

// do makes one variant. What cannot be coded, or is not worth it, is left for
// as long as the response is stored.
func (c *coder) do(j codingJob) {
	defer func() {
		if e := recover(); e != nil {
			c.p.counters.panics.Add(1)
			c.p.log.Error("coding a stored response panicked", "panic", e, "coding", j.to.String(), "stack", string(debug.Stack()))
			c.p.cache.LeaveCoded(j.s, j.to)
		}
	}()
	if !c.p.cache.Holds(j.s) {
		j.s.Unwish(j.to)
		return
	}
	body, err := codedBody(j.s, j.to)
	switch {
	case err != nil:
		c.left.Add(1)
		c.p.cache.LeaveCoded(j.s, j.to)
	case c.p.cache.KeepCoded(j.s, j.to, body):
		c.made[j.to].Add(1)
	}
}

var errNotWorthIt = errors.New("coding: saves too little")

// codedBody is the content of s in the coding.
func codedBody(s *cache.Stored, to cache.Coding) ([]byte, error) {
	whole, err := plainBody(s)
	if err != nil {
		return nil, err
	}
	if to == cache.Identity {
		return whole, nil
	}
	if len(whole) < codedBytesMin || len(whole) > codedBytesMax {
		return nil, errNotWorthIt
	}
	coded, err := encode(to, whole)
	if err != nil {
		return nil, err
	}
	if len(coded) > len(whole)-len(whole)/codedShare {
		return nil, errNotWorthIt
	}
	// It is served a million times: that it decodes to the same is looked at once.
	if again, err := decodeAll(to, coded); err != nil || !bytes.Equal(again, whole) {
		return nil, fmt.Errorf("coding: what %s made of %d bytes does not decode to them", to, len(whole))
	}
	return bytes.Clone(coded), nil // without the room that it grew in
}

// plainBody is the content of s without a coding.
func plainBody(s *cache.Stored) ([]byte, error) {
	if v := s.In(cache.Identity); v != nil {
		return v.Bytes(), nil
	}
	return decodeAll(s.Coding(), s.Bytes())
}

var errTooLarge = errors.New("decoding: too large to be kept")

// decodeAll is content that is kept decoded: no more than codedBytesMax.
func decodeAll(c cache.Coding, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	r, err := newDecoder(c, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(r, codedBytesMax+1))
	if err != nil {
		return nil, err
	}
	if n > codedBytesMax {
		return nil, errTooLarge
	}
	return bytes.Clone(buf.Bytes()), nil
}

// encode codes content. The levels are where more time stops paying, measured
// with lessons of 78 and 171 KB (bytes made, time of one core):
//
//	gzip    6: 23.5, 34.7 KB, 1 ms, 2 ms    9: 22.6, 33.6 KB, 8 ms, 7 ms
//	zstd    better: 23.6, 31.8 KB, 1 ms, 2 ms    best: 22.5, 30.5 KB, 3 ms, 8 ms, and 34 MB of tables
//	br      5: 21.7, 29.5 KB, 2 ms, 6 ms    9: 21.3, 28.9 KB, 6 ms, 7 ms    11: 18.9, 25.7 KB, 227 ms, 485 ms
//
// A hundred lessons in br 11 would take a core half a minute, when the bell
// rings.
func encode(to cache.Coding, whole []byte) ([]byte, error) {
	large := len(whole) > 1<<20
	switch to {
	case cache.Gzip:
		level := gzip.BestCompression
		if large {
			level = gzip.DefaultCompression
		}
		var buf bytes.Buffer
		w, err := gzip.NewWriterLevel(&buf, level)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(whole); err != nil {
			return nil, err
		}
		err = w.Close()
		return buf.Bytes(), err
	case cache.Zstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(zstdWindowMax))
		if err != nil {
			return nil, err
		}
		return enc.EncodeAll(whole, nil), nil
	case cache.Brotli:
		level := 9
		if large {
			level = 6
		}
		return brrr.Compress(whole, level)
	}
	return nil, fmt.Errorf("coding: %s is no coding made here", to)
}

// codable reports whether responses with this head are coded here: pages and
// other text, of a size that is worth it, which may be touched. length is -1
// where it is not known.
func codable(status int, fields field.List, length int64) bool {
	if status != 200 || 0 <= length && length < codedBytesMin || length > codedBytesMax {
		return false
	}
	return cache.CodingOf(fields) != cache.OtherCoding && textLike(fields.Get("Content-Type")) && !cache.Untouchable(fields)
}

// textLike reports the media types that shrink. text/event-stream never ends.
func textLike(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	switch {
	case media == "text/event-stream":
		return false
	case strings.HasPrefix(media, "text/"), strings.HasSuffix(media, "+json"), strings.HasSuffix(media, "+xml"):
		return true
	}
	return slices.Contains(shrinking, media)
}

var shrinking = []string{
	"application/javascript", "application/x-javascript", "application/ecmascript", "application/json",
	"application/x-ndjson", "application/jsonl", "application/xml", "application/wasm", "application/rtf",
	"application/vnd.ms-fontobject", "application/x-font-ttf", "application/vnd.apple.mpegurl", "application/x-mpegurl",
	"font/ttf", "font/otf", "font/collection", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
}
