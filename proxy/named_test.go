package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"firstbell/cache"
)

// A tongue is the language that the lesson is answered in.
func tongue(acceptLanguage string) string {
	if strings.HasPrefix(acceptLanguage, "ko") {
		return "ko"
	}
	return "en"
}

// TestALanguageSpelledAnotherWayFetchesNoContent: RFC 9110 section 13.1.2. The
// content crosses once for every language, however many ways there are to ask for
// it.
func TestALanguageSpelledAnotherWayFetchesNoContent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var whole, named atomic.Int32
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(100 * time.Millisecond)
			language := tongue(r.Header.Get("Accept-Language"))
			tag := fmt.Sprintf("%q", "lesson-"+language)
			w.Header().Set("Vary", "Accept-Language")
			w.Header().Set("Content-Language", language)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("ETag", tag)
			if strings.Contains(r.Header.Get("If-None-Match"), tag) {
				named.Add(1)
				w.WriteHeader(304)
				return
			}
			whole.Add(1)
			fmt.Fprint(w, "lesson in ", language)
		}, cached(cache.Policy{}))
		languages := []string{"ko", "en", "ko-KR", "en-US", "en-GB, en;q=0.5", "ko, en;q=0.8", "en;q=0.7, fr;q=0.1"}
		for round := range 2 {
			for _, l := range languages {
				for i, a := range herd(5, func(int) *answer { return g.get("/lessons/1", "Accept-Language: "+l) }) {
					if want := "lesson in " + tongue(l); a.StatusCode != 200 || a.body != want || a.Header.Get("Content-Language") != tongue(l) {
						t.Errorf("round %d, client %d in %q: got %d %q in %q, want %q", round, i, l, a.StatusCode, a.body, a.Header.Get("Content-Language"), want)
					}
				}
			}
		}
		if whole.Load() != 2 || int(named.Load()) != len(languages)-2 {
			t.Errorf("fetches: %d of the content and %d answered 304, want 2 and %d", whole.Load(), named.Load(), len(languages)-2)
		}
	})
}

// TestATagOfAVersionGivesNobodyAnotherLanguage lets an origin give all languages
// of a lesson one entity tag, and all users' pages, too.
func TestATagOfAVersionGivesNobodyAnotherLanguage(t *testing.T) {
	for _, tells := range []bool{false, true} {
		t.Run(fmt.Sprint("says the language: ", tells), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var asked, useless atomic.Int32
				g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
					language := tongue(r.Header.Get("Accept-Language"))
					w.Header().Set("Vary", "Accept-Language, Cookie, X-Student")
					w.Header().Set("Cache-Control", "public, max-age=60")
					w.Header().Set("ETag", `"v1"`)
					if tells {
						w.Header().Set("Content-Language", language)
					}
					asked.Add(1)
					if r.Header.Get("If-None-Match") != "" {
						useless.Add(1)
						w.WriteHeader(304)
						return
					}
					fmt.Fprint(w, "lesson in ", language, " for ", r.Header.Get("Cookie"), r.Header.Get("X-Student"))
				}, cached(cache.Policy{DefaultTTL: time.Minute}))
				for round := range 3 {
					for _, who := range []string{"Cookie: user=1", "Cookie: user=2", "X-Student: 1", "X-Student: 2"} {
						_, user, _ := strings.Cut(who, ": ")
						for _, l := range []string{"en", "ko"} {
							a := g.get("/lessons/1", who, "Accept-Language: "+l)
							settle()
							if want := fmt.Sprintf("lesson in %s for %s", l, user); a.StatusCode != 200 || a.body != want {
								t.Errorf("round %d, %s in %s: got %d %q, want %q", round, who, l, a.StatusCode, a.body, want)
							}
						}
					}
				}
				want := int32(0)
				if tells {
					want = 1 // then it is known that the tags do not tell
				}
				if useless.Load() != want || asked.Load() != 8+want {
					t.Errorf("fetches: got %d, %d of them with tags, want %d and %d", asked.Load(), useless.Load(), 8+want, want)
				}
			})
		})
	}
}
