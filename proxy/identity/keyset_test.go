package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// fakeIssuer is an issuer's server without a network.
type fakeIssuer struct {
	*issuer
	mu      sync.Mutex // guards what follows
	serves  []byte
	down    bool
	fetches int
}

func newFakeIssuer(t *testing.T, ids ...string) *fakeIssuer {
	i := &fakeIssuer{issuer: newIssuer(t)}
	i.serves = i.set(ids...)
	return i
}

func (i *fakeIssuer) client() *http.Client {
	return &http.Client{Transport: respond(func(*http.Request) (*http.Response, error) {
		time.Sleep(100 * time.Millisecond)
		i.mu.Lock()
		defer i.mu.Unlock()
		i.fetches++
		if i.down {
			return nil, errors.New("connection refused")
		}
		return textResponse(200, string(i.serves)), nil
	})}
}

func (i *fakeIssuer) change(down bool, serves []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down, i.serves = down, serves
}

func (i *fakeIssuer) fetched() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// run starts the verifier of a set at the issuer; keep may be empty.
func (i *fakeIssuer) run(t *testing.T, keep string, log io.Writer) (v *JWT, stop func()) {
	t.Helper()
	k, err := OpenKeySet(KeySetConfig{Location: "http://login.example/jwks.json", Keep: keep, Client: i.client(), Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	v = newJWT(t, JWTConfig{Keys: k})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { v.Run(ctx); close(ended) }()
	return v, func() { cancel(); <-ended }
}

func TestARotatedKeyIsFoundWithOneLookForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t, "rsa")
		v, stop := i.run(t, "", io.Discard)
		defer stop()
		// The very first tokens wait for the very first look.
		if _, err := v.Verify(t.Context(), bearer(i.token("rsa", claimsOf("s1")))); err != nil {
			t.Fatalf("the first token: %v", err)
		}
		time.Sleep(time.Minute)
		before := i.fetched()
		i.change(false, i.set("rsa", "ec"))
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				if _, err := v.Verify(t.Context(), bearer(i.token("ec", claimsOf("s"+string(rune('a'+n%26)))))); err != nil {
					t.Errorf("a token of the new key: %v", err)
				}
			})
		}
		all.Wait()
		if got := i.fetched() - before; got != 1 {
			t.Errorf("looks for the new key: got %d, want 1 for all", got)
		}
	})
}

func TestStrangersTokensDoNotMakeUsAskTheIssuerForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t, "rsa")
		v, stop := i.run(t, "", io.Discard)
		defer stop()
		time.Sleep(time.Minute)
		before, began := i.fetched(), time.Now()
		for n := range 1000 {
			_, err := v.Verify(t.Context(), bearer(token(t, ecKey(), "stranger"+string(rune('a'+n%26)), claimsOf("s1"))))
			wantRefused(t, "a stranger", err, 401, "does not have")
			if n%100 == 99 {
				time.Sleep(time.Second)
			}
		}
		if got, took := i.fetched()-before, time.Since(began); got > 2 || took > 15*time.Second {
			t.Errorf("1,000 strangers in %v: got %d looks, want at most one every %v", took, got, unknownPause)
		}
	})
}

func TestAnIssuerDownForDaysTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t, "rsa", "ec")
		keep := filepath.Join(t.TempDir(), "jwks.json")
		var log bytes.Buffer
		v, stop := i.run(t, keep, &log)
		time.Sleep(time.Minute)
		i.change(true, nil)
		for range 5 {
			time.Sleep(24 * time.Hour)
			if _, err := v.Verify(t.Context(), bearer(i.token("ec", claimsOf("s1")))); err != nil {
				t.Errorf("the issuer is down: got %v, want s1", err)
			}
		}
		s := v.Stats().Keys
		if s.Err == "" || s.Keys != 2 || s.Failures == 0 || !strings.Contains(log.String(), "stay in force") {
			t.Errorf("the state hides the outage: %+v\n%s", s, log.String())
		}
		// Who names no known key hears that nothing can be found out, not that it lies.
		_, err := v.Verify(t.Context(), bearer(token(t, edKey(), "new", claimsOf("s1"))))
		wantRefused(t, "a key that only the issuer could know", err, 503, "not known at the moment")
		stop()

		// A restart, the issuer still down.
		v, stop = i.run(t, keep, io.Discard)
		defer stop()
		if p, err := v.Verify(t.Context(), bearer(i.token("rsa", claimsOf("s2")))); err != nil || p.Student != "s2" {
			t.Errorf("after a restart without the issuer: got %v, %v; want s2", p, err)
		}
		if s := v.Stats().Keys; !s.Kept || s.Keys != 2 {
			t.Errorf("after a restart: got %+v, want 2 kept keys", s)
		}
		i.change(false, i.set("rsa"))
		time.Sleep(DefaultRefresh)
		if s := v.Stats().Keys; s.Kept || s.Keys != 1 || s.Err != "" {
			t.Errorf("the issuer is back: got %+v, want its one key", s)
		}
	})
}

func TestWithoutAnyKeysNobodyIsCalledALiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t, "rsa")
		i.change(true, nil)
		v, stop := i.run(t, "", io.Discard)
		defer stop()
		good := i.token("rsa", claimsOf("s1"))
		for range 3 {
			_, err := v.Verify(t.Context(), bearer(good))
			wantRefused(t, "no keys yet", err, 503, "not known")
		}
		i.change(false, i.set("rsa"))
		time.Sleep(time.Minute)
		if _, err := v.Verify(t.Context(), bearer(good)); err != nil {
			t.Errorf("the issuer is up: got %v", err)
		}
	})
}

func TestAWithdrawnKeyEndsTheSessionsThatItSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t, "rsa", "ec")
		v, stop := i.run(t, "", io.Discard)
		defer stop()
		byRSA, byEC := bearer(i.token("rsa", claimsOf("s1"))), bearer(i.token("ec", claimsOf("s2")))
		for _, r := range []*Request{byRSA, byEC} {
			if _, err := v.Verify(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		i.change(false, i.set("ec"))
		time.Sleep(DefaultRefresh + time.Minute)
		_, err := v.Verify(t.Context(), byRSA)
		wantRefused(t, "signed with the withdrawn key, and known before", err, 401, "does not have")
		if _, err := v.Verify(t.Context(), byEC); err != nil {
			t.Errorf("signed with the key that stays: got %v", err)
		}
	})
}

func TestAVerifiedTokenIsGoodUntilItEndsAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		v := newJWT(t, JWTConfig{Keys: fileKeys(t, i.set("ec"))})
		r := bearer(i.token("ec", claimsOf("s1")))
		for range 6 {
			if _, err := v.Verify(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		time.Sleep(DefaultLeeway)
		_, err := v.Verify(t.Context(), r)
		wantRefused(t, "replayed after its end", err, 401, "expired")
		v.known.sweep(time.Now())
		if s := v.Stats(); s.Known != 0 {
			t.Errorf("known after the end: got %d, want 0", s.Known)
		}
	})
}

func TestAKeySetThatLiesIsRefusedAndTheOldOneStays(t *testing.T) {
	i := newIssuer(t)
	good := string(i.set("rsa", "ec"))
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := func(key any, id string) string {
		text, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: id})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	t.Setenv("GODEBUG", "rsa1024min=0") // makes a weak key for once
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	rsaJWK, ecJWK := jwk(&rsaKey().PublicKey, "r"), jwk(&ecKey().PublicKey, "e")
	for _, c := range []struct{ name, text, says string }{
		{"nothing", "", "not a JSON object"},
		{"a page", "<!doctype html><html><body>Please log in</body></html>", "a page"},
		{"another document", `{"issuer":"https://login.example"}`, `no list "keys"`},
		{"no keys", `{"keys":[]}`, "none of its keys"},
		{"keys no list", `{"keys":{}}`, `no list "keys"`},
		{"keys null", `{"keys":null}`, `no list "keys"`},
		{"huge", set(`{"kty":"RSA","x5c":["` + strings.Repeat("A", keySetBytesMax) + `"]}`), "more than"},
		{"many", set(strings.TrimSuffix(strings.Repeat(`{"kty":"XX"},`, keysMax+1), ",")), "65 keys"},
		{"one id twice", set(rsaJWK, strings.Replace(ecJWK, `"e"`, `"r"`, 1)), "kid is there twice"},
		{"keys twice", `{"keys":[],"keys":[` + rsaJWK + `]}`, "a name twice"},
		{"a member twice", set(strings.Replace(rsaJWK, `"kty":"RSA"`, `"kty":"RSA","kty":"EC"`, 1)), "a name twice"},
		{"half of it", good[:len(good)/2], "not JSON"},
		{"not UTF-8", "{\"keys\":[{\"kid\":\"\xff\"}]}", "UTF-8"},
		{"a weak key", set(jwk(&weak.PublicKey, "w")), "1024 bits, fewer than 2048"},
		{"an enormous key", set(`{"kty":"RSA","n":"` + b64(append([]byte{255}, make([]byte, 2048)...)) + `","e":"AQAB"}`), "more than 8192"},
		{"an even modulus", set(`{"kty":"RSA","n":"` + b64(append([]byte{255}, make([]byte, 255)...)) + `","e":"AQAB"}`), "even"},
		{"exponent 1", set(strings.Replace(rsaJWK, `"e":"AQAB"`, `"e":"AQ"`, 1)), "exponent"},
		{"no modulus", set(`{"kty":"RSA","e":"AQAB"}`), "missing"},
		{"wrong kty", set(strings.Replace(rsaJWK, `"kty":"RSA"`, `"kty":"EC","crv":"P-256"`, 1)), "missing"},
		{"two kinds in one", set(strings.Replace(rsaJWK, `"kty":"RSA"`, `"kty":"RSA","crv":"P-256","x":"AA"`, 1)), "two kinds"},
		{"alg of another kind", set(strings.Replace(rsaJWK, `"kty":"RSA"`, `"kty":"RSA","alg":"ES256"`, 1)), "do not go together"},
		{"alg HS256 for a public key", set(strings.Replace(rsaJWK, `"kty":"RSA"`, `"kty":"RSA","alg":"HS256"`, 1)), "do not go together"},
		{"alg none", set(strings.Replace(ecJWK, `"kty":"EC"`, `"kty":"EC","alg":"none"`, 1)), "do not go together"},
		{"not on the curve", set(`{"kty":"EC","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`), "on the curve"},
		{"short coordinates", set(`{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}`), "32 bytes"},
		{"padding", set(`{"kty":"OKP","crv":"Ed25519","x":"` + base64.URLEncoding.EncodeToString(make([]byte, 32)) + `"}`), "base64url"},
		{"a short Ed25519 key", set(`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`), "3 bytes, not 32"},
		{"a private key", set(jwk(ecKey(), "e")), "private key"},
		{"a private RSA key", set(jwk(rsaKey(), "r")), "private key"},
		{"a shared secret", set(`{"kty":"oct","k":"` + b64(make([]byte, 32)) + `"}`), "shared secret"},
		{"n a number", set(`{"kty":"RSA","n":5,"e":"AQAB"}`), "wrong type"},
		{"no kty", set(`{"kid":"x"}`), "no kty"},
		{"a kid of 10 kB", set(strings.Replace(rsaJWK, `"r"`, `"`+strings.Repeat("r", 10000)+`"`, 1)), "longer than 256"},
	} {
		if _, err := parseKeySet([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
		wantOldKeysAfter(t, i, good, c.name, c.text)
	}

	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mixed, err := parseKeySet([]byte(set(rsaJWK, jwk(&p384.PublicKey, "p"), `{"kty":"RSA","use":"enc","n":"x"}`, `{"kty":"AKP","alg":"ML-DSA-44"}`, `{"kty":"OKP","crv":"X25519","x":"AA"}`)))
	if err != nil || len(mixed.all) != 1 || mixed.ignored != 4 {
		t.Errorf("a set with keys for other uses: got %+v, %v; want 1 key and 4 left out", mixed, err)
	}
}

// wantOldKeysAfter wants a set that was good to stay in force when the issuer
// begins to serve text.
func wantOldKeysAfter(t *testing.T, i *issuer, good, name, text string) {
	t.Helper()
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "jwks.json")
	os.WriteFile(file, []byte(good), 0o600)
	k, err := OpenKeySet(KeySetConfig{Location: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	v := newJWT(t, JWTConfig{Keys: k})
	os.WriteFile(file, []byte(text), 0o600)
	if err := k.look(context.Background()); err == nil {
		t.Errorf("%s: it was taken", name)
	}
	if _, err := v.Verify(context.Background(), bearer(i.token("ec", claimsOf("s1")))); err != nil {
		t.Errorf("%s: a token of the old set: got %v", name, err)
	}
	if s := k.Stats(); s.Keys != 2 || s.Err == "" || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%s: got %+v and the log %q, want 2 keys and an error that is shown", name, s, log.String())
	}
}

func TestAKeySetComesOverARealConnection(t *testing.T) {
	i := newIssuer(t)
	var answer atomic.Value
	answer.Store("set")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch answer.Load() {
		case "set":
			w.Header().Set("Content-Type", "application/jwk-set+json")
			w.Write(i.set("ec"))
		case "redirect":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		default:
			http.Error(w, "no", 500)
		}
	}))
	defer srv.Close()
	k, err := OpenKeySet(KeySetConfig{Location: srv.URL + "/jwks.json"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := newJWT(t, JWTConfig{Keys: k}).Verify(t.Context(), bearer(i.token("ec", claimsOf("s1")))); err != nil {
		t.Errorf("a token: %v", err)
	}
	for how, says := range map[string]string{"redirect": "302, a redirect", "endless": "more than", "error": "500"} {
		answer.Store(how)
		if err := k.look(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", how, err, says)
		}
	}
	if s := k.Stats(); s.Keys != 1 || s.Failures != 3 {
		t.Errorf("got %+v, want 1 key and 3 failures", s)
	}
	srv.Close()
	if err := k.look(t.Context()); err == nil || strings.Contains(err.Error(), "Get ") {
		t.Errorf("nobody there: got %v", err)
	}
}
