package proxy

import (
	"bytes"
	"strings"
	"testing"
)

// Two requests share a key only when they ask for the same: names with NUL,
// long ones, other letters and other orders of a query are other resources.
func FuzzKeys(f *testing.F) {
	f.Add("school.example", "/a?b", "school.example", "/a%3Fb")
	f.Add("school.example", "/A", "school.example", "/a")
	f.Add("school.example", "/a?x=1&y=2", "school.example", "/a?y=2&x=1")
	f.Add("School.Example", "/a?", "school.example", "/a")
	f.Add("a", "/b%20/c", "a /b", "/c")
	f.Add("a", "/"+strings.Repeat("x", 8000), "a", "/"+strings.Repeat("x", 7999)+"y")
	f.Add("a", "/%00", "a", "/")
	f.Fuzz(func(t *testing.T, authorityA, rawA, authorityB, rawB string) {
		keyA, okA := keyFor(authorityA, rawA)
		keyB, okB := keyFor(authorityB, rawB)
		if !okA || !okB {
			return
		}
		same := strings.EqualFold(authorityA, authorityB) && rawA == rawB
		if bytes.Equal(keyA, keyB) != same {
			t.Errorf("%q %q and %q %q: the same key %v, want %v", authorityA, rawA, authorityB, rawB, !same, same)
		}
	})
}

// keyFor is the key of a request, if it is one that is not refused.
func keyFor(authority, raw string) ([]byte, bool) {
	if _, ok := readAuthority(nil, []byte(authority)); !ok {
		return nil, false
	}
	target, refusal := readTarget([]byte(raw))
	if refusal != "" {
		return nil, false
	}
	x := &exchange{authority: []byte(authority), scheme: "http"}
	return x.appendKey(nil, &Route{}, target), true
}
