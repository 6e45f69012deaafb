package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Collect says what becomes of other small writes that come in floods: they are
// kept as they came, and delivered in bulk to a sink.
type Collect struct {
	Key      Places `yaml:"key" eg:"\"json:/id\""` // by which a write is known; the field Idempotency-Key unless said
	Sink     string `yaml:"sink" eg:"progress"`    // a sink with takes: collected
	MaxBytes Size   `yaml:"max_bytes" eg:"64KiB"`  // of content; 64 KiB unless said, and at most
	Status   int    `yaml:"status" eg:"204"`       // of the answer: 200 with the receipt, or 204; 200 unless said
}

// Places says where in a request the parts of a key stand: one place or a list.
type Places []string

func (p *Places) choose(d *decoder, n ast.Node, path string) {
	if text, ok := scalarText(n); ok {
		*p = Places{text}
		return
	}
	if _, ok := n.(*ast.SequenceNode); !ok {
		d.problem(d.at[path], path, "expected a place or a list of places, found "+kindOf(n), `write key: "json:/id", or key: ["json:/student", "json:/lesson"]`)
		return
	}
	decodeInto(d, n, path, (*[]string)(p))
}

const collectBytesMax = 64 << 10

func (v *validator) collectRoute(path string, r *Route) {
	c := r.Collect
	if c == nil {
		return // had a problem of its own
	}
	if v.c.Attendance == nil && !v.given("attendance") {
		v.wrong(path+".collect", "add attendance: {journal: /var/lib/firstbell/journal}", "what is collected needs a journal, and there is no attendance section")
	}
	for i, m := range r.Methods {
		if m != "POST" {
			v.wrong(fmt.Sprintf("%s.methods[%d]", path, i), "write methods: [POST], or leave it out", "what is collected comes by POST, not %s", m)
		}
	}
	for _, other := range []struct{ key, why string }{
		{"origin", "what is collected is answered here, and goes to the sink in bulk"},
		{"cache", "what is collected is never stored in a cache"},
		{"timeouts", "what is collected does not wait for an origin"},
		{"request_buffering", "what is collected does not go to an origin"},
		{"response_buffering", "what is collected is answered here"},
		{"websocket", "a WebSocket is opened by an origin, and this route asks none"},
		{"live", "this route answers at once"},
		{"reply", "reply says how a check-in is answered, and this route takes none"},
	} {
		if v.given(path + "." + other.key) {
			v.wrong(path+"."+other.key, "remove it", "%s", other.why)
		}
	}
	switch {
	case r.Identity.None:
		v.wrong(path+".identity", "remove it", "identity: none is for routes that take check-ins; here it says nothing, as nobody is asked who they are")
	case v.given(path + ".identity"):
		v.identity(path, r)
	}
	path += ".collect"
	v.collectSink(path+".sink", c)
	if v.given(path+".max_bytes") && (c.MaxBytes < 16 || c.MaxBytes > collectBytesMax) {
		v.wrong(path+".max_bytes", "write 16B to 64KiB", "%s is not a small write", c.MaxBytes)
	}
	if v.given(path+".status") && c.Status != 200 && c.Status != 204 {
		v.wrong(path+".status", "write 200 for an answer with the receipt, or 204 for one without content", "%d says neither", c.Status)
	}
	v.collectKey(path+".key", c)
}

func (v *validator) collectSink(path string, c *Collect) {
	if c.Sink == "" {
		v.wrong(path, "add sink: progress, and a sink of that name with takes: collected", "nothing says where it is delivered to")
		return
	}
	if v.c.Attendance == nil || v.bad["attendance"] || v.bad["attendance.sinks"] {
		return
	}
	var names []string
	for i := range v.c.Attendance.Sinks {
		s := &v.c.Attendance.Sinks[i]
		if s.Name == c.Sink && !s.TakesCollected() {
			v.wrong(path, fmt.Sprintf("add takes: collected to the sink %s, or name another", s.Name), "the sink %s takes check-ins", s.Name)
			return
		}
		if s.Name == c.Sink {
			return
		}
		if s.TakesCollected() {
			names = append(names, s.Name)
		}
	}
	fix := fmt.Sprintf(`add to attendance.sinks: {name: %s, takes: collected, http: {url: …}}`, plainName(c.Sink))
	if meant := nearest(c.Sink, names); meant != "" {
		fix = fmt.Sprintf("did you mean %s?", meant)
	}
	v.wrong(path, fix, "there is no sink %q", c.Sink)
}

func (v *validator) collectKey(path string, c *Collect) {
	if v.given(path) && len(c.Key) == 0 {
		v.wrong(path, `write key: "json:/id", or leave it out for the field Idempotency-Key`, "the key says nowhere")
	}
	if len(c.Key) > 8 {
		v.wrong(path, "name at most 8 places", "%d places are no key", len(c.Key))
	}
	body := ""
	for i, place := range c.Key {
		at := path
		if len(c.Key) > 1 || v.given(fmt.Sprintf("%s[%d]", path, i)) {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		kind, what, fix := checkInField(place)
		switch {
		case kind == "claim":
			what, fix = "the key of what is collected is made of what was sent, not of claims", `write key: "json:/id"`
		case what == "" && kind != "header" && body != "" && kind != body:
			what, fix = fmt.Sprintf("content is either JSON or a form, and another part is taken from %s:", body), "take all of them from "+body+":, or from header:"
		case what == "" && slices.Contains([]string{"header:authorization", "header:cookie"}, strings.ToLower(place)):
			what, fix = "a credential is never written down", `write key: "json:/id"`
		}
		if what != "" {
			v.wrong(at, fix, "%s", what)
			continue
		}
		if kind != "header" && body == "" {
			body = kind
		}
	}
}
