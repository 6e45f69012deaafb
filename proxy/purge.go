package proxy

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"firstbell/cache"
)

// purgeSelectorsMax bounds the selectors of one purge.
const purgeSelectorsMax = 1000

// Purge says what is to be purged, as people write it. URLs are as clients ask
// for them; whether they say http, https or neither makes no difference, and
// parameters that their route ignores are ignored. Hosts are exact names,
// *.name or *. Prefixes are a host and a path, school.example/lessons/*, taken
// in whole segments. Tags are members of Surrogate-Key or Cache-Tag.
type Purge struct {
	URLs     []string `json:"urls,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	Tags     []string `json:"tags,omitempty"`

	Hard   bool `json:"hard,omitempty"`    // take out; otherwise make stale
	DryRun bool `json:"dry_run,omitempty"` // count, on disk too, and change nothing
}

// Purged is what came of one selector.
type Purged struct {
	By    string `json:"by"` // url, host, prefix or tag
	What  string `json:"what"`
	Count int64  `json:"count"` // about how many stored responses it means; in memory, unless it is a dry run

	// AtLeast says that there are more on disk, perhaps: the time was over
	// before all of it was counted.
	AtLeast bool `json:"at_least,omitempty"`
}

// Purge makes what u means stale or takes it out, from its return on. On an
// error nothing was purged when the list is nil; else it was, but could not be
// written down and may be forgotten with the process.
//
// A dry run reads what lies on disk, until ctx ends.
func (p *Proxy) Purge(ctx context.Context, u *Purge) ([]Purged, error) {
	var selectors []cache.Selector
	var done []Purged
	for _, set := range []struct {
		by   cache.SelectBy
		what []string
		read func(string) (string, error)
	}{
		{cache.ByURL, u.URLs, p.readPurgeURL},
		{cache.ByHost, u.Hosts, readPurgeHost},
		{cache.ByPrefix, u.Prefixes, readPurgePrefix},
		{cache.ByTag, u.Tags, readPurgeTag},
	} {
		for _, what := range set.what {
			text, err := set.read(what)
			if err != nil {
				return nil, fmt.Errorf("purging by %s %q: %w", set.by, what, err)
			}
			selectors = append(selectors, cache.Selector{By: set.by, Text: text})
			done = append(done, Purged{By: set.by.String(), What: what})
		}
	}
	switch n := len(selectors); {
	case n == 0:
		return nil, fmt.Errorf("purging nothing: name urls, hosts, prefixes or tags")
	case n > purgeSelectorsMax:
		return nil, fmt.Errorf("purging by %d selectors: at most %d at once; a host, prefix or tag takes many", n, purgeSelectorsMax)
	}
	counts, whole, err := []int64(nil), true, error(nil)
	if u.DryRun {
		counts, whole, err = p.cache.CountPurge(ctx, selectors)
	} else {
		counts, err = p.cache.Purge(selectors, u.Hard)
	}
	if counts == nil {
		return nil, err
	}
	for i := range done {
		done[i].Count, done[i].AtLeast = counts[i], !whole
	}
	return done, err
}

// readPurgeURL reads a URL into authority, space, path and query, less the
// parameters that its route leaves out of the key.
func (p *Proxy) readPurgeURL(text string) (string, error) {
	authority, rest, err := splitPurge(text)
	if err != nil {
		return "", err
	}
	host, ok := readAuthority(nil, []byte(authority))
	if !ok {
		return "", fmt.Errorf("%q is not a host", authority)
	}
	t, refusal := readTarget([]byte(rest))
	if refusal != "" {
		return "", fmt.Errorf("no request can ask for it: %s", refusal)
	}
	x := exchange{authority: []byte(authority)}
	rt := &Route{}
	if table := p.table.Load(); table != nil {
		if found, _ := table.find(host, t.path, "GET"); found != nil {
			rt = found
		}
	}
	return strings.TrimPrefix(string(x.appendKey(nil, rt, t)), " "), nil
}

func readPurgeHost(text string) (string, error) {
	name := strings.TrimPrefix(text, "*.")
	if text == "*" {
		return text, nil
	}
	host, ok := readAuthority(nil, []byte(name))
	if !ok || strings.ContainsRune(strings.Trim(name, "[]"), '/') {
		return "", fmt.Errorf(`write a name such as "www.school.example", "*.school.example" or "*"`)
	}
	return text[:len(text)-len(name)] + string(host), nil
}

func readPurgePrefix(text string) (string, error) {
	authority, path, err := splitPurge(text)
	if err != nil {
		return "", err
	}
	host, err := readPurgeHost(authority)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(path, "?#") {
		return "", fmt.Errorf("a prefix has no query; purge by url for one")
	}
	return host + " " + path, nil
}

// splitPurge splits a URL or prefix into authority and what follows.
func splitPurge(text string) (authority, rest string, err error) {
	if scheme, after, found := strings.Cut(text, "://"); found {
		if !slices.Contains([]string{"http", "https"}, strings.ToLower(scheme)) {
			return "", "", fmt.Errorf("%s is not cached; write http, https or no scheme", scheme)
		}
		text = after
	}
	authority, rest, found := strings.Cut(strings.TrimPrefix(text, "//"), "/")
	if authority == "" || !found {
		return "", "", fmt.Errorf("write a host and a path, such as www.school.example/lessons/1")
	}
	return authority, escapePurge("/" + rest), nil
}

// escapePurge percent-encodes what people write plainly and browsers do not
// send so: spaces and letters beyond ASCII.
func escapePurge(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f {
			b.WriteString(url.PathEscape(string([]byte{c})))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func readPurgeTag(text string) (string, error) {
	if strings.TrimSpace(text) != text || text == "" || strings.Contains(text, ",") {
		return "", fmt.Errorf("write one tag as it stands in Surrogate-Key or Cache-Tag")
	}
	return text, nil
}

// readPin reads what is to be pinned: a host and a path that ends in /* is a
// prefix, everything else a URL.
func readPin(text string, url func(string) (string, error)) (cache.Selector, error) {
	s, read := cache.Selector{By: cache.ByURL}, url
	if strings.HasSuffix(text, "/*") {
		s.By, read = cache.ByPrefix, readPurgePrefix
	}
	var err error
	s.Text, err = read(text)
	return s, err
}

// CheckPin says whether Pin would take the text.
func CheckPin(text string) error {
	_, err := readPin(text, (&Proxy{}).readPurgeURL)
	return err
}

// Pin has what the texts mean stay in memory within so many bytes, 0 for a
// quarter of it, and nothing else any more.
func (p *Proxy) Pin(texts []string, bytes int64) error {
	selectors := make([]cache.Selector, len(texts))
	for i, text := range texts {
		s, err := readPin(text, p.readPurgeURL)
		if err != nil {
			return fmt.Errorf("pinning %q: %w", text, err)
		}
		selectors[i] = s
	}
	return p.cache.Pin(selectors, bytes)
}
