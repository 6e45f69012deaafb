package head

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"firstbell/proxy/field"
)

type pair struct{ Name, Value string }

// good is the shortest request that says all; more is put behind it.
func good(more ...pair) []pair {
	return append([]pair{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "school.example"}, {Name: ":path", Value: "/"}}, more...)
}

func read(h *Head, l []pair) error {
	h.Reset()
	for _, f := range l {
		if err := h.Add(f.Name, f.Value); err != nil {
			return err
		}
	}
	return h.End()
}

func without(l []pair, name string) []pair {
	return slices.DeleteFunc(slices.Clone(l), func(p pair) bool { return p.Name == name })
}

func TestEachMalformedHeadHasItsReason(t *testing.T) {
	many := good()
	for range FieldsMax + 1 {
		many = append(many, pair{Name: "x", Value: "1"})
	}
	for what, c := range map[string]struct {
		lines []pair
		want  *field.Refusal
	}{
		"no :method":               {without(good(), ":method"), refusePseudoMissing},
		"no :scheme":               {without(good(), ":scheme"), refusePseudoMissing},
		"no :path":                 {without(good(), ":path"), refusePseudoMissing},
		"no authority":             {without(good(), ":authority"), refuseAuthority},
		"empty authority":          {append(without(good(), ":authority"), pair{Name: "host"}), refuseAuthority},
		"a user in it":             {append([]pair{{Name: ":authority", Value: "a@school.example"}}, without(good(), ":authority")...), refuseAuthority},
		"two hosts":                {good(pair{Name: "host", Value: "school.example"}, pair{Name: "host", Value: "school.example"}), refuseHost},
		"another host":             {good(pair{Name: "host", Value: "other.example"}), refuseHost},
		"empty path":               {append([]pair{{Name: ":path"}}, without(good(), ":path")...), refusePath},
		"path without slash":       {append([]pair{{Name: ":path", Value: "a"}}, without(good(), ":path")...), refusePath},
		"asterisk of a GET":        {append([]pair{{Name: ":path", Value: "*"}}, without(good(), ":path")...), refusePath},
		":method twice":            {append([]pair{{Name: ":method", Value: "GET"}}, good()...), refusePseudoTwice},
		":path behind fields":      {append(append(without(good(), ":path"), pair{Name: "a", Value: "b"}), pair{Name: ":path", Value: "/"}), refusePseudoOrder},
		"a response's":             {append(good(), pair{Name: ":status", Value: "200"}), refusePseudoUnknown},
		":protocol":                {append(good(), pair{Name: ":protocol", Value: "websocket"}), refusePseudoUnknown},
		"CONNECT with a path":      {append([]pair{{Name: ":method", Value: "CONNECT"}}, without(good(), ":method")...), refusePseudoUnknown},
		"CONNECT to nobody":        {[]pair{{Name: ":method", Value: "CONNECT"}}, refuseAuthority},
		"a method of two words":    {append([]pair{{Name: ":method", Value: "GET /"}}, without(good(), ":method")...), refuseMethod},
		"upper case":               {good(pair{Name: "Accept", Value: "*/*"}), refuseName},
		"no name":                  {good(pair{Name: "", Value: "x"}), refuseName},
		"a colon in a name":        {good(pair{Name: "a:b", Value: "x"}), refuseName},
		"a blank in a name":        {good(pair{Name: "a b", Value: "x"}), refuseName},
		"a line's end in a value":  {good(pair{Name: "a", Value: "b\r\nc: d"}), refuseValue},
		"NUL in a value":           {good(pair{Name: "a", Value: "b\x00"}), refuseValue},
		"NUL in a path":            {append([]pair{{Name: ":path", Value: "/\x00"}}, without(good(), ":path")...), refuseValue},
		"a blank before a value":   {good(pair{Name: "a", Value: " b"}), refuseValue},
		"a blank behind a value":   {good(pair{Name: "a", Value: "b\t"}), refuseValue},
		"connection":               {good(pair{Name: "connection", Value: "close"}), refuseConnection},
		"keep-alive":               {good(pair{Name: "keep-alive", Value: "1"}), refuseConnection},
		"proxy-connection":         {good(pair{Name: "proxy-connection", Value: "close"}), refuseConnection},
		"transfer-encoding":        {good(pair{Name: "transfer-encoding", Value: "chunked"}), refuseConnection},
		"upgrade":                  {good(pair{Name: "upgrade", Value: "websocket"}), refuseConnection},
		"te of more than trailers": {good(pair{Name: "te", Value: "gzip"}), refuseConnection},
		"length of no number":      {good(pair{Name: "content-length", Value: "+1"}), refuseLength},
		"length of no bound":       {good(pair{Name: "content-length", Value: strings.Repeat("9", 19)}), refuseLength},
		"two lengths":              {good(pair{Name: "content-length", Value: "1"}, pair{Name: "content-length", Value: "1"}), refuseLength},
		"other expectations":       {good(pair{Name: "expect", Value: "200-ok"}), refuseExpect},
		"too many":                 {many, refuseFields},
		"too large":                {good(pair{Name: "a", Value: strings.Repeat("b", BytesMax)}), RefuseSize},
	} {
		var h Head
		var got *field.Refusal
		if err := read(&h, c.lines); !errors.As(err, &got) || got != c.want {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
	}
}

func TestAHeadSaysWhatWasSent(t *testing.T) {
	var h Head
	for range 2 { // used again it says nothing of the last one
		err := read(&h, good(
			pair{Name: "cookie", Value: "a=1"}, pair{Name: "accept", Value: "text/html"}, pair{Name: "cookie", Value: "b=2"},
			pair{Name: "te", Value: "trailers"}, pair{Name: "content-length", Value: "5"}, pair{Name: "expect", Value: "100-Continue"},
			pair{Name: "host", Value: "School.example"}))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(h.Method) + " " + string(h.Scheme) + " " + string(h.Authority) + " " + string(h.Path); got != "GET https school.example /" {
			t.Errorf("the request is %q, want GET https school.example /", got)
		}
		if got := string(h.Peek("Cookie")); got != "a=1; b=2" {
			t.Errorf("Cookie is %q, want the lines joined by a semicolon", got)
		}
		if h.Length != 5 || !h.Continue {
			t.Errorf("Length %d, Continue %v, want 5 and true", h.Length, h.Continue)
		}
		n := 0
		for range h.All() {
			n++
		}
		if n != 6 {
			t.Errorf("%d fields, want 6: cookies are one", n)
		}
	}
	if err := read(&h, append(without(good(), ":authority"), pair{Name: "host", Value: "school.example"})); err != nil || string(h.Authority) != "school.example" {
		t.Errorf("with Host alone: authority %q (%v), want school.example", h.Authority, err)
	}
	if h.Length != -1 || h.Continue || h.Peek("cookie") != nil {
		t.Errorf("something is left of the request before: length %d, continue %v", h.Length, h.Continue)
	}
	if err := read(&h, []pair{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "school.example:443"}}); err != nil {
		t.Errorf("CONNECT: %v, want it read, for whoever refuses it", err)
	}
}

func TestATrailerSectionHasNoPseudoFields(t *testing.T) {
	var h Head
	h.ResetTrailers()
	if err := errors.Join(h.Add("digest", "x"), h.End()); err != nil || string(h.Peek("Digest")) != "x" {
		t.Errorf("a trailer section: %v, Digest %q", err, h.Peek("Digest"))
	}
	h.ResetTrailers()
	if err := h.Add(":path", "/"); err != refuseTrailer {
		t.Errorf("a pseudo-field in trailers: %v, want %v", err, refuseTrailer)
	}
}

func TestExtendedConnectIsKnownWhereItIsOffered(t *testing.T) {
	lines := append([]pair{{Name: ":method", Value: "CONNECT"}, {Name: ":protocol", Value: "websocket"}}, without(good(), ":method")...)
	h := Head{Extended: true}
	if err := read(&h, lines); err != nil || string(h.Protocol) != "websocket" {
		t.Errorf("got %v, protocol %q, want websocket", err, h.Protocol)
	}
	lines[0].Value = "GET"
	if err := read(&h, lines); err != refusePseudoUnknown {
		t.Errorf(":protocol of a GET: %v, want %v", err, refusePseudoUnknown)
	}
}

func TestReadingAHeadAllocatesNothing(t *testing.T) {
	var h Head
	lines := good(pair{Name: "accept", Value: "text/html"}, pair{Name: "cookie", Value: "a=1"})
	if n := testing.AllocsPerRun(100, func() { _ = read(&h, lines) }); n != 0 {
		t.Errorf("reading a head allocates %v times, want 0", n)
	}
}

// FuzzHead: whatever is accepted can stand in a message of HTTP/1.1 without
// changing it, and what a refusal leaves is no danger to the next request.
func FuzzHead(f *testing.F) {
	f.Add(":method\x00GET\x00:scheme\x00https\x00:authority\x00a\x00:path\x00/\x00accept\x00*/*")
	f.Add(":method\x00GET\x00cookie\x00a\x00cookie\x00b\x00:path\x00/\x00host\x00h\x00te\x00trailers")
	f.Fuzz(func(t *testing.T, text string) {
		var l []pair
		parts := strings.Split(text, "\x00")
		for i := 0; i+1 < len(parts); i += 2 {
			l = append(l, pair{Name: parts[i], Value: parts[i+1]})
		}
		var h Head
		if err := read(&h, l); err == nil {
			if len(h.Authority) == 0 || len(h.Method) == 0 {
				t.Errorf("a request without method or authority was taken: %q", text)
			}
			for name, value := range h.All() {
				if !field.IsToken(name) || strings.ContainsAny(string(value), "\r\n\x00") {
					t.Errorf("field %q: %q was taken", name, value)
				}
			}
		}
		if err := read(&h, good()); err != nil || h.Len() != 0 {
			t.Errorf("the next request: %v, %d fields, want it unharmed", err, h.Len())
		}
	})
}
