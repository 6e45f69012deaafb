package leaks

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// A Leak is a way of giving somebody what they must not have.
type Leak int

// The ways.
const (
	None Leak = iota
	UserPage
	CookiePage
	SilentPage
	ValidatedPage
	Unvalidated
	AuthPage
	NoStoreAsked
	VaryPage
	OtherURL
	ContentIgnored
	Withheld
	Told
	Foreign
	Mixture
	Short
	Malformed
	Unasked
	Coding
	Unchanged
	Stale
	Silence
	Causeless
	leaksEnd
)

// String is how tables call it.
func (l Leak) String() string {
	return [...]string{
		None:           "nothing",
		UserPage:       "one user's page given to another",
		CookiePage:     "a response with Set-Cookie shared*",
		SilentPage:     "a page without directives, asked for with credentials, shared*",
		ValidatedPage:  "a user's no-cache page given to another after a 304*",
		Unvalidated:    "a no-cache page given without validation",
		AuthPage:       "a page shared against Authorization's rules",
		NoStoreAsked:   "the answer to a no-store request shared",
		VaryPage:       "another variant than Vary allows",
		OtherURL:       "another host's or URL's page",
		ContentIgnored: "the answer to a GET with other content*",
		Withheld:       "another's Set-Cookie, withheld field, trailer or early hint",
		Told:           "who asks, on an anonymous route",
		Foreign:        "content that is not the header section's",
		Mixture:        "bytes of several contents in one",
		Short:          "a content cut short as if it were whole",
		Malformed:      "a response that makes no sense passed on",
		Unasked:        "bytes that nobody asked for",
		Coding:         "a coding that the client refuses",
		Unchanged:      "a page from before a change that was confirmed",
		Stale:          "a page older than it may be",
		Silence:        "no answer in time",
		Causeless:      "an error without a cause",
	}[l]
}

// Leaks lists all of them.
func Leaks() (all []Leak) {
	for l := UserPage; l < leaksEnd; l++ {
		all = append(all, l)
	}
	return all
}

// A Finding is one answer that broke a rule.
type Finding struct {
	Leak     Leak
	Detail   string
	Question string // the request
	Answer   string // what came
	History  string // of the resource until then

	res *resource
}

func (f *Finding) String() string {
	return fmt.Sprintf("%s: %s\n%s\n%s\nbefore that, at the same resource:\n%s", f.Leak, f.Detail, f.Question, f.Answer, f.History)
}

// findingsMax are told in full; the others are counted.
const findingsMax = 8

// A Report is what a run found.
type Report struct {
	Seed     uint64
	Requests int
	Took     time.Duration
	Counts   map[Leak]int
	Kinds    map[Leak]map[string]int // the same by the kind of the URL
	Findings []Finding               // the first ones of each kind, with their history

	Fetches     int // requests that reached the origin
	Shared      int // answers made for somebody else's request, rightly
	NotModified int
	Parts       int // answers of 206
	Problems    int // the proxy's own
	Left        int // questions whose client left early
	Broken      int // answers that ended visibly broken
	Coded       int // answers that the proxy itself had coded
	Purges      int
	SharedKinds map[string]int
}

// Leaked is how many answers broke a rule.
func (r *Report) Leaked() (n int) {
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// Print writes the table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range Leaks() {
		fmt.Fprintf(t, "%s\t%d\n", l, r.Counts[l])
	}
	fmt.Fprintf(t, "all\t%d\n", r.Leaked())
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n* stricter than RFC 9111\n\n%d requests in %s, %d at the origin; %d answers shared, %d not modified, %d parts, %d of the proxy's own; %d clients left early, %d answers visibly broken; seed %d\n",
		r.Requests, r.Took.Round(time.Millisecond), r.Fetches, r.Shared, r.NotModified, r.Parts, r.Problems, r.Left, r.Broken, r.Seed)
	return err
}

// PrintKinds writes which kinds of URLs showed what.
func (r *Report) PrintKinds(w io.Writer) error {
	for _, l := range Leaks() {
		if r.Counts[l] == 0 {
			continue
		}
		var parts []string
		for _, kind := range slices.Sorted(maps.Keys(r.Kinds[l])) {
			parts = append(parts, fmt.Sprintf("%s %d", kind, r.Kinds[l][kind]))
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", l, strings.Join(parts, ", ")); err != nil {
			return err
		}
	}
	return nil
}

// A tally counts what happens in a run.
type tally struct {
	mu sync.Mutex // guards all
	Report
}

func (w *world) found(f Finding) {
	now := time.Now()
	t := &w.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Counts[f.Leak]++
	if f.res != nil {
		if t.Kinds[f.Leak] == nil {
			t.Kinds[f.Leak] = make(map[string]int)
		}
		t.Kinds[f.Leak][f.res.kind.name]++
	}
	if t.Counts[f.Leak] > 2 && len(t.Findings) >= findingsMax || t.Counts[f.Leak] > findingsMax {
		return
	}
	if f.res != nil {
		f.History = f.res.history(now)
	}
	t.Findings = append(t.Findings, f)
}

// count changes the tally.
func (w *world) count(change func(*Report)) {
	w.tally.mu.Lock()
	change(&w.tally.Report)
	w.tally.mu.Unlock()
}
