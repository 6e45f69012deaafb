package proxy

import (
	"bytes"
	"sync"
	"unsafe"

	"firstbell/proxy/field"
	"firstbell/proxy/origin"
)

// A passage is what a request that is passed on by itself lives in, kept for
// the next one: passing on makes no garbage. What it holds of the request are
// views of the client's bytes, which stay until the exchange is over.
type passage struct {
	x       *exchange
	send    origin.Request
	room    origin.Room
	stay    stay
	body    originBody
	fields  field.List
	values  []byte       // of the forwarding fields
	content bytes.Reader // what had come with the request's head
	inform  func(status int, fields field.List)
}

var passages = sync.Pool{New: func() any {
	pa := &passage{fields: make(field.List, 0, 24), values: make([]byte, 0, 512)}
	pa.inform = func(status int, fields field.List) { pa.x.inform(status, fields) }
	return pa
}}

func newPassage(x *exchange) *passage {
	pa := passages.Get().(*passage)
	pa.x, x.passage = x, pa
	return pa
}

// end gives the passage back. What a timer may still
// know of, whose exchange lasted or had a slow client, is left to it.
func (pa *passage) end() {
	if pa.x.lived != nil || pa.body.timer != nil {
		return
	}
	pa.x, pa.send, pa.stay, pa.body = nil, origin.Request{}, stay{}, originBody{}
	pa.content.Reset(nil)
	clear(pa.fields)
	passages.Put(pa)
}

// takeThere makes content that has come whole, with the request's head, the
// content that the exchange goes on with.
func (pa *passage) takeThere() {
	x := pa.x
	if u, ok := x.body.(*upload); ok && u.isThere() {
		pa.content.Reset(u.there())
		x.body, x.stopBody, x.expects = &pa.content, nil, false
	}
}

// view is b as a string without a copy: it changes as b does.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// own is b as a string of its own.
func own(b []byte) string { return string(b) }

// lined is a field section whose lines are counted: they can be read without a
// closure, which All makes for the loop and for all that it touches.
type lined interface {
	Len() int
	Line(i int) (name, value []byte)
}
