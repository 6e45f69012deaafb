package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Endpoint is where a sink sends to. Zero bounds take their defaults.
type Endpoint struct {
	URL     string        // http or https
	Header  http.Header   // sent with every request, such as Authorization
	Timeout time.Duration // for one request and all of its answer; 30 s
	Coding  string        // of requests: gzip, zstd or none; empty: none

	// Dial replaces the network; nil: the machine's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	defaultTimeout = 30 * time.Second

	// answerBytesMax bounds an answer: a thousand verdicts with long reasons.
	answerBytesMax = 4 << 20
)

// endpoint sends requests one after the other, or a few at once. It follows no
// redirect and repeats nothing by itself.
type endpoint struct {
	url    string
	header atomic.Pointer[http.Header]
	client *http.Client
	coding string
	zstd   *zstd.Encoder
}

// newEndpoint makes an endpoint for so many requests at once. what is an
// example of its URL.
func newEndpoint(c *Endpoint, atOnce int, eg string) (*endpoint, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("opening sink %q: want an http or https URL, such as %s", c.URL, eg)
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	e := &endpoint{url: c.URL, coding: c.Coding}
	e.setHeader(c.Header)
	switch c.Coding {
	case "", "none":
		e.coding = ""
	case "gzip":
	case "zstd":
		if e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); err != nil {
			return nil, fmt.Errorf("opening sink %s: %w", u.Redacted(), err)
		}
	default:
		return nil, fmt.Errorf("opening sink %s: there is no coding %q; want gzip, zstd or none", u.Redacted(), c.Coding)
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	e.client = &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext:           dial,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: timeout,
			IdleConnTimeout:       time.Minute,
			MaxConnsPerHost:       atOnce,
			MaxIdleConnsPerHost:   atOnce,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// setHeader changes what is sent with every request from now on.
func (e *endpoint) setHeader(h http.Header) { e.header.Store(&h) }

func (e *endpoint) close() { e.client.CloseIdleConnections() }

// answered is a response that has been read.
type answered struct {
	status int
	header http.Header
	body   []byte // cut off behind answerBytesMax
}

// do sends one request to target and reads the answer. Fields come in pairs of
// name and value and go before those that every request has. An error means
// that there is no answer; it names neither target nor credential.
func (e *endpoint) do(ctx context.Context, method, target string, content []byte, fields ...string) (*answered, error) {
	coded := len(content) > 0 && e.coding != ""
	if coded {
		content = e.encode(content)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(content))
	if err != nil {
		return nil, withoutURL(err)
	}
	for name, values := range *e.header.Load() {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("User-Agent", "firstbell")
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	if coded {
		req.Header.Set("Content-Encoding", e.coding)
	}
	res, err := e.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", withoutURL(err))
	}
	return &answered{status: res.StatusCode, header: res.Header, body: body}, nil
}

func (e *endpoint) encode(content []byte) []byte {
	if e.zstd != nil {
		return e.zstd.EncodeAll(content, nil)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(content) // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// withoutURL drops the URL from an error of net/http: it may hold credentials.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
