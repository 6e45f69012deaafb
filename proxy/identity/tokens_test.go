package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"firstbell/proxy/field"
)

// The issuer of these tests is another library (go-jose), so that we do not
// only read what we wrote.

// issuer signs tokens with keys of its own.
type issuer struct {
	t    testing.TB
	keys map[string]crypto.Signer // by kid
}

var (
	rsaKey, otherRSAKey = sync.OnceValue(newRSA), sync.OnceValue(newRSA)
	ecKey               = sync.OnceValue(func() *ecdsa.PrivateKey { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k })
	edKey               = sync.OnceValue(func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(rand.Reader); return k })
)

func newRSA() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

func newIssuer(t testing.TB) *issuer {
	return &issuer{t: t, keys: map[string]crypto.Signer{"rsa": rsaKey(), "ec": ecKey(), "ed": edKey()}}
}

// set is the issuer's JWK Set, of the ids named.
func (i *issuer) set(ids ...string) []byte {
	var set jose.JSONWebKeySet
	for _, id := range ids {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: i.keys[id].Public(), KeyID: id, Use: "sig", Algorithm: string(algorithmOf(i.keys[id]))})
	}
	text, err := json.Marshal(set)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

func algorithmOf(key any) jose.SignatureAlgorithm {
	switch key.(type) {
	case *rsa.PrivateKey:
		return jose.RS256
	case *ecdsa.PrivateKey:
		return jose.ES256
	case ed25519.PrivateKey:
		return jose.EdDSA
	}
	return jose.HS256
}

// token signs claims with a key; an empty kid leaves the field out.
func token(t testing.TB, key any, kid string, claims any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithmOf(key), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) token(kid string, claims any) string { return token(i.t, i.keys[kid], kid, claims) }

// claimsOf are those of a good token of the student for an hour, with changes.
func claimsOf(student string, changes ...map[string]any) map[string]any {
	c := map[string]any{"sub": student, "school": "hangang", "class": "3-2", "iss": "https://login.example", "aud": []string{"firstbell", "x"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for _, more := range changes {
		for name, v := range more {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
	}
	return c
}

// raw signs header and content as they are written, whatever they are.
func raw(t testing.TB, key *ecdsa.PrivateKey, header, content string) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64([]byte(content))
	h := crypto.SHA256.New()
	io.WriteString(h, text)
	r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + b64(sig)
}

func bearer(token string) *Request {
	return &Request{Fields: field.List{{Name: "Host", Value: "hangang.school.example"}, {Name: "authorization", Value: "Bearer " + token}},
		Host: []byte("hangang.school.example"), Authority: []byte("hangang.school.example"), Scheme: "https"}
}

func cookies(lines ...string) *Request {
	var l field.List
	for _, line := range lines {
		l = append(l, field.Field{Name: "Cookie", Value: line})
	}
	return &Request{Fields: l, Host: []byte("hangang.school.example"), Authority: []byte("hangang.school.example"), Scheme: "https"}
}

// fileKeys is a key set in a file.
func fileKeys(t testing.TB, text []byte) *KeySet {
	t.Helper()
	name := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeySet(KeySetConfig{Location: name})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newJWT(t testing.TB, c JWTConfig) *JWT {
	t.Helper()
	if c.Student == "" {
		c.Student, c.School, c.Class = "sub", "school", "class"
	}
	if c.Leeway == 0 {
		c.Leeway = DefaultLeeway
	}
	v, err := NewJWT(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantRefused(t *testing.T, name string, err error, status int, says string) {
	t.Helper()
	r, ok := err.(*Refusal)
	if !ok || r.Status != status || !strings.Contains(r.Reason, says) {
		t.Errorf("%s: got %v (%+v), want a refusal %d that says %q", name, err, r, status, says)
	}
}

func TestTokensOfAnotherLibraryAreVerifiedWithEveryAlgorithm(t *testing.T) {
	i := newIssuer(t)
	secret := []byte(strings.Repeat("0123456789abcdef", 2))
	byKeys := newJWT(t, JWTConfig{Keys: fileKeys(t, i.set("rsa", "ec", "ed")), Issuer: "https://login.example", Audience: "firstbell", Claims: []string{"/nested/id", "grade"}})
	bySecret := newJWT(t, JWTConfig{Secrets: [][]byte{[]byte(strings.Repeat("old", 20)), secret}})
	for _, c := range []struct {
		name, token string
		v           *JWT
	}{
		{"RS256", i.token("rsa", claimsOf("s1", map[string]any{"nested": map[string]any{"id": 77}, "grade": 3})), byKeys},
		{"ES256", i.token("ec", claimsOf("s1", map[string]any{"nested": map[string]any{"id": "77"}, "grade": "3"})), byKeys},
		{"EdDSA", i.token("ed", claimsOf("s1", map[string]any{"nested": map[string]any{"id": 77}, "grade": 3})), byKeys},
		{"ES256 without a key id", token(t, ecKey(), "", claimsOf("s1", map[string]any{"nested": map[string]any{"id": 77}, "grade": 3})), byKeys},
		{"HS256", token(t, secret, "", claimsOf("s1")), bySecret},
	} {
		for _, how := range []string{"cold", "warm"} {
			p, err := c.v.Verify(context.Background(), bearer(c.token))
			if err != nil || p.Student != "s1" || p.School != "hangang" || p.Class != "3-2" {
				t.Errorf("%s, %s: got %+v, %v; want s1 of hangang in 3-2", c.name, how, p, err)
				continue
			}
			if c.v == byKeys && (p.Claim("/nested/id") != "77" || p.Claim("grade") != "3" || p.Claim("other") != "") {
				t.Errorf("%s, %s: its claims are %+v, want 77 and 3", c.name, how, p.claims)
			}
		}
	}
	if s := byKeys.Stats(); s.Verified != 4 || s.Warm != 4 || s.Known != 4 || s.Keys.Keys != 3 {
		t.Errorf("stats: got %+v, want 4 verified, 4 warm, 4 known by 3 keys", s)
	}
}

func TestBadTokensVouchForNobody(t *testing.T) {
	i := newIssuer(t)
	v := newJWT(t, JWTConfig{Keys: fileKeys(t, i.set("rsa", "ec")), Issuer: "https://login.example", Audience: "firstbell"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() { v.Run(ctx); close(ended) }() // so that a look for an unknown key is over at once
	public := rsaPEM(t, &rsaKey().PublicKey)
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	content, _ := json.Marshal(claimsOf("s1"))
	hour := func(h int) int64 { return time.Now().Add(time.Duration(h) * time.Hour).Unix() }
	good := i.token("ec", claimsOf("s1"))
	parts := strings.Split(good, ".")
	ec := func(content string) string { return raw(t, ecKey(), `{"alg":"ES256","kid":"ec"}`, content) }
	for _, c := range []struct {
		name, token string
		says        string
	}{
		{"expired", i.token("rsa", claimsOf("s1", map[string]any{"exp": hour(-1)})), "expired"},
		{"of 1970", i.token("rsa", claimsOf("s1", map[string]any{"exp": 1})), "expired"},
		{"not yet valid", i.token("rsa", claimsOf("s1", map[string]any{"nbf": hour(1)})), "not valid yet"},
		{"not valid before 2999", i.token("rsa", claimsOf("s1", map[string]any{"nbf": 32472144000, "exp": 32472144001})), "not valid yet"},
		{"issued in the future", i.token("rsa", claimsOf("s1", map[string]any{"iat": hour(1)})), "in the future"},
		{"without an end", i.token("rsa", claimsOf("s1", map[string]any{"exp": nil})), "lacks a claim"},
		{"for somebody else", i.token("rsa", claimsOf("s1", map[string]any{"aud": "bank"})), "somebody else"},
		{"of another issuer", i.token("rsa", claimsOf("s1", map[string]any{"iss": "https://evil.example"})), "another issuer"},
		{"alg none", b64(`{"alg":"none"}`) + "." + b64(string(content)) + ".", "signature or algorithm"},
		{"alg None", b64(`{"alg":"None","kid":"ec"}`) + "." + b64(string(content)) + "." + parts[2], "cannot be read"},
		{"no alg", b64(`{"kid":"ec"}`) + "." + b64(string(content)) + "." + parts[2], "cannot be read"},
		{"HS256 signed with the RSA public key", token(t, public, "rsa", claimsOf("s1")), "signature or algorithm"},
		{"HS256 signed with the modulus", token(t, rsaKey().N.Bytes(), "rsa", claimsOf("s1")), "signature or algorithm"},
		{"RS256 by the key of ES256", token(t, rsaKey(), "ec", claimsOf("s1")), "not that of its key"},
		{"another key of the same id", token(t, otherRSAKey(), "rsa", claimsOf("s1")), "signature or algorithm"},
		{"a key that is nobody's", token(t, edKey(), "unknown", claimsOf("s1")), "a key that its issuer does not have"},
		{"EdDSA, of which there is no key", token(t, edKey(), "", claimsOf("s1")), "a key that its issuer does not have"},
		{"changed content", parts[0] + "." + b64(strings.Replace(string(content), "s1", "s2", 1)) + "." + parts[2], "signature or algorithm"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature or algorithm"},
		{"two parts", parts[0] + "." + parts[1], "no signed JSON Web Token"},
		{"four parts", good + ".x", "no signed JSON Web Token"},
		{"five parts, encrypted", good + ".x.y", "no signed JSON Web Token"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "base64url"},
		{"NUL", parts[0] + "\x00." + parts[1] + "." + parts[2], "base64url"},
		{"bytes that are not UTF-8", "\xff\xfe." + parts[1] + "." + parts[2], "base64url"},
		{"a claim that is not UTF-8", ec("{\"sub\":\"\xff\",\"exp\":4000000000}"), "UTF-8"},
		{"a header twice", raw(t, ecKey(), `{"alg":"ES256","alg":"none","kid":"ec"}`, string(content)), "a name twice"},
		{"a claim twice", ec(`{"sub":"s1","sub":"s2","exp":4000000000}`), "a name twice"},
		{"a claim twice, deep within", ec(`{"sub":"s1","exp":4000000000,"x":[{"a":1,"a":2}]}`), "a name twice"},
		{"claims that are a list", ec(`[1]`), "not a JSON object"},
		{"two contents", ec(`{"sub":"s1","exp":4000000000}{}`), "more than a JSON object"},
		{"nested without end", ec(`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`), "too deep"},
		{"critical extensions", raw(t, ecKey(), `{"alg":"ES256","kid":"ec","crit":["x"],"x":1}`, string(content)), "extensions"},
		{"a key id that is a number", raw(t, ecKey(), `{"alg":"ES256","kid":7}`, string(content)), "names its key"},
		{"a key id of 10 kB", raw(t, ecKey(), `{"alg":"ES256","kid":"`+strings.Repeat("k", 2000)+`"}`, string(content)), "names its key"},
		{"exp a text", ec(`{"sub":"s1","exp":"4000000000"}`), "exp is not a number"},
		{"exp beyond all years", ec(`{"sub":"s1","exp":1e300}`), "exp is no date"},
		{"exp beyond numbers", ec(`{"sub":"s1","exp":1e400}`), "exp is no date"},
		{"exp negative", ec(`{"sub":"s1","exp":-1}`), "exp is no date"},
		{"nbf an object", ec(`{"sub":"s1","exp":4000000000,"nbf":{}}`), "nbf is not a number"},
		{"student an object", i.token("ec", claimsOf("s1", map[string]any{"sub": map[string]any{}})), "sub is neither a text nor a number"},
		{"student true", i.token("ec", claimsOf("s1", map[string]any{"sub": true})), "sub is neither"},
		{"student a fraction", i.token("ec", claimsOf("s1", map[string]any{"sub": 1.5})), "number that is no id"},
		{"student of 10 kB", i.token("ec", claimsOf(strings.Repeat("s", 4000))), "longer than 256"},
		{"student with a control character", i.token("ec", claimsOf("s\u00001")), "control character"},
		{"no student", i.token("ec", claimsOf("")), "names no student"},
		{"no school", i.token("ec", claimsOf("s1", map[string]any{"school": nil})), "names no school"},
		{"class a list", i.token("ec", claimsOf("s1", map[string]any{"class": []string{"a"}})), "class is neither"},
		{"10 kB", strings.Repeat("a", 10<<10), "too long"},
	} {
		p, err := v.Verify(context.Background(), bearer(c.token))
		if p != nil {
			t.Errorf("%s: got %+v, want nobody", c.name, p)
		}
		wantRefused(t, c.name, err, 401, c.says)
		if err != nil && len(c.token) > 60 && strings.Contains(err.Error(), c.token[len(c.token)-30:]) {
			t.Errorf("%s: the refusal holds a part of the token: %v", c.name, err)
		}
	}
	if s := v.Stats(); s.Known != 0 || s.Verified != 0 {
		t.Errorf("stats: got %+v, want nobody known", s)
	}
	if _, err := v.Verify(context.Background(), bearer(good)); err != nil {
		t.Errorf("the good one: got %v", err)
	}
	for _, far := range []int64{32472144000, dateMax} { // the year 2999, and the last there is
		if p, err := v.Verify(context.Background(), bearer(i.token("ec", claimsOf("s1", map[string]any{"exp": far})))); err != nil || p.Student != "s1" {
			t.Errorf("ends in %d: got %v, %v", far, p, err)
		}
	}
}

// rsaPEM is a public key as servers publish it: what the classic confusion
// attack signs with.
func rsaPEM(t testing.TB, k *rsa.PublicKey) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOneRequestCarriesOneCredential(t *testing.T) {
	i := newIssuer(t)
	good := i.token("ec", claimsOf("s1"))
	keys := fileKeys(t, i.set("ec"))
	v := newJWT(t, JWTConfig{Keys: keys})
	auth := func(values ...string) *Request {
		r := bearer(good)
		r.Fields = field.List{}
		for _, value := range values {
			r.Fields = append(r.Fields.(field.List), field.Field{Name: "Authorization", Value: value})
		}
		return r
	}
	for _, c := range []struct {
		name   string
		r      *Request
		status int // 0: verified
		says   string
	}{
		{"none", auth(), 401, "logged in"},
		{"empty", auth(""), 401, "logged in"},
		{"Bearer and nothing", auth("Bearer "), 401, "logged in"},
		{"another scheme", auth("Basic czE6eA=="), 401, "logged in"},
		{"two lines", auth("Bearer "+good, "Bearer "+good), 400, "more than one"},
		{"small letters, two spaces", auth("bearer  " + good), 0, ""},
		{"in a cookie, not configured", cookies("session=" + good), 401, "logged in"},
	} {
		p, err := v.Verify(context.Background(), c.r)
		if c.status == 0 {
			if err != nil || p.Student != "s1" {
				t.Errorf("%s: got %v, %v; want s1", c.name, p, err)
			}
			continue
		}
		wantRefused(t, c.name, err, c.status, c.says)
	}

	from, err := ParseSource("cookie:session")
	if err != nil {
		t.Fatal(err)
	}
	v = newJWT(t, JWTConfig{Keys: keys, From: from})
	for line, status := range map[string]int{
		"session=" + good:                             0,
		`a=b; session="` + good + `"`:                 0,
		"session=" + good + "; session":               0,
		"Session=" + good:                             401,
		"session=; a=b":                               401,
		"session=" + good + "; session=" + good:       400,
		"session=; session=" + good:                   400,
		"xsession=" + good + ";session=" + good + ";": 0,
	} {
		p, err := v.Verify(context.Background(), cookies(line))
		if got := statusOf(err); got != status || (err == nil) != (p != nil) {
			t.Errorf("Cookie: %.40s…: got %v, want %d", line, err, status)
		}
	}
	if got := statusOf(errOf(v.Verify(context.Background(), cookies("session="+good, "session="+good)))); got != 400 {
		t.Errorf("a cookie in two lines: got %d, want 400", got)
	}
	if !v.Credential().Ambient || newJWT(t, JWTConfig{Keys: keys}).Credential().Ambient {
		t.Error("a cookie is sent by the browser itself, a Bearer token is not")
	}
}

func errOf(_ *Person, err error) error { return err }

func statusOf(err error) int {
	if r, ok := err.(*Refusal); ok {
		return r.Status
	}
	return 0
}

func TestAConfigurationThatProtectsNothingIsRefused(t *testing.T) {
	keys := fileKeys(t, newIssuer(t).set("ec"))
	for name, c := range map[string]JWTConfig{
		"no keys":        {Student: "sub"},
		"both":           {Student: "sub", Keys: keys, Secrets: [][]byte{make([]byte, 32)}},
		"a short secret": {Student: "sub", Secrets: [][]byte{make([]byte, 31)}},
		"no student":     {Keys: keys},
		"alg none":       {Student: "sub", Keys: keys, Algorithms: []string{"none"}},
		"HS256 of a set": {Student: "sub", Keys: keys, Algorithms: []string{"RS256", "HS256"}},
	} {
		if _, err := NewJWT(c); err == nil {
			t.Errorf("%s: got a verifier, want an error", name)
		}
	}
	if _, err := NewCookie(CookieConfig{Name: "s", Keys: [][]byte{make([]byte, 31)}}); err == nil {
		t.Error("a cookie key of 31 bytes: got a verifier")
	}
	for _, s := range []string{"", "cookie:", "cookie:a b", "header:", "query:token", "Bearer"} {
		if _, err := ParseSource(s); err == nil {
			t.Errorf("ParseSource(%q): got no error", s)
		}
	}
}

// respond makes a client out of a function.
type respond func(*http.Request) (*http.Response, error)

func (f respond) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func textResponse(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Status: fmt.Sprint(status)}
}
