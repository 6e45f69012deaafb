package sink

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"firstbell/attendance"
)

// wrote is what a request held, decoded.
type wrote struct {
	header  http.Header
	bytes   int // as they came
	content string
}

// taker is an endpoint that decodes what it is sent and answers as told.
func taker(t *testing.T, answer func(w http.ResponseWriter, got *wrote)) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		got := &wrote{header: r.Header, bytes: len(raw), content: string(raw)}
		var decoded io.Reader
		switch coding := r.Header.Get("Content-Encoding"); coding {
		case "gzip":
			decoded, err = gzip.NewReader(strings.NewReader(string(raw)))
		case "zstd":
			decoded, err = zstd.NewReader(strings.NewReader(string(raw)))
		case "":
		default:
			t.Errorf("Content-Encoding: %s", coding)
		}
		if err == nil && decoded != nil {
			var text []byte
			text, err = io.ReadAll(decoded)
			got.content = string(text)
		}
		if err != nil {
			t.Errorf("decoding a request: %v", err)
		}
		answer(w, got)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func openBulk(t *testing.T, dir string, ndjson bool, e Endpoint) *Sink {
	t.Helper()
	e.Timeout = 10 * time.Second
	s, err := OpenHTTP(HTTPConfig{NDJSON: ndjson, Config: Config{Name: "bulk", Dir: dir, Endpoint: e}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestBulksAreLinesAndCodedWhereItIsSaid(t *testing.T) {
	for _, coding := range []string{"", "none", "gzip", "zstd"} {
		for _, ndjson := range []bool{false, true} {
			var got *wrote
			s := openBulk(t, t.TempDir(), ndjson, Endpoint{Coding: coding, URL: taker(t, func(w http.ResponseWriter, r *wrote) { got = r })})
			if done, err := deliver(s, bulk(1, 501)); err != nil || done.Rows != 500 {
				t.Fatalf("%s, lines %v: got %+v %v", coding, ndjson, done, err)
			}
			records := 0
			if ndjson {
				for lines := bufio.NewScanner(strings.NewReader(got.content)); lines.Scan(); records++ {
					if !json.Valid(lines.Bytes()) {
						t.Errorf("line %d is not JSON: %s", records, lines.Bytes())
					}
				}
			} else {
				var all []any
				if err := json.Unmarshal([]byte(got.content), &all); err != nil {
					t.Error(err)
				}
				records = len(all)
			}
			want := map[bool]string{false: "application/json", true: "application/x-ndjson"}[ndjson]
			if records != 500 || got.header.Get("Content-Type") != want || got.header.Get("Idempotency-Key") == "" {
				t.Errorf("%s, lines %v: got %d records and %v, want 500 as %s", coding, ndjson, records, got.header, want)
			}
			if coded := coding == "gzip" || coding == "zstd"; coded != (5*got.bytes < len(got.content)) {
				t.Errorf("%s: %d bytes for %d", coding, got.bytes, len(got.content))
			}
		}
	}
}

func TestVerdictsMayComeAsLines(t *testing.T) {
	b := bulk(1, 4)
	rows, _ := b.Fold()
	dir := t.TempDir()
	s := openBulk(t, dir, true, Endpoint{URL: taker(t, func(w http.ResponseWriter, _ *wrote) {
		fmt.Fprintf(w, "{\"key\":%q,\"result\":\"stored\"}\n{\"key\":%q,\"result\":\"rejected\",\"reason\":\"left\"}\n{\"key\":%q,\"result\":\"duplicate\"}\n", rows[0].Key(), rows[1].Key(), rows[2].Key())
	})})
	done, err := deliver(s, b)
	if err != nil || done != (attendance.Delivered{Rows: 1, Duplicates: 1, Parked: 1, Writes: 1}) {
		t.Errorf("got %+v %v, want one of each", done, err)
	}
}

func TestACodingThatIsNotTakenSaysSo(t *testing.T) {
	s := openBulk(t, t.TempDir(), false, Endpoint{Coding: "zstd", URL: taker(t, func(w http.ResponseWriter, _ *wrote) { w.WriteHeader(415) })})
	if _, err := deliver(s, bulk(1, 3)); err == nil || !strings.Contains(err.Error(), "coding: none") {
		t.Errorf("got %v, want the way out", err)
	}
}

// collected is a bulk of n writes that routes collected.
func collected(n int) *attendance.Bulk {
	b := &attendance.Bulk{First: 1, Next: uint64(n) + 1}
	for i := range n {
		e := arrival(i + 1)
		b.Events = append(b.Events, attendance.Event{Kind: attendance.KindCollected, Seq: e.Seq, RawArrival: e.RawArrival,
			Receipt:   attendance.Receipt{ID: e.ID, School: "north", Date: e.Date, FirstArrival: bell},
			Collected: &attendance.Collected{Sink: "progress", Key: fmt.Sprint("k", i), Path: "/progress/%2F", ContentType: "application/json", Body: fmt.Sprintf(`{"at": %d}`, i)}})
	}
	return b
}

func TestWhatWasCollectedIsDeliveredAsItCame(t *testing.T) {
	var got []map[string]any
	dir := t.TempDir()
	s := openBulk(t, dir, false, Endpoint{URL: taker(t, func(w http.ResponseWriter, r *wrote) {
		var all []map[string]any
		if err := json.Unmarshal([]byte(r.content), &all); err != nil {
			t.Error(err)
		}
		for _, one := range all {
			if one["body"] == `{"at": 3}` {
				http.Error(w, "no", http.StatusUnprocessableEntity)
				return
			}
		}
		got = append(got, all...)
	})})
	b := collected(8)
	b.Events[5].Collected.Body = "\xff\x00"
	done, err := deliver(s, b)
	if err != nil || done.Rows != 7 || done.Parked != 1 || len(got) != 7 {
		t.Fatalf("got %+v %v and %d records, want 7 and one parked", done, err, len(got))
	}
	first := got[0]
	if first["body"] != `{"at": 0}` || first["content_type"] != "application/json" || first["path"] != "/progress/%2F" || first["school"] != "north" ||
		first["key"] != "north/%2Fprogress%2F%252F/k0" || first["receipt"] != b.Events[0].ID.String() || first["arrival"] != "2026-05-04T09:00:00.000+09:00" {
		t.Errorf("got %v", first)
	}
	if got[4]["body_base64"] != "/wA=" {
		t.Errorf("a body that is no text: got %v", got[4])
	}
	for p, err := range ReadParked(dir) {
		if err != nil || p.Record != nil || len(p.Event) == 0 {
			t.Errorf("got %+v %v, want a parked record whose body is not shown", p, err)
		}
	}
}
