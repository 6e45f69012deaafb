package roster

import (
	"encoding/csv"
	"io"
	"slices"
	"strings"
	"testing"
)

// FuzzRecords reads what encoding/csv reads, and never fails on, or gets stuck
// in, what it does not read.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{"", "a,b\n", "a,\"b\nc\"\r\n", "\"\"\"x\"\"\",\n\n,", "\"open\na,b\n", "\"a\"b\nc\n", "a\"b,c", "\"a\n\"\"\n\nb\",\"c\nd\n", "\"\r\n\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > recordBytesMax/2 || strings.Count(text, "\n") >= recordLinesMax || strings.Count(text, ",") >= fieldsMax {
			return
		}
		got, broken := readAll(t, text)
		theirs := csv.NewReader(strings.NewReader(text))
		theirs.FieldsPerRecord = -1
		want, err := theirs.ReadAll()
		if err != nil {
			return // stricter than ours about quotes amid a field
		}
		if broken > 0 || !slices.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("%q: got %q with %d broken, want %q", text, got, broken, want)
		}
	})
}

func readAll(t *testing.T, text string) (all [][]string, broken int) {
	in := newRecords(strings.NewReader(text))
	last := 0
	for {
		fields, isBroken, err := in.read()
		switch {
		case err == io.EOF:
			return all, broken
		case in.line <= last:
			t.Fatalf("%q: line %d comes after line %d", text, in.line, last)
		case isBroken:
			broken++
		case err != nil:
			t.Fatalf("%q: %v", text, err)
		default:
			all = append(all, slices.Clone(fields))
		}
		last = in.line
	}
}

func TestABrokenRecordCostsItsFirstLineAlone(t *testing.T) {
	text := "a,\"two\nlines\",\"open\nb,c\n" + strings.Repeat("x\n", 20) + "\"d\ne\",f\n"
	got, broken := readAll(t, text)
	if broken != 2 || !slices.Equal(got[len(got)-1], []string{"d\ne", "f"}) {
		t.Errorf("got %d broken and last %q, want 2 (the lines a and lines) and d..f", broken, got[len(got)-1])
	}
	if !slices.ContainsFunc(got, func(r []string) bool { return slices.Equal(r, []string{"b", "c"}) }) {
		t.Errorf("the good row after the broken ones is not among %q", got)
	}
}
