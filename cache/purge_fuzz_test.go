package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a purge file holds, reading it neither panics nor forgets a rule in
// silence: what it cannot read it takes for a purge of everything.
func FuzzPurgeFile(f *testing.F) {
	f.Add([]byte("firstbell purges 1 0 5\n" + string(appendRule(nil, 5, true, "tlesson")) + string(appendRule(nil, 6, false, "ha"))))
	f.Add([]byte("firstbell purges 1 0 0\nx\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "purges")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var p, again purges
		if err := openPurgeFile(file, &p); err != nil {
			t.Fatal(err)
		}
		if err := p.file.close(); err != nil {
			t.Fatal(err)
		}
		if err := openPurgeFile(file, &again); err != nil {
			t.Fatal(err)
		}
		defer again.file.close()
		if again.floor != p.floor || len(again.rules) != len(p.rules) || again.latest.Load() != p.latest.Load() {
			t.Errorf("read again: floor %d, %d rules, latest %d; want %d, %d, %d", again.floor, len(again.rules), again.latest.Load(), p.floor, len(p.rules), p.latest.Load())
		}
	})
}

// Every selector made from a key means that key, and none of another host.
func FuzzSelectorsMeanTheirKey(f *testing.F) {
	f.Add("school.example", "/lessons/1?a=b")
	f.Add("school.example:8080", "/%6c/%00/..%2f")
	f.Add("[::1]:80", "//")
	f.Fuzz(func(t *testing.T, authority, target string) {
		if strings.ContainsAny(authority+target, " ") || authority == "" || authority != strings.ToLower(authority) || !strings.HasPrefix(target, "/") || len(target) > 4000 {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		for _, s := range []Selector{
			{ByURL, authority + " " + target}, {ByHost, hostOf(authority)}, {ByHost, "*"},
			{ByPrefix, "* " + path}, {ByPrefix, hostOf(authority) + " /"},
		} {
			id, err := s.id()
			if err != nil {
				continue // too deep or too long
			}
			found, others := false, false
			eachID("http "+authority+" "+target, nil, func(b []byte) { found = found || string(b) == id })
			eachID("http else.where"+" "+target, nil, func(b []byte) { others = others || string(b) == id })
			if !found && strings.Count(path, "/") <= prefixDepthMax {
				t.Errorf("%v %q does not mean %s%s", s.By, s.Text, authority, target)
			}
			if others && !strings.HasPrefix(s.Text, "*") && hostOf(authority) != "else.where" && hostOf(authority) != "*.where" {
				t.Errorf("%v %q means else.where%s", s.By, s.Text, target)
			}
		}
	})
}
