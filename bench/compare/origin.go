//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/valyala/fasthttp"
)

// host is the school that everybody asks for.
const host = "s01.school.example"

// An origin is what all proxies stand before. It answers:
//
//	GET  /media/N     N bytes that do not shrink, fresh for an hour
//	GET  /lessons/N   N bytes of text, plain
//	GET  /coded/N     N bytes of text, in gzip for those who take it
//	GET  /page/…      1 KiB that is one user's alone
//	GET  /slow/…      20 KiB after a second, fresh for an hour
//	GET  /alone/…     1 KiB after 200 ms that nobody may share
//	GET  /dribble/…   5 MiB over two seconds, fresh for an hour
//	POST …            {}
type origin struct {
	addr  string
	asked atomic.Int64                            // requests so far
	posts atomic.Pointer[func(body []byte) error] // what to do with a POST; nil: nothing
	web   *fasthttp.Server
	ready map[string]content // by path: what is asked for often
}

type content struct {
	kind         string
	plain, coded []byte
}

const dribbleBytes, dribbleTime = 5 << 20, 2 * time.Second

// startOrigin serves until the process ends.
func startOrigin() (*origin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{addr: ln.Addr().String(), ready: make(map[string]content)}
	for _, n := range []int{1 << 10, 20 << 10, 256 << 10, 1 << 20} {
		o.ready["/media/"+strconv.Itoa(n)] = content{kind: "image/png", plain: page(n, true)}
		text := page(n, false)
		o.ready["/lessons/"+strconv.Itoa(n)] = content{kind: "text/html; charset=utf-8", plain: text}
		o.ready["/coded/"+strconv.Itoa(n)] = content{kind: "text/html; charset=utf-8", plain: text, coded: gzipped(text)}
	}
	o.web = &fasthttp.Server{Handler: o.serve, NoDefaultServerHeader: true, Concurrency: 1 << 20, ReadBufferSize: 16 << 10}
	go func() { _ = o.web.Serve(ln) }() // ends with the process
	return o, nil
}

func gzipped(text []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, 6) // a valid level
	_, _ = z.Write(text)               // into memory
	_ = z.Close()
	return b.Bytes()
}

// page is text that shrinks to about a third, as lessons do, or media that do
// not shrink.
func page(size int, media bool) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	b := make([]byte, 0, size+24)
	for len(b) < size {
		if media {
			b = append(b, byte(rng.Uint32()))
		} else {
			b = fmt.Appendf(b, "<p>%d</p> lesson ", rng.IntN(1e6))
		}
	}
	return b[:size]
}

func (o *origin) serve(ctx *fasthttp.RequestCtx) {
	o.asked.Add(1)
	if ctx.IsPost() {
		o.takePost(ctx)
		return
	}
	path := string(ctx.Path())
	if c, ok := o.ready[path]; ok {
		o.send(ctx, c)
		return
	}
	h := &ctx.Response.Header
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch kind {
	case "page":
		h.Set("Cache-Control", "private, no-store")
		ctx.SetContentType("application/json")
		ctx.SetBodyString(ownPage)
	case "slow":
		time.Sleep(time.Second)
		o.send(ctx, content{kind: "image/png", plain: o.ready["/media/20480"].plain})
	case "alone":
		time.Sleep(200 * time.Millisecond)
		h.Set("Cache-Control", "no-store")
		ctx.SetBodyString(ownPage)
	case "dribble":
		fresh(h)
		ctx.SetContentType("image/png")
		ctx.SetBodyStreamWriter(dribble)
	default: // one of many small stored responses: /many/N
		fresh(h)
		ctx.SetContentType("image/png")
		ctx.SetBody(o.ready["/media/1024"].plain)
	}
}

var ownPage = `{"student_id":"s1","lessons":["` + strings.Repeat("x", 1000) + `"]}`

func (o *origin) takePost(ctx *fasthttp.RequestCtx) {
	if do := o.posts.Load(); do != nil {
		if err := (*do)(ctx.PostBody()); err != nil {
			ctx.Error(err.Error(), 500)
			return
		}
	}
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.SetContentType("application/json")
	ctx.SetBodyString("{}")
}

func fresh(h *fasthttp.ResponseHeader) { h.Set("Cache-Control", "public, max-age=3600") }

func (o *origin) send(ctx *fasthttp.RequestCtx, c content) {
	h := &ctx.Response.Header
	fresh(h)
	h.Set("ETag", `"v1"`)
	h.Set("Last-Modified", "Mon, 02 Mar 2026 06:00:00 GMT")
	ctx.SetContentType(c.kind)
	body := c.plain
	if c.coded != nil {
		h.Set("Vary", "Accept-Encoding")
		if bytes.Contains(ctx.Request.Header.Peek("Accept-Encoding"), []byte("gzip")) {
			h.Set("Content-Encoding", "gzip")
			h.Set("ETag", `"v1-gzip"`)
			body = c.coded
		}
	}
	ctx.SetBody(body)
}

// dribble writes the content in 64 pieces, the first at once.
func dribble(w *bufio.Writer) {
	piece := page(dribbleBytes/64, true)
	for i := range 64 {
		if i > 0 {
			time.Sleep(dribbleTime / 63)
		}
		if _, err := w.Write(piece); err != nil {
			return
		}
		if err := w.Flush(); err != nil {
			return
		}
	}
}
