package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/cache"
)

// TestNobodySeesAnothersPage lets many users ask for the same few URLs at once.
// Every answer names whom it was made for, and how far it may go: to all, to
// one language, or to one user.
func TestNobodySeesAnothersPage(t *testing.T) {
	kinds := []struct {
		name   string
		fields map[string]string
		reach  string // all, language, user, or account: a user in every language
	}{
		{"public", map[string]string{"Cache-Control": "max-age=60"}, "all"},
		{"language", map[string]string{"Cache-Control": "max-age=60", "Vary": "Accept-Language"}, "language"},
		{"private", map[string]string{"Cache-Control": "private, max-age=60"}, "user"},
		{"no-store", map[string]string{"Cache-Control": "no-store"}, "user"},
		{"no-cache", map[string]string{"Cache-Control": "no-cache", "Etag": `"x"`}, "user"},
		{"silent", map[string]string{}, "user"},
		{"heuristic", map[string]string{"Last-Modified": "Sat, 01 Jan 2000 00:00:00 GMT"}, "user"},
		{"set-cookie", map[string]string{"Cache-Control": "max-age=60", "Set-Cookie": "s=1"}, "user"},
		{"vary-all", map[string]string{"Cache-Control": "max-age=60", "Vary": "*"}, "user"},
		{"vary-cookie", map[string]string{"Cache-Control": "max-age=60", "Vary": "Cookie"}, "account"},
		{"withheld", map[string]string{"Cache-Control": `max-age=60, private="X-User"`, "X-User": "user"}, "all"},
		{"error", map[string]string{"X-Status": "503"}, "user"},
		{"expired", map[string]string{"Cache-Control": "max-age=0"}, "user"},
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond)
		user := r.Header.Get("X-User-Id")
		if r.Header.Get("Cookie") == "" && r.Header.Get("Authorization") == "" {
			user = "nobody"
		}
		for _, k := range kinds {
			if r.URL.Path != "/"+k.name {
				continue
			}
			for name, value := range k.fields {
				if name == "X-User" {
					value = user
				}
				w.Header().Set(name, value)
			}
			if k.fields["X-Status"] != "" {
				w.WriteHeader(503)
			}
			fmt.Fprintf(w, "for %s %s", user, r.Header.Get("Accept-Language"))
		}
	}
	for seed := range uint64(4) {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, answer, cached(cache.Policy{DefaultTTL: time.Hour, StaleIfError: time.Hour, StaleWhileRevalidate: time.Hour}))
			var wg sync.WaitGroup
			for client := range 20 {
				rng := rand.New(rand.NewPCG(seed, uint64(client)))
				wg.Go(func() {
					for range 40 {
						k := kinds[rng.IntN(len(kinds))]
						user, language := fmt.Sprintf("u%d", client), []string{"ko", "en"}[rng.IntN(2)]
						credential := []string{"Cookie: s=" + user, "Authorization: Bearer " + user}[rng.IntN(2)]
						fields := []string{"X-User-Id: " + user, "Accept-Language: " + language, credential}
						if rng.IntN(4) == 0 {
							fields = append(fields, "Cache-Control: no-cache")
						}
						a := g.get("/"+k.name, fields...)
						if a.StatusCode == 503 && !strings.HasPrefix(a.body, "for ") {
							continue // a shared error names nobody
						}
						gotUser, gotLanguage, _ := strings.Cut(strings.TrimPrefix(a.body, "for "), " ")
						if gotUser != user && (k.reach == "user" || k.reach == "account" || strings.HasPrefix(credential, "Auth")) {
							t.Errorf("seed %d: %s: %s got %q (%s)", seed, k.name, user, a.body, a.cacheStatus())
						}
						if gotLanguage != language && k.reach != "all" && k.reach != "account" {
							t.Errorf("seed %d: %s: asked in %s, got %q", seed, k.name, language, a.body)
						}
						if x := a.Header.Get("X-User"); x != "" && x != user {
							t.Errorf("seed %d: %s: %s got the withheld field of %s", seed, k.name, user, x)
						}
						time.Sleep(time.Duration(rng.IntN(90)) * time.Second)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestAnonymousRoutesKnowNobody lets students with cookies share one lesson.
func TestAnonymousRoutesKnowNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(50 * time.Millisecond)
			if r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
				t.Errorf("the origin was told who asks: %v", r.Header)
			}
			w.Header().Set("Set-Cookie", "session=of-somebody")
			fmt.Fprint(w, "lesson")
		}, cached(cache.Policy{Anonymous: true, DefaultTTL: time.Minute}))
		for i, a := range herd(50, func(i int) *answer {
			return g.get("/l", fmt.Sprintf("Cookie: s=%d", i), fmt.Sprintf("Authorization: Bearer %d", i))
		}) {
			if a.body != "lesson" || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("client %d: got %q, Set-Cookie %q", i, a.body, a.Header.Get("Set-Cookie"))
			}
		}
		if n := len(g.fetched()); n != 1 {
			t.Errorf("fetches: got %d, want 1", n)
		}
	})
}

// TestNobodyIsGivenWhatWasMadeForAnAddressTheyClaim lets an origin answer by the
// address that it is told of, and clients tell one of their own.
func TestNobodyIsGivenWhatWasMadeForAnAddressTheyClaim(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "X-Forwarded-For, X-Forwarded-Proto, Forwarded, Via, X-Real-IP, Host")
			lesson(w, "for "+r.Header.Get("X-Forwarded-For"))
		}, cached(cache.Policy{}))
		ask := func(address byte, claims string) string {
			t.Helper()
			c, err := g.ln.DialWithLocalAddr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, address), Port: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go fmt.Fprintf(c, "GET /l HTTP/1.1\r\nHost: school.example\r\n%sConnection: close\r\n\r\n", claims)
			all, _ := io.ReadAll(c)
			_, body, _ := strings.Cut(string(all), "\r\n\r\n")
			return body
		}
		const claims = "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1;host=school.example;proto=http\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: school.example\r\n"
		for _, step := range []struct {
			address byte
			claims  string
			want    string
			fetches int
		}{
			{1, "", "for 10.0.0.1", 1},
			{1, "", "for 10.0.0.1", 1},
			{2, claims, "for 10.0.0.2", 2},
			{2, "X-Real-IP: 10.0.0.1\r\n", "for 10.0.0.2", 2},
			{1, "X-Forwarded-For: 10.0.0.2\r\n", "for 10.0.0.1", 2},
			{1, "Via: 1.0 fred\r\n", "for 10.0.0.1", 3},
			{1, "Via: 1.0 fred\r\n", "for 10.0.0.1", 3},
		} {
			got := ask(step.address, step.claims)
			settle() // the answer is whole a moment before it is stored
			if got != step.want {
				t.Errorf("10.0.0.%d, claiming %q: got %q, want %q", step.address, step.claims, got, step.want)
			}
			if n := len(g.fetched()); n != step.fetches {
				t.Errorf("10.0.0.%d, claiming %q: %d fetches so far, want %d", step.address, step.claims, n, step.fetches)
			}
		}
	})
}
