package proxy

import (
	"context"
	"errors"

	"firstbell/proxy/field"
	"firstbell/proxy/origin"
	"firstbell/proxy/websocket"
)

// webSocketAsk says how a request asks for a WebSocket.
type webSocketAsk uint8

const (
	noWebSocket       webSocketAsk = iota
	byUpgrade                      // HTTP/1.1: RFC 6455
	byExtendedCONNECT              // HTTP/2: RFC 8441, HTTP/3: RFC 9220; the exchange's method is GET
)

// switcher is a responder that can leave HTTP.
type switcher interface {
	// switched answers that the WebSocket is open, with these fields, and returns
	// the client's side of it, which the caller closes. It is called instead of
	// the other methods, once. After an error the connection is over.
	switched(x *exchange, fields field.List) (side, error)
}

// openWebSocket passes a handshake on and then, if the origin agrees, frames
// both ways until that ends. Whatever else the origin answers is the answer.
func (p *Proxy) openWebSocket(x *exchange) {
	rt := x.route
	to, able := x.out.(switcher)
	if rt.Origin == nil || !rt.WebSocket || !able {
		x.outcome = outcomeRefused
		p.live.refuse("not-here")
		p.problem(x, 403, "no WebSocket is opened at this path", nil)
		return
	}
	if err := x.checkHandshake(); err != nil {
		p.refuseHandshake(x, err)
		return
	}
	s := newStay(x, p.life)
	defer s.done()
	if err := s.enter(p.live, liveWebSocket); err != nil {
		p.originProblem(x, 0, err)
		return
	}
	if err := s.admit(rt.Origin.Limit); err != nil { // shaking hands is work like any other
		s.problem(p, err)
		return
	}
	res, err := rt.Origin.Pool.Do(s.ctx, x.handshake())
	s.giveBack()
	if err != nil {
		if bad, ok := errors.AsType[*websocket.Refusal](err); ok {
			p.live.refuse("origin-" + bad.Reason)
		}
		s.problem(p, err)
		return
	}
	if res.Switched == nil {
		p.live.refuse("by-origin")
		x.waited = true
		p.answerOrigin(x, res, s, new(originBody), outcomePass)
		return
	}
	p.tunnel(s, to, res)
}

// checkHandshake returns why a request for a WebSocket is none, as a
// *websocket.Refusal.
func (x *exchange) checkHandshake() error {
	if x.webSocket == byUpgrade {
		if err := websocket.CheckUpgrade(x.method, x.body != nil, x.fields); err != nil {
			return err
		}
	}
	return websocket.CheckRequest(x.fields)
}

// refuseHandshake answers what is no handshake, with the version that is
// spoken here (RFC 6455 section 4.4).
func (p *Proxy) refuseHandshake(x *exchange, err error) {
	x.outcome = outcomeRefused
	p.live.refuse(err.(*websocket.Refusal).Reason)
	p.problem(x, 400, err.Error(), field.List{{Name: "Sec-WebSocket-Version", Value: websocket.Version}})
}

// handshake is the request as the origin gets it.
func (x *exchange) handshake() *origin.Request {
	r, _ := x.outbound(new(passage)) // it has no If-Match to weigh
	r.WebSocket, r.Body, r.TakesTrailers = true, nil, false
	r.ContentLength = 0
	if x.webSocket == byExtendedCONNECT {
		r.Fields = r.Fields.Without(func(name string) bool { return field.EqualName(name, "Sec-WebSocket-Key") })
		r.Fields = append(r.Fields, field.Field{Name: "Sec-WebSocket-Key", Value: websocket.NewKey()})
	}
	return r
}

// tunnel answers that the WebSocket is open and passes frames until it ends.
func (p *Proxy) tunnel(s *stay, to switcher, res *origin.Response) {
	x := s.x
	x.outcome = outcomeWebSocket
	far := newNetSide(res.Switched, nil, res.Early, res.Body.Close)
	t := &tunnel{origin: far, idle: x.route.Live.idle()}
	s.look()
	s.place.hold(x.route.Live.lifetime(), t.end)
	if s.why.Load() != uint32(notEnded) {
		_ = far.Close() // it has been broken off already
		s.problem(p, context.Canceled)
		return
	}
	client, err := to.switched(x, res.Fields)
	if err != nil {
		_ = far.Close() // there is nobody to pass on to
		s.ended(endClient)
		return
	}
	t.client = client
	up, down := t.run()
	x.received, x.sent = up.moved, down.moved
	s.ended(t.why)
	if up.late {
		p.live.refuse("late-client")
	}
	if down.late {
		p.live.refuse("late-origin")
	}
}
