package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"firstbell/proxy/field"
	"firstbell/proxy/head"
	"firstbell/proxy/http3"
)

// h3Upload is a request's content. It is read by one goroutine at a time, which
// need not be the connection's own, and knows a cut from an end.
type h3Upload struct {
	h      *h3
	took   int64
	err    error      // the reads' last word
	broke  error      // how the content broke the protocol; the stream ends with it
	asked  bool       // 100 Continue was sent, or nobody waits for it
	behind *head.Head // the trailer section; nil when there is none

	patience time.Duration // how long the client may be waited for: it earns more by what it sends

	mu      sync.Mutex // guards stopped, and the read deadline with it
	stopped bool
}

func (u *h3Upload) begin(h *h3) {
	*u = h3Upload{h: h, asked: !h.head.Continue, patience: h.limits.Grace}
}

// stop makes the Read under way, and every later one, return soon.
func (u *h3Upload) stop() {
	if u.h == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	_ = u.h.lane.SetReadDeadline(time.Unix(1, 0)) // never fails
}

// Read implements io.Reader. Content cut off by the client ends with
// io.ErrUnexpectedEOF.
func (u *h3Upload) Read(p []byte) (n int, err error) {
	if u.err != nil || len(p) == 0 {
		return 0, u.err
	}
	if !u.asked {
		u.asked = true
		u.h.informOnce(http3.AppendStatus(nil, http.StatusContinue))
	}
	n, u.err = u.receive(p)
	return n, u.err
}

func (u *h3Upload) receive(p []byte) (n int, err error) {
	u.mu.Lock()
	if u.stopped {
		u.mu.Unlock()
		return 0, errStopped
	}
	began, limits := time.Now(), u.h.limits
	_ = u.h.lane.SetReadDeadline(began.Add(u.patience)) // never fails
	u.mu.Unlock()
	n, err = u.h.message.Read(p)
	u.took += int64(n)
	u.patience = min(u.patience-time.Since(began)+limits.earned(int64(n)), limits.Grace)
	announced := u.h.head.Length
	more := false
	if err == nil && u.took == announced {
		// Who reads no more than was announced would not see what is behind it.
		if more, err = u.h.message.More(); err == nil && !more {
			err = io.EOF
		}
	}
	switch {
	case more, announced >= 0 && u.took > announced, err == io.EOF && announced >= 0 && u.took < announced:
		u.broke = head.RefuseContent
		return 0, u.broke
	case err == io.EOF:
		if u.broke = u.trailers(); u.broke != nil {
			return 0, u.broke
		}
		return n, io.EOF
	case err == nil:
		return n, nil
	}
	var refusal *http3.Error
	if errors.As(err, &refusal) {
		u.broke = refusal
		return n, refusal
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
		return n, errStopped
	case timedOut(err):
		u.h.parted[partedBody].Add(1)
		return n, errSlow
	}
	return n, cutShort(err)
}

// trailers reads the trailer section.
func (u *h3Upload) trailers() error {
	section := u.h.message.Trailers()
	if section == nil {
		return nil
	}
	u.behind = new(head.Head)
	u.behind.ResetTrailers()
	if err := http3.Section(section, u.behind.Add); err != nil {
		return err
	}
	return u.behind.End()
}

// trailer returns the trailer fields, once the content has ended.
func (u *h3Upload) trailer() field.List {
	if u.err != io.EOF || u.behind == nil {
		return nil
	}
	return field.Copy(u.behind, nil)
}
