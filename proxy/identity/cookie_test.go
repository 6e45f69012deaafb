package identity

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"firstbell/proxy/field"
)

var (
	newKey = []byte("the newest key of these tests, long enough")
	oldKey = []byte("the key before that one, long enough, too")
)

func newCookie(t testing.TB, c CookieConfig) *Cookie {
	t.Helper()
	c.Name, c.Keys = "session", [][]byte{newKey, oldKey}
	v, err := NewCookie(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// signed is a cookie around any form.
func signed(form string, key []byte) string {
	text := cookieMagic + base64.RawURLEncoding.EncodeToString([]byte(form))
	return text + "." + base64.RawURLEncoding.EncodeToString(macOf([]byte(text), key))
}

func TestASignedCookieIsItsStudentUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newCookie(t, CookieConfig{})
		want := &Person{Student: "학생 1", School: "hangang", Class: "3-2;=\"", Expires: time.Now().Add(time.Hour)}
		for _, key := range [][]byte{newKey, oldKey} {
			text, err := SignCookie(want, key)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				p, err := v.Verify(t.Context(), cookies("session="+text))
				if err != nil || p.Student != want.Student || p.School != want.School || p.Class != want.Class || p.Claim("student") != want.Student {
					t.Errorf("got %+v, %v; want %+v", p, err, want)
				}
			}
		}
		text, _ := SignCookie(want, newKey)
		time.Sleep(time.Hour)
		_, err := v.Verify(t.Context(), cookies("session="+text))
		wantRefused(t, "after its end", err, 401, "has ended")
		if s := v.Stats(); s.Verified != 2 || s.Warm != 2 {
			t.Errorf("stats: got %+v, want 2 verified and 2 warm", s)
		}
	})
}

func TestABadCookieVouchesForNobody(t *testing.T) {
	v := newCookie(t, CookieConfig{School: true})
	good := signed("student=s1&school=h&exp=4000000000", newKey)
	parts := strings.Split(good, ".")
	for _, c := range []struct{ name, cookie, says string }{
		{"another key", signed("student=s1&school=h&exp=4000000000", []byte(strings.Repeat("x", 40))), "no key of ours"},
		{"the empty key", signed("student=s1&school=h&exp=4000000000", nil), "no key of ours"},
		{"another student", cookieMagic + base64.RawURLEncoding.EncodeToString([]byte("student=s2&school=h&exp=4000000000")) + "." + parts[2], "no key of ours"},
		{"no MAC", parts[0] + "." + parts[1] + ".", "no key of ours"},
		{"half a MAC", good[:len(good)-19], "no key of ours"},
		{"no dot", "firstbell1" + parts[1], "signed for firstbell"},
		{"one dot", "firstbell1." + parts[1], "signed for firstbell"},
		{"another version", "firstbell2." + parts[1] + "." + parts[2], "signed for firstbell"},
		{"padding", good + "=", "base64url"},
		{"NUL", good + "\x00", "base64url"},
		{"not UTF-8", "\xff\xfe", "signed for firstbell"},
		{"ended in 1970", signed("student=s1&school=h&exp=1", newKey), "has ended"},
		{"ends after all years", signed("student=s1&school=h&exp=99999999999999", newKey), "when it ends"},
		{"ends never", signed("student=s1&school=h", newKey), "when it ends"},
		{"ends at a word", signed("student=s1&school=h&exp=tomorrow", newKey), "when it ends"},
		{"negative", signed("student=s1&school=h&exp=-5", newKey), "when it ends"},
		{"no student", signed("school=h&exp=4000000000", newKey), "names no student"},
		{"no school", signed("student=s1&exp=4000000000", newKey), "names no school"},
		{"student twice", signed("student=s1&student=s2&school=h&exp=4000000000", newKey), "twice"},
		{"unknown name", signed("student=s1&school=h&admin=1&exp=4000000000", newKey), "no meaning"},
		{"no form", signed("student=%zz&school=h&exp=4000000000", newKey), "a form"},
		{"control character", signed("student=s1%00&school=h&exp=4000000000", newKey), "control character"},
		{"student not UTF-8", signed("student=%ff&school=h&exp=4000000000", newKey), "UTF-8"},
		{"long student", signed("student="+strings.Repeat("s", 300)+"&school=h&exp=4000000000", newKey), "longer than 256"},
		{"10 kB", strings.Repeat("a", 10<<10), "too long"},
	} {
		p, err := v.Verify(context.Background(), cookies("session="+c.cookie))
		if p != nil {
			t.Errorf("%s: got %+v, want nobody", c.name, p)
		}
		wantRefused(t, c.name, err, 401, c.says)
	}
	if p, err := v.Verify(context.Background(), cookies("session="+good)); err != nil || p.Student != "s1" {
		t.Errorf("the good one: got %v, %v", p, err)
	}
}

// TestAPlatformMakesACookieAsTheDocSays makes one with tools of others: Python
// with the lines of doc.go, and the shell with openssl.
func TestAPlatformMakesACookieAsTheDocSays(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(doc)) {
		if text, ok := strings.CutPrefix(line, "//\t"); ok && (strings.Contains(text, "= ")) {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	if len(lines) < 4 {
		t.Fatalf("doc.go has %d lines of Python, want 4: %q", len(lines), lines)
	}
	python := "import base64, hmac, time, urllib.parse\nkey = b'" + string(newKey) + "'\n" + strings.Join(lines, "\n") + "\nprint(cookie.decode(), end='')\n"
	form := url.Values{"student": {"s1"}, "school": {"hangang"}, "exp": {fmt.Sprint(time.Now().Add(time.Hour).Unix())}}.Encode()
	shell := `b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
text="firstbell1.$(printf %s "$FORM" | b64)"
printf '%s.%s' "$text" "$(printf %s "$text" | openssl dgst -sha256 -hmac "$KEY" -binary | b64)"`
	v := newCookie(t, CookieConfig{School: true})
	for name, cmd := range map[string]*exec.Cmd{"python3": exec.Command("python3", "-c", python), "openssl": exec.Command("sh", "-c", shell)} {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("no %s here: its cookie is not tried", name)
			continue
		}
		cmd.Env = append(os.Environ(), "FORM="+form, "KEY="+string(newKey))
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p, err := v.Verify(t.Context(), cookies("session="+string(out))); err != nil || p.Student != "s1" || p.School != "hangang" {
			t.Errorf("a cookie made with %s: got %+v, %v; want s1 of hangang", name, p, err)
		}
	}
}

func TestSessionsAreForgottenBeyondTheBound(t *testing.T) {
	v := newCookie(t, CookieConfig{Sessions: 1000})
	for n := range 5000 {
		text, err := SignCookie(&Person{Student: fmt.Sprint("s", n), Expires: time.Now().Add(time.Hour)}, newKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), cookies("session="+text)); err != nil {
			t.Fatal(err)
		}
	}
	if s := v.Stats(); s.Known > 1000 || s.Known < 900 {
		t.Errorf("5,000 sessions: got %d known, want about 1,000 and no more", s.Known)
	}
}

// oneField is a request with one line of one field, read as the door reads it.
type oneField struct {
	field.List
	all [1][]byte
}

func (f *oneField) PeekAll(name string) [][]byte {
	if f.List[0].Name != name {
		return nil
	}
	f.all[0] = f.List.Peek(name)
	return f.all[:]
}

// line makes r's one field readable without an allocation.
func line(r *Request) *Request {
	l := r.Fields.(field.List)
	r.Fields = &oneField{List: l[len(l)-1:]}
	r.Fields.(*oneField).List[0].Name = strings.Replace(l[len(l)-1].Name, "authorization", "Authorization", 1)
	return r
}

func FuzzToken(f *testing.F) {
	i := newIssuer(f)
	v := newJWT(f, JWTConfig{Keys: fileKeys(f, i.set("ec"))})
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if p, err := v.Verify(context.Background(), bearer(token)); p != nil || err == nil {
			t.Errorf("%q vouches for %+v, %v", token, p, err)
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"a","exp":1e3,"x":[{"a":{}}]}`), "/x/0/a")
	f.Add([]byte(`{"a":1,"a":2}`), "a")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		if checkJSON(text) != nil {
			return
		}
		p, err := parseKeySet(text)
		if (p == nil) == (err == nil) {
			t.Errorf("a key set: got %v, %v", p, err)
		}
	})
}

func FuzzCookie(f *testing.F) {
	f.Add("session=firstbell1.c3R1ZGVudD1zMQ.AAAA; a=b", "student=s1&exp=4000000000")
	f.Add(`session=""; session="`, "student=%ff&exp=x")
	f.Fuzz(func(t *testing.T, header, form string) {
		found, refusal := oneCookie(field.List{{Name: "cookie", Value: header}}, "session")
		if refusal != nil && found != nil {
			t.Errorf("%q: found %q and refused", header, found)
		}
		p, err := OpenCookie([]byte(signed(form, newKey)), [][]byte{newKey})
		if err == nil && (p.Student == "" || unfit(p.Student) != "" || p.Expires.IsZero()) {
			t.Errorf("%q vouches for %+v", form, p)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	i := newIssuer(b)
	keys := fileKeys(b, i.set("rsa", "ec", "ed"))
	text, err := SignCookie(&Person{Student: "s1", School: "hangang", Class: "3-2", Expires: time.Now().Add(time.Hour)}, newKey)
	if err != nil {
		b.Fatal(err)
	}
	secret := []byte(strings.Repeat("s", 40))
	for _, c := range []struct {
		name string
		r    *Request
		v    Verifier
		cold func() error
	}{
		{name: "RS256", r: line(bearer(i.token("rsa", claimsOf("s1")))), v: newJWT(b, JWTConfig{Keys: keys})},
		{name: "ES256", r: line(bearer(i.token("ec", claimsOf("s1")))), v: newJWT(b, JWTConfig{Keys: keys})},
		{name: "EdDSA", r: line(bearer(i.token("ed", claimsOf("s1")))), v: newJWT(b, JWTConfig{Keys: keys})},
		{name: "HS256", r: line(bearer(token(b, secret, "", claimsOf("s1")))), v: newJWT(b, JWTConfig{Secrets: [][]byte{secret}})},
		{name: "cookie", r: line(cookies("session=" + text)), v: newCookie(b, CookieConfig{})},
		{name: "forward_auth", r: line(cookies("session=s1")), v: newForward(b, &loginService{}, nil)},
	} {
		b.Run(c.name+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				forget(c.v)
				if _, err := c.v.Verify(context.Background(), c.r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.v.Verify(context.Background(), c.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// forget empties what a verifier remembers.
func forget(v Verifier) {
	var k *known
	switch v := v.(type) {
	case *JWT:
		k = v.known
	case *Cookie:
		k = v.known
	case *ForwardAuth:
		k = v.known
	}
	for i := range k.shards {
		clear(k.shards[i].entries)
	}
}
