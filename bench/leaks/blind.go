package leaks

import "strings"

// A Blindness is a rule that the proxy under test cannot keep, as both ends hide
// from it what the rule is about, each knowing it from the other: what a proxy
// without that rule would do. With it tests make sure that each kind of leak is
// seen.
type Blindness struct {
	Rule string
	Want Leak     // what there must be found
	Only []string // the kinds of URLs that show it

	oneHost   bool     // hosts
	oneQuery  bool     // queries
	asks      []string // names of request fields
	says      []string // names of response fields
	directive string   // a directive in Cache-Control
	longer    bool     // lifetimes last for a day
	safe      bool     // methods that change something look safe
	content   bool     // the content of a GET
	vouches   bool     // the origin says 304 to any If-None-Match
	tongues   bool     // every page says that it is in the same language
	endings   bool     // a content cut short looks like a whole one
	swaps     bool     // some bytes of contents are replaced with those of others
}

// Blindnesses are all that there are.
func Blindnesses() []Blindness {
	return []Blindness{
		{Rule: "hosts", Want: OtherURL, Only: []string{"public"}, oneHost: true},
		{Rule: "queries", Want: OtherURL, Only: []string{"public"}, oneQuery: true},
		{Rule: "Cookie and Authorization", Want: SilentPage, Only: []string{"no-directives", "heuristic"}, asks: []string{"Cookie", "Authorization"}},
		{Rule: "Authorization", Want: AuthPage, Only: []string{"public", "missing"}, asks: []string{"Authorization"}},
		{Rule: "no-store in requests", Want: NoStoreAsked, Only: []string{"public", "missing", "moved", "class", "weak-tag", "must-revalidate"}, asks: []string{"Cache-Control"}},
		{Rule: "private", Want: UserPage, Only: []string{"private"}, directive: "private"},
		{Rule: "private for one field", Want: Withheld, Only: []string{"withheld"}, directive: `private="X-Secret"`},
		{Rule: "no-store", Want: UserPage, Only: []string{"no-store-public"}, directive: "no-store"},
		{Rule: "no-cache", Want: Unvalidated, Only: []string{"no-cache-one-tag"}, directive: "no-cache"},
		{Rule: "no-cache for users", Want: ValidatedPage, Only: []string{"no-cache-one-tag"}, directive: "no-cache"},
		{Rule: "whose page a 304 is about", Want: Foreign, Only: []string{"must-revalidate"}, vouches: true},
		{Rule: "which language a 304 is about", Want: VaryPage, Only: []string{"tongue-one-tag"}, tongues: true},
		{Rule: "Set-Cookie", Want: CookiePage, Only: []string{"set-cookie"}, says: []string{"Set-Cookie"}},
		{Rule: "Vary", Want: VaryPage, Only: []string{"language", "cookie"}, says: []string{"Vary"}},
		{Rule: "Vary: *", Want: UserPage, Only: []string{"vary-all"}, says: []string{"Vary"}},
		{Rule: "lifetimes", Want: Stale, Only: []string{"must-revalidate", "s-maxage"}, longer: true},
		{Rule: "methods", Want: Unchanged, Only: []string{"public", "big"}, safe: true},
		{Rule: "codings", Want: Coding, Only: []string{"coded"}, asks: []string{"Accept-Encoding"}, says: []string{"Content-Encoding"}},
		{Rule: "content of a GET", Want: ContentIgnored, Only: []string{"content"}, content: true},
		{Rule: "ends", Want: Short, Only: []string{"cuts"}, endings: true},
		{Rule: "which bytes are whose", Want: Mixture, Only: []string{"public"}, swaps: true},
	}
}

func (b *Blindness) method(m string) string {
	if b != nil && b.safe && m != "GET" && m != "HEAD" {
		return "OPTIONS"
	}
	return m
}

func (b *Blindness) host(h string) string {
	if b != nil && b.oneHost {
		return "one.test"
	}
	return h
}

func (b *Blindness) target(t string) string {
	if b != nil && b.oneQuery {
		t, _, _ = strings.Cut(t, "?")
	}
	return t
}

func (b *Blindness) request(name string) string {
	if b != nil {
		return hidden(b.asks, name)
	}
	return name
}

func (b *Blindness) response(name string) string {
	if b != nil {
		return hidden(b.says, name)
	}
	return name
}

func hidden(names []string, name string) string {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return "X-Hidden-" + name
		}
	}
	return name
}

// reveal is the true name of a field.
func reveal(name string) string {
	if n, ok := strings.CutPrefix(name, "X-Hidden-"); ok {
		return n
	}
	return name
}

// language is what Content-Language says.
func (b *Blindness) language(l string) string {
	if b != nil && b.tongues {
		return languages[1]
	}
	return l
}

func (b *Blindness) hidesContent() bool { return b != nil && b.content }

// control is a Cache-Control without what is hidden.
func (b *Blindness) control(value string) string {
	if b == nil {
		return value
	}
	if b.directive != "" {
		value = strings.ReplaceAll(value, b.directive, "x-hidden")
	}
	if b.longer {
		value = strings.ReplaceAll(value, "age=", "age=8640")
	}
	return value
}
