package leaks

import "time"

// An aspect is something of a request that an origin may look at.
type aspect uint16

const (
	byCookie   aspect = 1 << iota // the user that the cookie names
	byAuth                        // the user that Authorization names
	byLanguage                    // Accept-Language
	byClass                       // X-Class, a field of the school's own
	byAddress                     // X-Forwarded-For, as the proxy says it
	byContent                     // the request's own content
	byTongue                      // what Accept-Language comes to: it is spelled in several ways
	byUser     = byCookie | byAuth
)

// A reach says who may have a response but the one whose request brought it:
// what the origin permits, as read by a person.
type reach uint8

const (
	own      reach = iota // nobody
	plain                 // who sends no credentials, if the request had none
	checked               // the same, if the origin has vouched for it on their own request
	everyone              // all, but for requests with Authorization on either side
	open                  // all
)

// A flaw is something that goes wrong at an origin now and then.
type flaw uint8

const (
	sound      flaw = iota
	fails           // 503, with a page for the one who asked
	drops           // closes the connection instead of answering
	cuts            // dies in mid-content
	overruns        // sends more than it announced: a whole response, of somebody else
	unasked304      // 304 to a request without a condition
	unasked206      // a part to a request for the whole
	garbles         // a header section that makes no sense
	frames          // framing with two meanings
	stalls          // sends the header section and then nothing for a long time
	headTalks       // sends content behind the header section that answers HEAD
	earlyHints      // 103 before the response
	trails          // a trailer section with what is for one user
	nominates       // names fields in Connection
)

// lifetimeLong is longer than any run.
const lifetimeLong = 24 * time.Hour

// A kind is how an origin treats one group of URLs.
type kind struct {
	name   string
	fields []string // what it says to caches
	by     aspect   // what its contents depend on
	vary   aspect   // what tells requests apart that may not share a response
	reach  reach
	life   time.Duration // for how long it may be used; 0: not at all
	stale  time.Duration // and then while it is validated (stale-while-revalidate)
	onErr  time.Duration // and then while the origin fails (stale-if-error)
	strict bool          // what it says forbids the proxy's own settings for stale use
	status int           // 200 unless said
	flaw   flaw
	big    bool // contents of many KiB
	coded  bool // gzip for those who take it
	noTag  bool // no entity tag
	oneTag bool // the entity tag tells versions apart, but not whom they are for
	weak   bool // the entity tag is a weak one
	told   bool // its Content-Language says what Accept-Language came to
	silent bool // states no lifetime: the proxy's default, or a guess, applies
	flips  bool // every second version is private
	chunks bool // its length is not announced
	cookie int  // one in so many responses sets a cookie; 0: none
	text   bool // its media type is one that proxies code
	secret bool // X-Secret is for the one who asked, alone
}

// kinds is the whole of what origins do here.
var kinds = []kind{
	// What may be shared.
	{name: "public", text: true, fields: []string{"Cache-Control: max-age=3"}, reach: everyone, life: 3 * time.Second},
	{name: "public-auth", fields: []string{"Cache-Control: public, max-age=2"}, reach: open, life: 2 * time.Second},
	{name: "s-maxage", fields: []string{"Cache-Control: s-maxage=2, max-age=0"}, reach: open, life: 2 * time.Second, strict: true},
	{name: "must-revalidate", fields: []string{"Cache-Control: max-age=1, must-revalidate"}, reach: open, life: time.Second, strict: true},
	{name: "untagged", text: true, fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, noTag: true},
	{name: "weak-tag", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, weak: true},
	{name: "unannounced", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, chunks: true},
	{name: "big", fields: []string{"Cache-Control: max-age=4"}, reach: everyone, life: 4 * time.Second, big: true},
	{name: "big-unannounced", fields: []string{"Cache-Control: max-age=4"}, reach: everyone, life: 4 * time.Second, big: true, chunks: true},
	{name: "swr", text: true, fields: []string{"Cache-Control: max-age=1, stale-while-revalidate=5"}, reach: everyone, life: time.Second, stale: 5 * time.Second, strict: true},
	{name: "sie", fields: []string{"Cache-Control: max-age=1, stale-if-error=10"}, reach: everyone, life: time.Second, onErr: 10 * time.Second, flaw: fails},
	{name: "missing", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, status: 404},
	{name: "moved", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, status: 301},
	{name: "cdn", fields: []string{"Cache-Control: private", "CDN-Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second},
	{name: "withheld", text: true, fields: []string{`Cache-Control: max-age=3, private="X-Secret"`}, reach: everyone, life: 3 * time.Second, secret: true},
	{name: "flips", text: true, fields: []string{"Cache-Control: max-age=1"}, by: byUser, reach: everyone, life: time.Second, flips: true},
	{name: "cookie-sometimes", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, cookie: 3},

	// What may be shared by those who ask alike.
	{name: "language", text: true, fields: []string{"Cache-Control: max-age=3", "Vary: Accept-Language"}, by: byLanguage, vary: byLanguage, reach: everyone, life: 3 * time.Second},
	{name: "language-swr", fields: []string{"Cache-Control: max-age=1, stale-while-revalidate=4", "Vary: Accept-Language"}, by: byLanguage, vary: byLanguage, reach: everyone, life: time.Second, stale: 4 * time.Second, strict: true, oneTag: true},
	{name: "tongue", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Language"}, by: byTongue, vary: byLanguage, reach: everyone, life: 2 * time.Second, told: true},
	{name: "tongue-one-tag", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Language"}, by: byTongue, vary: byLanguage, reach: everyone, life: 2 * time.Second, told: true, oneTag: true},
	{name: "tongue-of-user", fields: []string{"Cache-Control: public, max-age=2", "Vary: Accept-Language, Cookie, Authorization"}, by: byTongue | byUser, vary: byLanguage | byUser, reach: open, life: 2 * time.Second, told: true, oneTag: true, weak: true},
	{name: "tongue-weak", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Language"}, by: byTongue, vary: byLanguage, reach: everyone, life: 2 * time.Second, told: true, weak: true},
	{name: "tongue-cookies", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Language"}, by: byTongue, vary: byLanguage, reach: everyone, life: 2 * time.Second, told: true, cookie: 3},
	{name: "tongue-private", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Language"}, by: byTongue, vary: byLanguage, reach: everyone, life: 2 * time.Second, told: true, flips: true},
	{name: "class", fields: []string{"Cache-Control: max-age=3", "Vary: x-class"}, by: byClass, vary: byClass, reach: everyone, life: 3 * time.Second},
	{name: "cookie", text: true, fields: []string{"Cache-Control: max-age=3", "Vary: Cookie"}, by: byCookie, vary: byCookie, reach: everyone, life: 3 * time.Second},
	{name: "account", fields: []string{"Cache-Control: public, max-age=3", "Vary: Authorization"}, by: byAuth, vary: byAuth, reach: open, life: 3 * time.Second},
	{name: "all-of-them", fields: []string{"Cache-Control: public, max-age=2", "Vary: Cookie, Accept-Language", "Vary: X-Class,Authorization"}, by: byUser | byLanguage | byClass, vary: byUser | byLanguage | byClass, reach: open, life: 2 * time.Second, oneTag: true},
	{name: "coded", text: true, fields: []string{"Cache-Control: max-age=3", "Vary: Accept-Encoding"}, reach: everyone, life: 3 * time.Second, coded: true},
	{name: "coded-language", fields: []string{"Cache-Control: max-age=2", "Vary: Accept-Encoding, Accept-Language"}, by: byLanguage, vary: byLanguage, reach: everyone, life: 2 * time.Second, coded: true},
	{name: "address", fields: []string{"Cache-Control: max-age=2", "Vary: X-Forwarded-For"}, by: byAddress, vary: byAddress, reach: everyone, life: 2 * time.Second},

	// What states no lifetime.
	{name: "no-directives", by: byUser, reach: plain, silent: true},
	{name: "heuristic", fields: []string{"Last-Modified: of the version"}, by: byUser, reach: plain, life: lifetimeLong, silent: true, noTag: true},
	{name: "public-guessed", fields: []string{"Cache-Control: public", "Last-Modified: of the version"}, by: byUser, reach: plain, life: lifetimeLong, silent: true, noTag: true},
	{name: "pragma", fields: []string{"Pragma: no-cache"}, by: byUser, reach: plain, silent: true},

	// What is for one user, said in many ways.
	{name: "private", fields: []string{"Cache-Control: private, max-age=60"}, by: byUser},
	{name: "private-oddly", fields: []string{"Cache-Control: max-age=60,, PrIvAtE =x"}, by: byUser},
	{name: "private-second-line", fields: []string{"Cache-Control: max-age=60", "cache-control: private"}, by: byUser},
	{name: "private-and-public", fields: []string{"Cache-Control: public, max-age=60, private"}, by: byUser},
	{name: "private-unclosed", fields: []string{`Cache-Control: max-age=60, private="X-Secret`}, by: byUser},
	{name: "private-nominated", fields: []string{"Connection: Cache-Control, X-Other", "Cache-Control: private, max-age=60"}, by: byUser},
	{name: "no-store", fields: []string{"Cache-Control: no-store"}, by: byUser},
	{name: "no-store-public", fields: []string{"Cache-Control: public, max-age=60, no-store"}, by: byUser},
	{name: "expired", fields: []string{"Cache-Control: max-age=0"}, by: byUser, reach: plain, noTag: true},
	{name: "expired-by-date", fields: []string{"Expires: 0"}, by: byUser, reach: plain, noTag: true},
	{name: "unreadable", fields: []string{"Cache-Control: max-age=sixty"}, by: byUser, reach: plain, noTag: true},
	{name: "vary-all", fields: []string{"Cache-Control: max-age=60", "Vary: *"}, by: byUser},
	{name: "vary-all-hidden", fields: []string{"Cache-Control: max-age=60", "Vary: Accept-Language", "Vary: X-Class, *"}, by: byUser | byLanguage},
	{name: "cdn-private", fields: []string{"Cache-Control: max-age=60", "CDN-Cache-Control: no-store"}, by: byUser},
	{name: "set-cookie", fields: []string{"Cache-Control: max-age=60"}, by: byUser, reach: everyone, life: time.Minute, cookie: 1},
	{name: "set-cookie-public", fields: []string{`Cache-Control: public, max-age=60, no-cache="Set-Cookie"`}, by: byUser, reach: open, life: time.Minute, cookie: 1},
	{name: "login", fields: []string{"Cache-Control: private"}, by: byUser, status: 302, cookie: 2},
	{name: "content", fields: []string{"Cache-Control: max-age=2"}, by: byContent, vary: byContent, reach: everyone, life: 2 * time.Second},

	// What must be validated at every use.
	{name: "no-cache", fields: []string{"Cache-Control: no-cache"}, by: byUser, reach: checked},
	{name: "no-cache-one-tag", fields: []string{"Cache-Control: no-cache, max-age=60"}, by: byUser, reach: checked, oneTag: true},
	{name: "no-cache-public", fields: []string{"Cache-Control: public, no-cache"}, by: byUser, reach: checked, oneTag: true},
	{name: "private-one-tag", fields: []string{"Cache-Control: private, max-age=0"}, by: byUser, oneTag: true},

	// What goes wrong.
	{name: "fails", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: fails},
	{name: "drops", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: drops},
	{name: "cuts", text: true, fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: cuts},
	{name: "cuts-unannounced", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: cuts, chunks: true},
	{name: "cuts-big", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, flaw: cuts, big: true},
	{name: "cuts-coded", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: cuts, coded: true},
	{name: "cuts-private", fields: []string{"Cache-Control: private"}, by: byUser, oneTag: true, flaw: cuts},
	{name: "overruns", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: overruns},
	{name: "overruns-private", fields: []string{"Cache-Control: private"}, by: byUser, flaw: overruns},
	{name: "unasked-304", fields: []string{"Cache-Control: max-age=1"}, flaw: unasked304, reach: everyone, life: time.Second},
	{name: "unasked-206", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: unasked206},
	{name: "garbles", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: garbles},
	{name: "frames", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: frames},
	{name: "stalls", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: stalls},
	{name: "head-talks", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: headTalks},
	{name: "hints", fields: []string{"Cache-Control: max-age=1"}, reach: everyone, life: time.Second, flaw: earlyHints},
	{name: "trails", fields: []string{"Cache-Control: max-age=2"}, reach: everyone, life: 2 * time.Second, flaw: trails, chunks: true},
	{name: "nominates", fields: []string{"Cache-Control: max-age=2", "Connection: X-Secret, close"}, reach: everyone, life: 2 * time.Second, flaw: nominates, secret: true},
}
