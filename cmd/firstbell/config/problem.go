package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong, or worth a second look, in a file.
type Problem struct {
	File    string // as the user named it
	Line    int    // 1-based; 0 when the file as a whole is meant
	Column  int    // 1-based, in characters
	Path    string // the field, such as routes[2].cache.default_ttl; may be empty
	What    string // what is wrong
	Fix     string // the way out
	Warning bool   // worth a look, but the file can be used
	Source  string // the line it stands on, when there is one
}

// String is the problem on one line: file:line:column: field: what; way out.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.What)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Problems are in the order of the file they stand in.
type Problems []Problem

// Errors is the part that keeps the file from being used.
func (ps Problems) Errors() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
}

// Warnings is the part that does not.
func (ps Problems) Warnings() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return !p.Warning })
}

// Error is one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sort puts the problems of the main file first, by place, then the others.
func (ps Problems) sort(main string) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.File != b.File {
			if a.File == main {
				return -1
			}
			if b.File == main {
				return 1
			}
			return cmp.Compare(a.File, b.File)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	plain := plainWord(word)
	best, bestDistance := "", len(plain)/3+1
	for _, k := range known {
		d := distance(plain, plainWord(k))
		if d == 0 {
			return k
		}
		if d <= bestDistance && d < max(len(plain), 2) && (best == "" || d < bestDistance) {
			best, bestDistance = k, d
		}
	}
	return best
}

// plainWord leaves letters and digits in lower case, so that defaultTTL and
// default-ttl are both default_ttl.
func plainWord(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == '_' || r == '-' || r == ' ':
			return -1
		}
		return r
	}, s)
}

// distance is the number of letters to add, drop, change or swap with their
// neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 { // no key is that long; keeps the table small
		return max(len(a), len(b))
	}
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
