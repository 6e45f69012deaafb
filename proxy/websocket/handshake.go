package websocket

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"iter"
	"strings"

	"firstbell/proxy/field"
)

// Version is the only one there is (RFC 6455 section 4.1).
const Version = "13"

// A Refusal says why a handshake is none. It is an error.
type Refusal struct {
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Detail }

// The refusals of requests.
var (
	RefuseMethod     = &Refusal{"method", "a WebSocket is opened with GET"}
	RefuseContent    = &Refusal{"content", "a WebSocket handshake has no content"}
	RefuseConnection = &Refusal{"connection", "the handshake says Upgrade: websocket without Connection: Upgrade"}
	RefuseKey        = &Refusal{"key", "the handshake must have one Sec-WebSocket-Key of 16 bytes in base64"}
	RefuseVersion    = &Refusal{"version", "the handshake must have one Sec-WebSocket-Version, 13"}
	RefuseAnswer     = &Refusal{"answer-field", "the request has Sec-WebSocket-Accept, which is for answers"}
	RefuseProtocols  = &Refusal{"protocols", "Sec-WebSocket-Protocol must name protocols, each once"}
)

// The refusals of responses.
var (
	refuseUpgrade    = &Refusal{"upgrade", "101 without Upgrade: websocket and Connection: Upgrade"}
	refuseAccept     = &Refusal{"accept", "Sec-WebSocket-Accept does not answer the key"}
	refuseProtocol   = &Refusal{"protocol", "a subprotocol that was not offered"}
	refuseExtensions = &Refusal{"extension", "an extension that was not offered"}
)

// Fields are the fields of a handshake: field.Fields is one.
type Fields interface {
	All() iter.Seq2[[]byte, []byte]
}

// Asks reports whether a request asks for a WebSocket: Upgrade names it. Then
// CheckRequest says whether it does so rightly.
func Asks(f Fields) bool {
	for name, value := range f.All() {
		if equal(name, "Upgrade") && hasMember(value, "websocket") {
			return true
		}
	}
	return false
}

// CheckRequest checks the fields that a handshake has over every protocol
// (RFC 6455 section 4.2.1, RFC 8441 section 5). The error is a *Refusal.
func CheckRequest(f Fields) error {
	if v := values(f, "Sec-WebSocket-Version"); len(v) != 1 || string(v[0]) != Version {
		return RefuseVersion
	}
	if len(values(f, "Sec-WebSocket-Accept")) > 0 {
		return RefuseAnswer
	}
	seen := map[string]bool{}
	for p := range members(values(f, "Sec-WebSocket-Protocol")) {
		if !field.IsToken(p) || seen[p] || len(seen) == protocolsMax {
			return RefuseProtocols
		}
		seen[p] = true
	}
	return nil
}

// protocolsMax bounds what one handshake offers.
const protocolsMax = 32

// CheckUpgrade checks what a handshake has over HTTP/1.1 beside that: method,
// content, Connection and key. The error is a *Refusal.
func CheckUpgrade(method string, content bool, f Fields) error {
	switch {
	case method != "GET":
		return RefuseMethod
	case content:
		return RefuseContent
	case !named(f, "Connection", "Upgrade"):
		return RefuseConnection
	}
	if k := values(f, "Sec-WebSocket-Key"); len(k) != 1 || !validKey(k[0]) {
		return RefuseKey
	}
	return nil
}

// validKey reports 16 bytes in base64, in the one way there is to write them.
func validKey(k []byte) bool {
	var raw [18]byte
	if len(k) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Strict().Decode(raw[:], k)
	return err == nil && n == 16
}

// NewKey returns a key of our own, for a client whose protocol has none.
func NewKey() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return base64.StdEncoding.EncodeToString(raw[:])
}

// Accept answers a key (RFC 6455 section 4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// CheckResponse checks the fields of a 101 against the request with this key
// (RFC 6455 section 4.1). upgrade and connection are the values of those two
// fields, which belong to the connection. The error is a *Refusal.
func CheckResponse(key string, asked, answered Fields, upgrade, connection string) error {
	if !strings.EqualFold(upgrade, "websocket") || !hasMember([]byte(connection), "Upgrade") {
		return refuseUpgrade
	}
	if a := values(answered, "Sec-WebSocket-Accept"); len(a) != 1 || string(a[0]) != Accept(key) {
		return refuseAccept
	}
	if chosen := values(answered, "Sec-WebSocket-Protocol"); len(chosen) > 1 || len(chosen) == 1 && !offered(asked, string(chosen[0])) {
		return refuseProtocol
	}
	names := map[string]bool{}
	for e := range members(values(asked, "Sec-WebSocket-Extensions")) {
		names[extension(e)] = true
	}
	for e := range members(values(answered, "Sec-WebSocket-Extensions")) {
		if !names[extension(e)] {
			return refuseExtensions
		}
	}
	return nil
}

// offered reports whether the request offers the subprotocol.
func offered(asked Fields, protocol string) bool {
	for p := range members(values(asked, "Sec-WebSocket-Protocol")) {
		if p == protocol {
			return true
		}
	}
	return false
}

// extension is an extension's name without its parameters. Quoted parameters
// with commas, which no extension has, make names that nobody offers.
func extension(e string) string {
	name, _, _ := strings.Cut(e, ";")
	return strings.ToLower(strings.TrimSpace(name))
}

// values returns the value of every line with the name. They are valid as long
// as the fields are.
func values(f Fields, name string) (v [][]byte) {
	for n, value := range f.All() {
		if equal(n, name) {
			v = append(v, value)
		}
	}
	return v
}

// members yields the members of comma-separated lists.
func members(lists [][]byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, list := range lists {
			for m := range strings.SplitSeq(string(list), ",") {
				if !yield(strings.Trim(m, " \t")) {
					return
				}
			}
		}
	}
}

func named(f Fields, name, member string) bool {
	for _, v := range values(f, name) {
		if hasMember(v, member) {
			return true
		}
	}
	return false
}

func hasMember(list []byte, member string) bool {
	for m := range bytes.SplitSeq(list, []byte{','}) {
		if equal(bytes.Trim(m, " \t"), member) {
			return true
		}
	}
	return false
}

func equal(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }
