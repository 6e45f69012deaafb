package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"

	"firstbell/cache"
	"firstbell/proxy/http3"
)

// h3Client speaks HTTP/3 byte by byte.
type h3Client struct {
	*quic.Conn
	t       *testing.T
	control *quic.SendStream
}

const (
	dataFrame, headersFrame = 0x00, 0x01
	settingsFrame           = "\x00\x04\x00" // a control stream that begins
)

// newH3Gate is a gate that speaks HTTP/3, whatever the others do.
func newH3Gate(t *testing.T, answer http.HandlerFunc, routes func(*Upstream) []*Route) *gate {
	t.Helper()
	g := newGate(t, answer, routes)
	if g.wires == nil {
		g.startHTTP3()
	}
	return g
}

// connect opens a connection, and its control stream.
func (g *gate) connect() *h3Client {
	g.t.Helper()
	c := g.connectSilently()
	c.control = c.uni(settingsFrame)
	return c
}

func (g *gate) connectSilently() *h3Client {
	g.t.Helper()
	q, err := g.dialQUIC(context.Background(), clientTLS("school.example", ProtocolHTTP3), &quic.Config{MaxIdleTimeout: time.Hour})
	if err != nil {
		g.t.Fatal(err)
	}
	c := &h3Client{Conn: q, t: g.t}
	g.t.Cleanup(func() { q.CloseWithError(0x100, ""); settle() })
	return c
}

// uni opens a unidirectional stream that begins with text.
func (c *h3Client) uni(text string) *quic.SendStream {
	c.t.Helper()
	s, err := c.OpenUniStreamSync(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	io.WriteString(s, text)
	return s
}

func h3Frame(kind byte, payload string) string {
	n := len(payload)
	return string([]byte{kind, byte(n>>24) | 0x80, byte(n >> 16), byte(n >> 8), byte(n)}) + payload
}

// h3Section encodes "name: value" lines.
func h3Section(lines ...string) string {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for _, l := range lines {
		name, value, _ := strings.Cut(l[1:], ": ")
		if err := e.WriteField(qpack.HeaderField{Name: l[:1] + name, Value: value}); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// h3Head is a HEADERS frame for a request of school.example.
func h3Head(method, path string, lines ...string) string {
	return h3Frame(headersFrame, h3Section(append([]string{":method: " + method, ":scheme: https", ":authority: school.example", ":path: " + path}, lines...)...))
}

// open sends text on a stream of its own.
func (c *h3Client) open(text string) *quic.Stream {
	c.t.Helper()
	s, err := c.OpenStreamSync(context.Background())
	if err != nil {
		c.t.Fatalf("opening a stream: %v", err)
	}
	s.SetDeadline(time.Now().Add(5 * time.Minute))
	io.WriteString(s, text) // it may be stopped before the end
	return s
}

// ask sends text as a whole request and reads the answer.
func (c *h3Client) ask(text string) (*h3Answer, error) {
	s := c.open(text)
	s.Close()
	defer calm()
	return readH3(s)
}

// h3Answer is an answer as it came.
type h3Answer struct {
	informed []string // heads of informational responses
	head     string   // "name: value" lines
	body     string
	trailers string
}

// readH3 reads an answer to its end.
func readH3(s io.Reader) (*h3Answer, error) {
	a := new(h3Answer)
	var m http3.Message
	m.Reset(s)
	for {
		section, err := m.Head(64 << 10)
		if err != nil {
			return a, err
		}
		a.head = h3Lines(section)
		if !strings.HasPrefix(a.head, ":status: 1") {
			break
		}
		a.informed = append(a.informed, a.head)
	}
	var body strings.Builder
	_, err := io.Copy(&body, &m)
	a.body = body.String()
	if m.Trailers() != nil {
		a.trailers = h3Lines(m.Trailers())
	}
	return a, err
}

func h3Lines(section []byte) string {
	var b strings.Builder
	if err := http3.Section(bytes.Clone(section), func(name, value string) error {
		fmt.Fprintf(&b, "%s: %s\n", name, value)
		return nil
	}); err != nil {
		return err.Error()
	}
	return b.String()
}

// ended is how a stream or its connection was ended by the other side: the
// code, and whether it was the connection.
func ended(err error) (code http3.Code, connection bool) {
	var s *quic.StreamError
	var c *quic.ApplicationError
	switch {
	case errors.As(err, &s) && s.Remote:
		return http3.Code(s.ErrorCode), false
	case errors.As(err, &c) && c.Remote:
		return http3.Code(c.ErrorCode), true
	}
	return 0, false
}

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=60")
	io.WriteString(w, "hello")
}

func TestMalformedRequestsOfHTTP3GetTheirStreamError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, cached(cache.Policy{}))
		c := g.connect()
		good := []string{":method: GET", ":scheme: https", ":authority: school.example", ":path: /"}
		for what, sent := range map[string]string{
			"no :scheme":                      h3Frame(headersFrame, h3Section(good[0], good[2], good[3])),
			"no :method":                      h3Frame(headersFrame, h3Section(good[1:]...)),
			"no :path":                        h3Frame(headersFrame, h3Section(good[:3]...)),
			"no authority":                    h3Frame(headersFrame, h3Section(good[0], good[1], good[3])),
			"a pseudo-field behind fields":    h3Frame(headersFrame, h3Section(good[0], good[1], good[2], "accept: x", good[3])),
			"a pseudo-field twice":            h3Frame(headersFrame, h3Section(append(good, ":path: /a")...)),
			"a pseudo-field of responses":     h3Frame(headersFrame, h3Section(append(good, ":status: 200")...)),
			"a protocol to GET":               h3Frame(headersFrame, h3Section(append(good, ":protocol: websocket")...)),
			"extended CONNECT without a path": h3Frame(headersFrame, h3Section(":method: CONNECT", ":protocol: websocket", good[1], good[2])),
			"upper case":                      h3Head("GET", "/", "Accept: x"),
			"Connection":                      h3Head("GET", "/", "connection: close"),
			"Transfer-Encoding":               h3Head("POST", "/", "transfer-encoding: chunked"),
			"TE for more than trailers":       h3Head("GET", "/", "te: gzip"),
			"a line's end in a value":         h3Head("GET", "/", "a: b\r\nc: d"),
			"a Content-Length of words":       h3Head("GET", "/", "content-length: ten"),
			"two Content-Lengths":             h3Head("GET", "/", "content-length: 0", "content-length: 0"),
			"content where none is announced": h3Head("GET", "/", "content-length: 0") + h3Frame(dataFrame, "x"),
			"a Host for somebody else":        h3Head("GET", "/", "host: other.example"),
		} {
			a, err := c.ask(sent)
			if code, all := ended(err); code != http3.MessageError || all {
				t.Errorf("%s: got %q, %v; want the stream's H3_MESSAGE_ERROR", what, a.head, err)
			}
		}
		// Those whose content shows it are on their way to the origin by then.
		for what, sent := range map[string]string{
			"content shorter than announced": h3Head("POST", "/", "content-length: 5") + h3Frame(dataFrame, "abc"),
			"content longer than announced":  h3Head("POST", "/", "content-length: 2") + h3Frame(dataFrame, "abc"),
			"a pseudo-field in trailers":     h3Head("POST", "/") + h3Frame(dataFrame, "abc") + h3Frame(headersFrame, h3Section(":path: /")),
			"a bad name in trailers":         h3Head("POST", "/") + h3Frame(dataFrame, "abc") + h3Frame(headersFrame, h3Section("Bad: x")),
		} {
			g.proxy.Swap(NewTable(plain(g.upstream)))
			a, err := c.ask(sent)
			if code, all := ended(err); code != http3.MessageError || all {
				t.Errorf("%s: got %q, %v; want the stream's H3_MESSAGE_ERROR", what, a.head, err)
			}
		}
		if n := g.proxy.Stats().Malformed; n["pseudo-missing"] != 4 || n["connection-field"] != 3 || n["content"] != 3 {
			t.Errorf("counted %v; want 4 pseudo-missing, 3 connection-field, 3 content", n)
		}
		if a, err := c.ask(h3Head("GET", "/")); a.body != "hello" || err != nil {
			t.Errorf("the next request: %q, %v; want it answered on the same connection", a.body, err)
		}
	})
}

func TestBreachesOfHTTP3EndTheConnection(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		for what, c := range map[string]struct {
			uni, request string
			want         http3.Code
		}{
			"content before a head":       {"", h3Frame(dataFrame, "x"), http3.FrameUnexpected},
			"SETTINGS on a request":       {"", "\x04\x00", http3.FrameUnexpected},
			"a frame cut by the end":      {"", h3Head("GET", "/")[:20], http3.FrameError},
			"a section of another table":  {"", h3Frame(headersFrame, "\x01\x00\x80"), http3.DecompressionFailed},
			"two control streams":         {settingsFrame, "", http3.StreamCreationError},
			"a push of the client's":      {"\x01\x00", "", http3.StreamCreationError},
			"an insert into no table":     {"\x02\xc1\x01x", "", http3.EncoderStreamError},
			"an acknowledgement of none":  {"\x03\x80", "", http3.DecoderStreamError},
			"unknown frames without end":  {"", strings.Repeat(h3Frame(0x21, strings.Repeat("x", 1000)), 80), http3.ExcessiveLoad},
			"a head that is far too long": {"", h3Frame(headersFrame, strings.Repeat("x", 100<<10)), http3.ExcessiveLoad},
		} {
			client := g.connect()
			arrive()
			if c.uni != "" {
				client.uni(c.uni)
			}
			if c.request != "" {
				client.open(c.request).Close()
			}
			<-client.Context().Done()
			if code, all := ended(context.Cause(client.Context())); code != c.want || !all {
				t.Errorf("%s: got %v, want the connection's %v", what, context.Cause(client.Context()), c.want)
			}
			if n := g.proxy.Stats().HTTP3.ProtocolErrors[c.want.String()]; n == 0 {
				t.Errorf("%s: %v is not counted", what, c.want)
			}
		}
		for what, breach := range map[string]func(c *h3Client){
			"the control stream ends":   func(c *h3Client) { c.control.Close() },
			"the control stream resets": func(c *h3Client) { c.control.CancelWrite(0) },
		} {
			client := g.connect()
			arrive()
			breach(client)
			<-client.Context().Done()
			if code, _ := ended(context.Cause(client.Context())); code != http3.ClosedCriticalStream {
				t.Errorf("%s: got %v, want H3_CLOSED_CRITICAL_STREAM", what, context.Cause(client.Context()))
			}
		}
	})
}

func TestWhatHTTP3MayRefuseIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		c := g.connect()
		many := make([]string, 200)
		for i := range many {
			many[i] = "x: 1"
		}
		for what, one := range map[string]struct{ sent, status string }{
			"too many fields":      {h3Head("GET", "/", many...), "431"},
			"too large a head":     {h3Head("GET", "/", "x: "+strings.Repeat("y", 20<<10)), "431"},
			"another expectation":  {h3Head("POST", "/", "expect: more"), "417"},
			"CONNECT":              {h3Frame(headersFrame, h3Section(":method: CONNECT", ":authority: school.example:443")), "501"},
			"a dot segment":        {h3Head("GET", "/a/../b"), "400"},
			"the scheme of others": {h3Frame(headersFrame, h3Section(":method: GET", ":scheme: http", ":authority: school.example", ":path: /")), "400"},
			"another host":         {h3Frame(headersFrame, h3Section(":method: GET", ":scheme: https", ":authority: other.example", ":path: /")), "421"},
			"a host that is none":  {h3Frame(headersFrame, h3Section(":method: GET", ":scheme: https", ":authority: a b", ":path: /")), "400"},
		} {
			a, err := c.ask(one.sent)
			if err != nil || !strings.HasPrefix(a.head, ":status: "+one.status+"\n") {
				t.Errorf("%s: got %q, %v; want %s", what, a.head, err, one.status)
			}
		}
		if n := len(g.fetched()); n != 0 {
			t.Errorf("%d of them reached the origin", n)
		}
		s := c.open(h3Head("GET", "/")[:10]) // and then nothing
		a, err := readH3(s)
		if !strings.HasPrefix(a.head, ":status: 408\n") {
			t.Errorf("a head that does not end: %q, %v; want 408", a.head, err)
		}
	})
}

func TestTrailersAndInformationalResponsesOverHTTP3(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		got := make(chan string, 1)
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(103)
			w.Header().Del("Link")
			body, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(body), err, r.Trailer)
			w.Header().Set("Trailer", "Digest")
			io.WriteString(w, "wiki")
			w.(http.Flusher).Flush()
			w.Header().Set("Digest", "sha=1")
		}, plain)
		c := g.connect()
		s := c.open(h3Head("POST", "/", "te: trailers", "expect: 100-continue"))
		time.Sleep(time.Second)
		io.WriteString(s, h3Frame(dataFrame, "con")+h3Frame(dataFrame, "tent")+h3Frame(headersFrame, h3Section("checksum: 7")))
		s.Close()
		a, err := readH3(s)
		if err != nil || a.body != "wiki" || a.trailers != "digest: sha=1\n" || !strings.Contains(a.head, "trailer: Digest\n") {
			t.Errorf("got %+v, %v; want wiki, and its digest behind it", a, err)
		}
		if informed := strings.Join(a.informed, ""); !strings.Contains(informed, ":status: 100\n") || !strings.Contains(informed, ":status: 103\nlink: </a.css>; rel=preload\n") {
			t.Errorf("informed of %q, want 100 and 103 with its link", informed)
		}
		if sent := <-got; sent != "content<nil> map[Checksum:[7]]" {
			t.Errorf("the origin got %q, want the content and its trailer", sent)
		}
		if a, err := c.ask(h3Head("GET", "/")); err != nil || a.trailers != "" || a.body != "wiki" {
			t.Errorf("who takes no trailers got %+v, %v", a, err)
		}
	})
}

// Somebody who gives a request up frees what it holds at the origin.
func TestARequestGivenUpOverHTTP3EndsAtTheOrigin(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for _, half := range []string{"both", "reading"} {
			inBubble(t, func(t *testing.T) {
				over := make(chan struct{})
				routes := plain
				if shared {
					routes = cached(cache.Policy{})
				}
				g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) {
					if shared {
						w.Header().Set("Cache-Control", "max-age=60")
						w.(http.Flusher).Flush()
					}
					<-r.Context().Done()
					close(over)
				}, routes)
				c := g.connect()
				s := c.open(h3Head("GET", "/"))
				s.Close()
				time.Sleep(time.Second)
				s.CancelRead(quic.StreamErrorCode(http3.RequestCancelled))
				if half == "both" {
					s.CancelWrite(quic.StreamErrorCode(http3.RequestCancelled))
				}
				select {
				case <-over:
				case <-time.After(time.Minute):
					t.Errorf("shared %v, %s: the origin still works a minute after", shared, half)
				}
				time.Sleep(time.Second)
				st := g.proxy.Stats()
				if g.upstream.Limit.Stats().InUse != 0 || st.HTTP3.RequestsLeft != 1 {
					t.Errorf("shared %v: %d places held, %d given up counted; want 0 and 1", shared, g.upstream.Limit.Stats().InUse, st.HTTP3.RequestsLeft)
				}
			})
		}
	}
}

// An upload that the client gives up never reaches the origin as a whole one.
func TestAnUploadCutOverHTTP3IsNoWholeOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		whole := make(chan string, 10)
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) {
			if b, err := io.ReadAll(r.Body); err == nil {
				whole <- string(b)
			}
		}, plain)
		c := g.connect()
		for what, sent := range map[string]string{
			"between frames":      h3Head("POST", "/") + h3Frame(dataFrame, "abc"),
			"within a frame":      h3Head("POST", "/") + h3Frame(dataFrame, "abc")[:7],
			"short of its length": h3Head("POST", "/", "content-length: 10") + h3Frame(dataFrame, "abc"),
			"behind trailers":     h3Head("POST", "/") + h3Frame(headersFrame, h3Section("a: b")),
		} {
			s := c.open(sent)
			arrive()
			s.CancelWrite(quic.StreamErrorCode(http3.RequestCancelled))
			time.Sleep(time.Second)
			select {
			case b := <-whole:
				t.Errorf("%s: the origin got %q as a whole request", what, b)
			default:
			}
		}
		if a, err := c.ask(h3Head("POST", "/") + h3Frame(dataFrame, "abc")); err != nil || <-whole != "abc" {
			t.Errorf("a whole one: %+v, %v", a, err)
		}
	})
}

func TestAConnectionThatOnlyGivesUpIsEnded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second) }, plain)
		c := g.connect()
		most := 0
		for range 10 * resetsMax {
			s, err := c.OpenStreamSync(context.Background())
			if err != nil {
				break
			}
			io.WriteString(s, h3Head("GET", "/"))
			s.CancelRead(quic.StreamErrorCode(http3.RequestCancelled))
			s.CancelWrite(quic.StreamErrorCode(http3.RequestCancelled))
			most = max(most, g.upstream.Limit.Stats().InUse)
		}
		<-c.Context().Done()
		if code, all := ended(context.Cause(c.Context())); code != http3.ExcessiveLoad || !all {
			t.Errorf("got %v, want the connection's H3_EXCESSIVE_LOAD", context.Cause(c.Context()))
		}
		if most > quicStreamsMax {
			t.Errorf("%d requests were at the origin at once, want at most %d", most, quicStreamsMax)
		}
		// Who seeks in a film gives up a few a second, and stays.
		c = g.connect()
		for range 2 * resetsMax {
			s := c.open(h3Head("GET", "/"))
			time.Sleep(100 * time.Millisecond)
			s.CancelRead(quic.StreamErrorCode(http3.RequestCancelled))
			s.Close()
		}
		if a, err := c.ask(h3Head("GET", "/")); err != nil || !strings.HasPrefix(a.head, ":status: 200") {
			t.Errorf("who gave up ten a second: %q, %v; want to be answered still", a.head, err)
		}
	})
}

func TestStreamsOfUnknownTypesAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		c := g.connect()
		for range 3 {
			c.uni("\x21what a browser sends now and then").Close()
		}
		if a, err := c.ask(h3Head("GET", "/")); a.body != "hello" || err != nil {
			t.Errorf("beside some: %q, %v; want to be answered", a.body, err)
		}
		for range 2 * strangeStreamsMax {
			s, err := c.OpenUniStreamSync(c.Context())
			if err != nil {
				break
			}
			io.WriteString(s, "\x21x")
			s.Close()
		}
		<-c.Context().Done()
		if code, _ := ended(context.Cause(c.Context())); code != http3.ExcessiveLoad {
			t.Errorf("got %v, want H3_EXCESSIVE_LOAD", context.Cause(c.Context()))
		}
	})
}

func TestAConnectionOfHTTP3HoldsSoManyRequests(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		release := make(chan struct{})
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) { <-release }, plain)
		c := g.connect()
		for range quicStreamsMax {
			c.open(h3Head("GET", "/")).Close()
		}
		time.Sleep(time.Second)
		if s, err := c.OpenStream(); err == nil {
			t.Errorf("stream %d was opened beyond %d under way", s.StreamID(), quicStreamsMax)
		}
		close(release)
		time.Sleep(time.Second)
		if _, err := c.OpenStream(); err != nil {
			t.Errorf("after the answers: %v, want room for others", err)
		}
	})
}

func TestAnIdleConnectionOfHTTP3IsEndedPolitely(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, hello, plain)
		c := g.connect()
		c.ask(h3Head("GET", "/"))
		began := time.Now()
		for c.Context().Err() == nil && time.Since(began) < time.Hour {
			c.uni("\x21").CancelWrite(0) // a sign of life, but no request
			time.Sleep(20 * time.Second)
		}
		if code, all := ended(context.Cause(c.Context())); code != http3.NoError || !all || time.Since(began) > 3*time.Minute {
			t.Errorf("after %v: %v; want H3_NO_ERROR after 75 s", time.Since(began), context.Cause(c.Context()))
		}
	})
}

// A drain answers what is under way and what is on its way, and tells clients
// where they may stop waiting.
func TestDrainingOverHTTP3LosesNoRequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			io.WriteString(w, "done")
		}, plain)
		c := g.connect()
		in, err := c.AcceptUniStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan string, 1)
		go func() {
			all, _ := io.ReadAll(in)
			said <- string(all)
		}()
		s := c.open(h3Head("GET", "/first"))
		s.Close()
		time.Sleep(time.Second)
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			ended <- g.proxy.Shutdown(ctx)
		}()
		time.Sleep(drainMoment / 2)
		late := c.open(h3Head("GET", "/on-its-way"))
		late.Close()
		time.Sleep(drainMoment)
		refused := c.open(h3Head("GET", "/too-late"))
		refused.Close()
		for _, s := range []*quic.Stream{s, late} {
			if a, err := readH3(s); a.body != "done" || err != nil {
				t.Errorf("stream %d: %q, %v; want it answered", s.StreamID(), a.body, err)
			}
		}
		var e *quic.StreamError
		if _, err := readH3(refused); !errors.As(err, &e) || http3.Code(e.ErrorCode) != http3.RequestRejected {
			t.Errorf("who came behind GOAWAY: %v; want H3_REQUEST_REJECTED", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		want := "\x07\x08\xff\xff\xff\xff\xff\xff\xff\xfc\x07\x01\x08"
		if got := <-said; !strings.HasSuffix(got, want) {
			t.Errorf("the control stream said %q, want two GOAWAYs at its end: %q", got, want)
		}
		for _, path := range g.fetched() {
			if strings.Contains(path, "too-late") {
				t.Error("what was rejected reached the origin")
			}
		}
	})
}

// The client of a broken answer sees that it is broken.
func TestABrokenAnswerOverHTTP3IsNoWholeOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, length := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
			g, _ := newRawGate(t, plain, says("HTTP/1.1 200 OK\r\n"+length))
			if g.wires == nil {
				g.startHTTP3()
			}
			a, err := g.connect().ask(h3Head("GET", "/"))
			if code, all := ended(err); code != http3.InternalError || all || a.body != "abc" {
				t.Errorf("%q: got %q, %v; want what there was, and H3_INTERNAL_ERROR", length, a.body, err)
			}
		}
	})
}

func TestAltSvcTellsOfHTTP3OverTLSAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newH3Gate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Alt-Svc", `h3="elsewhere:443"`)
			hello(w, r)
		}, cached(cache.Policy{}))
		if g.secure == nil {
			g.startTLS()
		}
		for range 2 {
			for secure, want := range map[bool]string{false: "", true: `Alt-Svc: h3=":1"; ma=86400` + "\r\n"} {
				got := g.raw("GET / HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
				if secure {
					got = g.rawOverTLS("GET / HTTP/1.1\r\nHost: school.example\r\nConnection: close\r\n\r\n")
				}
				if !strings.Contains(got, want) || (want != "") != strings.Contains(got, "Alt-Svc") || strings.Contains(got, "elsewhere") {
					t.Errorf("over TLS %v: got %q, want %q and nothing of the origin's", secure, got, want)
				}
			}
		}
	})
}
