package identity

import (
	"testing"

	"firstbell/proxy/field"
)

// A session is the credential and nothing that changes beside it; where there
// is none, or more than one, nobody can be told from another.
func TestASessionIsTheCredentialAlone(t *testing.T) {
	bearer := Source{}
	cookie, err := ParseSource("cookie:sid")
	if err != nil {
		t.Fatal(err)
	}
	forward := newForward(t, &loginService{}, func(c *ForwardAuthConfig) { c.Pass = []string{"header:Authorization", "cookie:sid"} })
	at := func(host string, f ...field.Field) *Request {
		return &Request{Fields: field.List(f), Host: []byte(host)}
	}
	of := func(name, value string) field.Field { return field.Field{Name: name, Value: value} }
	for _, c := range []struct {
		name string
		v    interface {
			Session(dst []byte, r *Request) []byte
		}
		a, b *Request
		same bool
	}{
		{"a token, and a cookie of ours beside it", &JWT{cfg: JWTConfig{From: bearer}}, at("h", of("Authorization", "Bearer x")), at("h", of("Authorization", "Bearer x"), of("Cookie", "first_seen=1")), true},
		{"two tokens", &JWT{cfg: JWTConfig{From: bearer}}, at("h", of("Authorization", "Bearer x")), at("h", of("Authorization", "Bearer y")), false},
		{"a cookie among others", &Cookie{from: cookie}, at("h", of("Cookie", "sid=1")), at("h", of("Cookie", "a=b; sid=1")), true},
		{"one of two places", forward, at("h", of("Cookie", "sid=1")), at("h", of("Cookie", "sid=1; a=b")), true},
		{"the same value in another place", forward, at("h", of("Cookie", "sid=1")), at("h", of("Authorization", "1")), false},
		{"the same session at another school", forward, at("h", of("Cookie", "sid=1")), at("g", of("Cookie", "sid=1")), false},
	} {
		a, b := string(c.v.Session(nil, c.a)), string(c.v.Session(nil, c.b))
		if a == "" || b == "" || (a == b) != c.same {
			t.Errorf("%s: sessions %q and %q, want the same: %t", c.name, a, b, c.same)
		}
		for _, none := range []*Request{at("h", of("Cookie", "a=b")), at("h", of("Cookie", "sid=1; sid=2"), of("Authorization", "Bearer x"), of("Authorization", "Bearer y"))} {
			if got := c.v.Session([]byte("before"), none); string(got) != "before" {
				t.Errorf("%s: without one credential: session %q, want none", c.name, got)
			}
		}
	}
}
