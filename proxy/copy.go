package proxy

import (
	"io"
	"os"
)

// rest is what is left to be sent of an answer over HTTP/1.
type rest struct {
	body    source // nil: nothing
	length  int64  // of the whole; -1: not known
	chunked bool

	file  *os.File // where the n bytes that follow lie, from at on
	at, n int64
	reads bool // the others are read and written
}

// sendRest sends what is left of the answer, head first. When it has returned and
// there is still a rest, the client is to be waited for.
func (h *h1) sendRest(head []byte) {
	err := errPanicked
	defer func() {
		if err != errWaits {
			h.rest.body.Close()
			h.rest = rest{}
		}
	}()
	if err = h.copy(&h.exchange, head); err != nil && err != errWaits && h.err == nil {
		h.broken(err)
	}
}

// pace is what the client is held to while a part of the rest is sent.
func (h *h1) pace() pace {
	if h.canStepAside() {
		return brief{h.conn}
	}
	return h.conn
}

// copy writes the head, with the first piece where that is there already, and
// every other piece as it comes. With errWaits it is to be called again, without a
// head, once the client takes more.
func (h *h1) copy(x *exchange, head []byte) error {
	r := &h.rest
	body := r.body
	if files, ok := body.(fileSource); ok && !r.chunked && !r.reads && sendsFiles && r.length > 0 && h.conn.raw != nil {
		var done bool
		var err error
		if head, done, err = h.copyFile(x, head, files); done {
			return err
		}
		r.reads = true
	}
	if e, ok := body.(eager); len(head) > 0 && (!ok || !e.Ready()) {
		h.write(head, nil)
		head = h.out1[:0]
	}
	rests, _ := body.(resting)
	for h.err == nil {
		if rests != nil && x.sent > 0 && x.sent != r.length {
			rests.Rest()
			if err := h.awaitRoom(); err == errWaits {
				return err
			} else if h.err = err; err != nil {
				break
			}
		}
		p, err := body.Next()
		if err == io.EOF && (r.length < 0 || x.sent == r.length) {
			if r.chunked {
				head = append(appendTrailer(append(head, "0\r\n"...), x, body), "\r\n"...)
			}
			if len(head) > 0 {
				h.write(head, nil)
			}
			return h.err
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && r.length >= 0 && x.sent+int64(len(p)) > r.length {
			err = errTooLong
		}
		if err != nil {
			if len(head) > 0 {
				h.write(head, nil)
			}
			return err
		}
		if r.chunked {
			x.sent += int64(h.writeChunk(head, p))
		} else {
			x.sent += int64(h.write(head, p))
		}
		head = h.out1[:0]
	}
	return h.err
}

// awaitRoom returns once the client's socket takes a piece of the answer, so that
// nobody holds one until then; with errWaits when it should be waited for in the
// siding.
func (h *h1) awaitRoom() error {
	c := h.conn
	if c.raw == nil {
		return nil
	}
	if h.look == nil {
		h.look = func(fd uintptr) { h.room = writable(fd) }
	}
	h.room = false
	if err := c.raw.Control(h.look); err != nil || h.room {
		return err
	}
	if cap(h.out1) > outKeptMax {
		h.out1 = nil
	}
	return awaitRoom(c.raw, h.pace())
}

// outKeptMax is how much memory for what is written an exchange keeps while it
// waits for its client.
const outKeptMax = 1 << 10

// appendTrailer appends the trailer fields of a body to a client who takes them.
func appendTrailer(b []byte, x *exchange, body source) []byte {
	t, ok := body.(trailed)
	if !ok || !x.takesTrailers {
		return b
	}
	for _, f := range t.Trailer() {
		b = appendField(b, f.Name, f.Value)
	}
	return b
}

// copyFile sends from a file what lies in one, behind the head. It reports false
// when the rest has to be read and written, behind what it returns of the head.
func (h *h1) copyFile(x *exchange, head []byte, body fileSource) (left []byte, done bool, err error) {
	r := &h.rest
	for h.err == nil && x.sent < r.length {
		if r.n == 0 {
			if r.file, r.at, r.n, err = body.NextFile(); err != nil {
				if len(head) > 0 {
					h.write(head, nil)
				}
				return nil, true, cutShort(err)
			}
			if r.file == nil {
				return head, false, nil
			}
		}
		if len(head) > 0 {
			h.begin()
			h.err = sendFront(h.conn.raw, h.conn, head)
			head = head[:0]
			h.out1 = head
			if h.err != nil {
				break
			}
		}
		sent, able, err := sendFile(h.conn.raw, h.pace(), r.file, r.at, r.n)
		x.sent, r.at, r.n = x.sent+sent, r.at+sent, r.n-sent
		switch {
		case err == errWaits:
			return nil, true, err
		case !able:
			body.Again(r.n)
			return head, false, nil
		}
		h.err = err
	}
	return nil, true, h.err
}
