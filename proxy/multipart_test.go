package proxy

import (
	"fmt"
	"io"
	"mime"
	multiparts "mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"firstbell/cache"
)

// partsOf reads a multipart/byteranges as its Content-Range and bytes.
func partsOf(t *testing.T, what string, a *answer) (parts []string) {
	t.Helper()
	media, parameters, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.StatusCode != 206 || media != "multipart/byteranges" || err != nil || a.Header.Get("Content-Range") != "" {
		t.Errorf("%s: got %d, Content-Type %q, Content-Range %q; want 206 with parts", what, a.StatusCode, a.Header.Get("Content-Type"), a.Header.Get("Content-Range"))
		return nil
	}
	if a.ContentLength != int64(len(a.body)) || a.err != nil {
		t.Errorf("%s: Content-Length %d for %d bytes, %v", what, a.ContentLength, len(a.body), a.err)
	}
	r := multiparts.NewReader(strings.NewReader(a.body), parameters["boundary"])
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Errorf("%s: reading part %d: %v", what, len(parts), err)
			return parts
		}
		content, err := io.ReadAll(part)
		if err != nil {
			t.Errorf("%s: reading part %d: %v", what, len(parts), err)
		}
		if got := part.Header.Get("Content-Type"); got != "video/mp4" {
			t.Errorf("%s: part %d has Content-Type %q, want the film's", what, len(parts), got)
		}
		parts = append(parts, part.Header.Get("Content-Range")+" "+string(content))
	}
}

func givesFilm(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "video/mp4")
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		io.WriteString(w, content)
	}
}

func TestSeveralRangesAreAnsweredInTheirOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(100_000)
		g := newGate(t, givesFilm(content), cached(cache.Policy{}))
		g.get("/film")
		settle()
		for _, c := range []struct {
			asked string
			parts []span
		}{
			{"bytes=0-0,200-299,-1", []span{{0, 1}, {200, 300}, {99_999, 100_000}}},
			{"bytes=5000-5999, 0-9", []span{{5000, 6000}, {0, 10}}},
			{"Bytes=,0-9 , ,90000-,", []span{{0, 10}, {90_000, 100_000}}},
			{"bytes=0-9,500000-,1000-1009", []span{{0, 10}, {1000, 1010}}},
			{"bytes=0-9,2000-2999,5-99,1000-1009", []span{{0, 100}, {2000, 3000}, {1000, 1010}}}, // overlapping
			{"bytes=3000-3009,0-9,3010-3019", []span{{3000, 3020}, {0, 10}}},                     // adjacent
			{"bytes=0-9,70-79,9000-9009", []span{{0, 80}, {9000, 9010}}},                         // no further apart than a head
			{"bytes=2000-2009,0-9,4000-4009,5-4005", []span{{0, 4010}}},                          // one that joins all
			{"bytes=0-99999,1-1", []span{{0, 100_000}}},
			{"bytes=500000-,600000-", nil},
		} {
			a := g.get("/film", "Range: "+c.asked)
			switch len(c.parts) {
			case 0:
				if a.StatusCode != 416 || a.Header.Get("Content-Range") != "bytes */100000" {
					t.Errorf("%s: got %d %q, want 416", c.asked, a.StatusCode, a.Header.Get("Content-Range"))
				}
			case 1:
				wantPart(t, c.asked, a, content, int(c.parts[0].from), int(c.parts[0].to))
			default:
				var want []string
				for _, s := range c.parts {
					want = append(want, contentRange(s.from, s.to, 100_000)+" "+content[s.from:s.to])
				}
				if got := partsOf(t, c.asked, a); !slices.Equal(got, want) {
					t.Errorf("%s: got %d parts of %d bytes in all, want %v", c.asked, len(got), len(a.body), c.parts)
				}
				if a.Header.Get("ETag") != `"v1"` || !strings.Contains(a.cacheStatus(), "; hit") || a.Header.Get("Age") == "" {
					t.Errorf("%s: ETag %s, Cache-Status %q, Age %q", c.asked, a.Header.Get("ETag"), a.cacheStatus(), a.Header.Get("Age"))
				}
			}
		}
	})
}

// TestRangesThatAreIgnored get the whole: nonsense, what would cost more than
// it saves, and what is about other content.
func TestRangesThatAreIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		content := film(100_000)
		g := newGate(t, givesFilm(content), cached(cache.Policy{}))
		g.get("/film")
		settle()
		many := "bytes=0-0"
		for i := range rangesMax {
			many += fmt.Sprintf(",%d-%d", 1000*(i+1), 1000*(i+1))
		}
		for _, fields := range [][]string{
			{"Range: " + many},
			{"Range: bytes=0-9,x-"}, {"Range: bytes=0-9,9-8"}, {"Range: bytes="}, {"Range: bytes=,"}, {"Range: bytes"},
			{"Range: bytes=0-9,-"}, {"Range: lines=0-9,20-29"}, {"Range: bytes =0-9"}, {"Range: bytes=0-9;1000-1009"},
			{"Range: bytes=0-9,1000-1009", `If-Range: "v2"`},
			{"Range: bytes=0-9,1000-1009", `If-Range: W/"v1"`},
			{"Range: bytes=0-9,1000-1009", "If-Range: Sat, 01 Jan 2000 00:00:01 GMT"},
		} {
			if a := g.get("/film", fields...); a.StatusCode != 200 || a.body != content {
				t.Errorf("%.80q: got %d with %d bytes, want 200 with all", fields, a.StatusCode, len(a.body))
			}
		}
		for _, condition := range []string{`"v1"`, "Sat, 01 Jan 2000 00:00:00 GMT"} {
			if got := partsOf(t, condition, g.get("/film", "Range: bytes=0-9,1000-1009", "If-Range: "+condition)); len(got) != 2 {
				t.Errorf("If-Range: %s: got %d parts, want 2", condition, len(got))
			}
		}
		if a := g.get("/film", "Range: bytes=0-9,1000-1009", `If-None-Match: "v1"`); a.StatusCode != 304 {
			t.Errorf("If-None-Match goes before Range: got %d, want 304", a.StatusCode)
		}
		if a := g.do("HEAD", "/film", nil, "Range: bytes=0-9,1000-1009"); a.StatusCode != 200 || a.ContentLength != int64(len(content)) {
			t.Errorf("HEAD knows no Range: got %d, length %d", a.StatusCode, a.ContentLength)
		}
	})
}

// TestRangesAreOfTheIdentityCoding unless an If-Range names another variant.
func TestRangesAreOfTheIdentityCoding(t *testing.T) {
	page := textPage(20 << 10)
	zipped, err := encode(cache.Gzip, []byte(page))
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"identity": givesLesson(page, `ETag: "v1"`, "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"),
		"gzip":     givesLesson(string(zipped), "Content-Encoding: gzip", `ETag: "v1"`, "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"),
	} {
		inBubble(t, func(t *testing.T) {
			g := newGate(t, answer, cached(cache.Policy{}))
			g.get("/l")
			settle()
			if a := g.get("/l", "Accept-Encoding: gzip", "Range: bytes=100-199"); name == "gzip" && (a.StatusCode != 200 || decoded(t, a) != page) {
				t.Errorf("%s: a part before the page is there decoded: got %d, want the whole", name, a.StatusCode)
			}
			g.warmed("br", "identity")
			plain, coded := g.get("/l", "Accept-Encoding: identity"), g.get("/l", "Accept-Encoding: br")
			a := g.get("/l", "Accept-Encoding: br, gzip", "Range: bytes=100-199")
			wantPart(t, name+": without If-Range", a, page, 100, 200)
			if a.Header.Get("ETag") != plain.Header.Get("ETag") || a.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s: the part is of %s, %q; want of the identity coding, %s", name, a.Header.Get("ETag"), a.Header.Get("Content-Encoding"), plain.Header.Get("ETag"))
			}
			if got := g.get("/l", "Accept-Encoding: br", "Range: bytes=0-9,1000-1009"); !strings.HasPrefix(got.Header.Get("Content-Type"), "multipart/") {
				t.Errorf("%s: two parts: Content-Type %q", name, got.Header.Get("Content-Type"))
			}
			named := "If-Range: " + coded.Header.Get("ETag")
			a = g.get("/l", "Accept-Encoding: br, gzip", "Range: bytes=100-199", named)
			wantPart(t, name+": "+named, a, coded.body, 100, 200)
			if a.Header.Get("ETag") != coded.Header.Get("ETag") || a.Header.Get("Content-Encoding") != "br" {
				t.Errorf("%s: %s: the part is of %s, %q", name, named, a.Header.Get("ETag"), a.Header.Get("Content-Encoding"))
			}
			for _, fields := range [][]string{
				{"Accept-Encoding: br", "Range: bytes=0-9,1000-1009", named},                           // parts of what is coded
				{"Accept-Encoding: identity", "Range: bytes=0-9", named},                               // which is not taken any more
				{"Accept-Encoding: br", "Range: bytes=0-9", `If-Range: "v1~zstd"`},                     // which is not there
				{"Accept-Encoding: br", "Range: bytes=0-9", "If-Range: Sat, 01 Jan 2000 00:00:00 GMT"}, // of which coding?
				{"Accept-Encoding: br", "Range: bytes=0-9", "If-Range: W/" + coded.Header.Get("ETag")}, // not strong
			} {
				if a := g.get("/l", fields...); a.StatusCode != 200 || decoded(t, a) != page {
					t.Errorf("%s: %q: got %d with %d bytes, want the whole", name, fields, a.StatusCode, len(a.body))
				}
			}
		})
	}
}

func TestPartsHoldNothingThatGrowsWithThem(t *testing.T) {
	body := memoryContent(film(1 << 20))
	m := newMultipart(body, []span{{0, 500_000}, {600_000, 1 << 20}}, "video/mp4")
	for {
		piece, err := m.Next()
		if err == io.EOF {
			break
		}
		if len(piece) > 1000 && (&piece[0] != &body[0] && &piece[0] != &body[600_000]) {
			t.Fatalf("a piece of %d bytes is a copy", len(piece))
		}
	}
	m.Close()
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{"bytes=0-0,-1", "bytes=0-9,5-20,100-", "bytes=1-,2-,3-", "bytes=-0", "bytes=99999999999999999999-", "bytes=0-9,,", "lines=1-2", "bytes=5-1"} {
		f.Add([]byte(s), int64(1000))
	}
	f.Fuzz(func(t *testing.T, value []byte, size int64) {
		size = max(0, size)
		set, verdict := readRanges(value, size)
		if (verdict == rangeGiven) != (len(set) > 0) || len(set) > rangesMax {
			t.Fatalf("%q of %d: verdict %d with %d parts", value, size, verdict, len(set))
		}
		var total int64
		for i, s := range set {
			if s.from < 0 || s.from >= s.to || s.to > size {
				t.Fatalf("%q of %d: part %v", value, size, s)
			}
			total += s.to - s.from
			for _, o := range set[:i] {
				if s.from <= o.to && o.from <= s.to {
					t.Fatalf("%q of %d: parts %v and %v touch", value, size, o, s)
				}
			}
		}
		if total > size {
			t.Fatalf("%q of %d: %d bytes in all", value, size, total)
		}
		if one, v := readRange(value, size); v == rangeGiven && (verdict != v || set[0] != one) {
			t.Fatalf("%q of %d: one range is %v, as several %v", value, size, one, set)
		}
	})
}
