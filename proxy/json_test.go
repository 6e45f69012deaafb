package proxy

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONPointerFindsTheOneValue(t *testing.T) {
	const doc = ` { "a" : "x" , "n": 42, "f": 4.2, "neg": -1, "z": null, "t": true, "o": {"p/q": [10, "eleven", {"deep": "\u00e9\n\ud83d\ude00"}]},
		"tw\u0069ce": 1, "twice": 2, "half": "\ud83d", "" : "empty" } `
	for _, c := range []struct{ pointer, want, err string }{
		{"/a", "x", ""}, {"/n", "42", ""}, {"/f", "", "send it as a string"}, {"/neg", "", "send it as a string"}, {"/z", "", ""}, {"/t", "", "neither"},
		{"/o", "", "neither"}, {"/o/p~1q/0", "10", ""}, {"/o/p~1q/1", "eleven", ""}, {"/o/p~1q/2/deep", "é\n😀", ""}, {"/o/p~1q/3", "", ""},
		{"/o/p~1q/01", "", ""}, {"/o/p~1q/+1", "", ""}, {"/o/p~1q/-", "", ""}, {"/none", "", ""}, {"/a/b", "", ""}, {"/twice", "", "more than once"}, {"/half", "", "surrogate"}, {"/", "empty", ""},
	} {
		ref, err := ParseRef("json:" + c.pointer)
		if err != nil {
			t.Fatal(err)
		}
		if !validJSON([]byte(doc)) {
			t.Fatal("the document is not taken as JSON")
		}
		got, err := pointed([]byte(doc), ref.Path)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", c.pointer, got, err, c.want, c.err)
		}
	}
}

func TestFindingInJSONAllocatesNothing(t *testing.T) {
	b, path := []byte(`{"student_id":"s00000001","class_id":"c0001"}`), []string{"class_id"}
	if n := testing.AllocsPerRun(100, func() { validJSON(b); pointed(b, path) }); n > 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// FuzzJSON holds validJSON against encoding/json, and a member found against
// the one that it finds.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `[1,2.5e-3,"\u00e9",{"a":[]}]`, ` {} `, `{"a":"\ud83d\ude00","a":1}`, `-0`, `01`, `"\x"`, "\"\x01\"", `{"a":nul}`, `[1,]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, want := validJSON([]byte(s)), json.Valid([]byte(s))
		if got != want && (got || strings.Count(s, "[")+strings.Count(s, "{") <= jsonDepthMax) {
			t.Fatalf("%q: got valid %v, want %v", s, got, want)
		}
		if !got {
			return
		}
		value, err := pointed([]byte(s), []string{"a"})
		var object map[string]any
		if err != nil || json.Unmarshal([]byte(s), &object) != nil {
			return
		}
		if want, ok := object["a"].(string); ok && want != strings.ToValidUTF8(value, "\ufffd") && !strings.Contains(want, "\ufffd") {
			t.Errorf("%q: got %q, want %q", s, value, want)
		}
	})
}
