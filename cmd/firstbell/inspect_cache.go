package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
)

const inspectCacheUsage = `inspect cache -config FILE, or inspect cache [flags] DIR

Lists what the cache keeps on disk: URL, size, age, for how long it is fresh or
since when stale, and tags. It takes no lock and writes nothing, whether serve
runs or not. What was purged and not yet removed is marked.`

// cacheWanted are the flags of inspect cache.
type cacheWanted struct {
	host, prefix string
	limit        int
	asJSON       bool
}

// cachedJSON is a stored response, with names that stay.
type cachedJSON struct {
	URL    string    `json:"url"`
	Host   string    `json:"host"`
	Status int       `json:"status"`
	Bytes  int64     `json:"bytes"`
	Stored time.Time `json:"stored"` // when the origin last vouched for it
	Age    float64   `json:"age"`    // seconds
	TTL    float64   `json:"ttl"`    // seconds; negative when it is stale
	Tags   []string  `json:"tags,omitempty"`
	Vary   []string  `json:"vary,omitempty"`
	Purged bool      `json:"purged,omitempty"`
}

func runInspectCache(args []string, stdout, stderr io.Writer) error {
	f := newFlags("inspect cache", inspectCacheUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	var w cacheWanted
	f.StringVar(&w.host, "host", "", "list what is of this `HOST`")
	f.StringVar(&w.prefix, "prefix", "", "list URLs that begin with `URL`, such as http://www.school.example/lessons")
	f.IntVar(&w.limit, "limit", 0, "list at most `N`; 0: all")
	f.BoolVar(&w.asJSON, "json", false, "write JSON, a line each")
	if err := f.Parse(args); err != nil {
		return parseFlags(f, args)
	}
	dir, err := cacheDir(*file, f.Args(), stderr)
	if err != nil {
		return err
	}
	if w.limit < 0 {
		return usageError("firstbell inspect cache: -limit: choose 0 or more")
	}
	return listCache(stdout, dir, &w)
}

// cacheDir is where the cache lies: named, or as the file says.
func cacheDir(file string, named []string, stderr io.Writer) (string, error) {
	switch {
	case file == "" && len(named) != 1 || file != "" && len(named) > 0:
		return "", usageError("firstbell inspect cache: name the file by -config FILE, or the cache's directory")
	case file == "":
		if info, err := os.Stat(named[0]); err != nil || !info.IsDir() {
			return "", fmt.Errorf("inspecting: %s is not a directory", named[0])
		}
		return named[0], nil
	}
	c, problems := config.LoadToRead(file)
	if c == nil {
		printProblems(stderr, problems.Errors())
		return "", said(problems.Errors())
	}
	if c.Cache.Disk.Path == "" {
		return "", fmt.Errorf("inspecting: %s has no cache.disk, so nothing of the cache is on disk", file)
	}
	return c.Cache.Disk.Path, nil
}

// listCache writes a line for each stored response that is wanted.
func listCache(stdout io.Writer, dir string, w *cacheWanted) error {
	now, shown, bytes := time.Now(), 0, int64(0)
	t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	lines := json.NewEncoder(stdout)
	lines.SetEscapeHTML(false)
	if !w.asJSON {
		fmt.Fprintln(t, "URL\tstatus\tbytes\tage\tfreshness\ttags")
	}
	var failed error
	bad, err := cache.EachOnDisk(dir, func(s *cache.StoredOnDisk) bool {
		c := cachedOf(s, now)
		if w.host != "" && !strings.EqualFold(c.Host, w.host) || !strings.HasPrefix(c.URL, w.prefix) {
			return true
		}
		shown++
		bytes += c.Bytes
		if w.asJSON {
			failed = lines.Encode(c)
		} else {
			_, failed = fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\n", c.URL, c.Status, c.Bytes, rounded(c.Age), freshness(c), strings.Join(c.Tags, " "))
		}
		return failed == nil && (w.limit == 0 || shown < w.limit)
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("inspecting: %s holds no cache; serve makes it when it starts", dir)
	case err != nil:
		return fmt.Errorf("inspecting: %w", err)
	case failed != nil || w.asJSON:
		return failed
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%d stored responses, %d bytes%s\n", shown, bytes, plural("; left out: ", bad, "file that is none"))
	return nil
}

func cachedOf(s *cache.StoredOnDisk, now time.Time) cachedJSON {
	scheme, rest, _ := strings.Cut(s.Key, " ")
	authority, target, _ := strings.Cut(rest, " ")
	return cachedJSON{
		URL: scheme + "://" + authority + target, Host: s.Host, Status: s.Status, Bytes: s.Bytes, Stored: s.At,
		Age: s.Age(now).Seconds(), TTL: s.FreshFor(now).Seconds(), Tags: s.Tags, Vary: s.Verdict.Vary, Purged: s.Purged,
	}
}

func freshness(c cachedJSON) string {
	switch {
	case c.Purged:
		return "purged"
	case c.TTL > 0:
		return "fresh for " + rounded(c.TTL)
	}
	return "stale for " + rounded(-c.TTL)
}

func rounded(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
