package lms

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T) *Server {
	t.Helper()
	now := time.Now()
	s, err := New(Config{
		Seed: 1, Hosts: []string{"s01.school.example", "s02.school.example"}, MediaHost: "media.school.example",
		Lessons: 3, Segments: 4, Secret: []byte("secret"),
		Period: Period{Name: "1", Date: "2026-05-04", Opens: now.Add(-time.Minute), LateAfter: now.Add(time.Minute), Ends: now.Add(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(s *Server, method, host, path, body string, fields ...string) *http.Response {
	r := httptest.NewRequest(method, "http://"+host+path, strings.NewReader(body))
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLessonContentIsWhatTheCatalogueSays(t *testing.T) {
	s := open(t)
	all := []*Content{s.List("s01.school.example")}
	for n := range 3 {
		all = append(all, s.Lesson("s02.school.example", n)...)
	}
	for _, c := range all {
		r := ask(s, "GET", c.Host, c.Path, "")
		body := text(t, r)
		if got := crc32.Checksum([]byte(body), castagnoli); r.StatusCode != 200 || got != c.CRC {
			t.Errorf("%s%s: status %d, CRC %08x; want 200, %08x", c.Host, c.Path, r.StatusCode, got, c.CRC)
		}
		if cc := r.Header.Get("Cache-Control"); !strings.Contains(cc, "public, max-age=") {
			t.Errorf("%s: Cache-Control %q, want it public with a max-age", c.Path, cc)
		}
		if r.Header.Get("Set-Cookie") == "" {
			t.Errorf("%s: no Set-Cookie; platforms set one on everything", c.Path)
		}
		again := ask(s, "GET", c.Host, c.Path, "", "If-None-Match", r.Header.Get("ETag"))
		if again.StatusCode != 304 {
			t.Errorf("%s with its own validator: %d, want 304", c.Path, again.StatusCode)
		}
	}
	if n := len(s.Lesson("s01.school.example", 0)[0].Body); n < 10<<10 || n > 32<<10 {
		t.Errorf("a lesson page of %d bytes, want 10 to 32 KiB", n)
	}
	if got := ask(s, "GET", "s99.school.example", "/lessons/", "").StatusCode; got != 404 {
		t.Errorf("the list of an unknown school: %d, want 404", got)
	}
}

func TestPersonalPageBelongsToTheSession(t *testing.T) {
	s := open(t)
	r := ask(s, "GET", "s01.school.example", "/me", "", "Cookie", s.Session("0100007"))
	if body := text(t, r); !strings.Contains(body, `"student_id":"0100007"`) {
		t.Errorf("the personal page of 0100007 is %s", body)
	}
	if cc := r.Header.Get("Cache-Control"); cc != "private, no-store" {
		t.Errorf("Cache-Control of a personal page is %q, want private, no-store", cc)
	}
	if got := ask(s, "GET", "s01.school.example", "/me", "", "Cookie", "lms_session=0100007.0000").StatusCode; got != 401 {
		t.Errorf("a forged session: %d, want 401", got)
	}
}

func TestLoginMakesASession(t *testing.T) {
	s := open(t)
	r := ask(s, "GET", "s01.localhost:18080", "/login/0100007", "")
	cookie, _, _ := strings.Cut(r.Header.Get("Set-Cookie"), ";")
	if r.StatusCode != 303 || cookie != s.Session("0100007") {
		t.Errorf("signing in: %d with %q, want 303 with %q", r.StatusCode, cookie, s.Session("0100007"))
	}
}

func TestCheckInIsOneWritePerStudent(t *testing.T) {
	s := open(t)
	const press = `{"student_id":"0100007","class_id":"s01-1-01"}`
	first := text(t, ask(s, "POST", "s01.school.example", "/attendance/check-in", press))
	second := text(t, ask(s, "POST", "s01.school.example", "/attendance/check-in", press))
	if first != second {
		t.Errorf("the same check-in twice: %s and then %s; want the same receipt", first, second)
	}
	if s.Writes() != 2 || s.Rows() != 1 {
		t.Errorf("%d writes and %d rows, want 2 and 1", s.Writes(), s.Rows())
	}
}

func TestBulkTakesEachKeyOnce(t *testing.T) {
	s := open(t)
	record := func(key string) string {
		return fmt.Sprintf(`{"key":%q,"receipt":"r-%s","student_id":"0100001","school":"s01","class_id":"c","date":"2026-05-04","period":"1","first_arrival":"2026-05-04T09:00:00+09:00","status":"present","durable":"disk","verified":false}`, key, key)
	}
	post := func(body, idempotency string) []Result {
		t.Helper()
		var got struct{ Results []Result }
		raw := text(t, ask(s, "POST", "s01.school.example", "/api/attendance/bulk", body, "Idempotency-Key", idempotency))
		if err := json.Unmarshal([]byte(raw), &got); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		return got.Results
	}
	batch := "[" + record("a") + "," + record("b") + "]"
	for range 2 { // the same delivery twice has one effect and one answer
		for i, r := range post(batch, "one") {
			if want := string("ab"[i]); r.Key != want || r.Result != "stored" {
				t.Errorf("result %d is %+v, want key %q stored", i, r, want)
			}
		}
	}
	mixed := "[" + record("b") + "," + record("c") + "," + strings.Replace(record("d"), `"s01"`, `"nowhere"`, 1) + "]"
	for i, r := range post(mixed, "two") {
		if want := []string{"duplicate", "stored", "rejected"}[i]; r.Result != want {
			t.Errorf("record %d: %q (%s), want %q", i, r.Result, r.Reason, want)
		}
	}
	if s.Rows() != 3 || s.Writes() != 2 {
		t.Errorf("%d rows and %d writes, want 3 and 2", s.Rows(), s.Writes())
	}
}

func TestEveryRequestIsCounted(t *testing.T) {
	s := open(t)
	for _, path := range []string{"/lessons/", "/lessons/1/", "/lessons/1/", "/me", "/nothing", "/healthz"} {
		ask(s, "GET", "s01.school.example", path, "")
	}
	for kind, want := range map[Kind]int64{List: 1, Page: 2, Me: 1, Other: 1, Health: 1, Bulk: 0} {
		if got := s.Counts(kind).Arrived; got != want {
			t.Errorf("%s: %d arrived, want %d", kind, got, want)
		}
	}
	if got := s.Requests(); got != 5 {
		t.Errorf("%d requests, want 5: health checks are not among them", got)
	}
	if n, path := s.MostFetched(); n != 2 || path != "s01.school.example/lessons/1/" {
		t.Errorf("most fetched is %s, %d times; want s01.school.example/lessons/1/, 2", path, n)
	}
	var arrived int32
	for _, step := range s.Steps() {
		for _, n := range step.Arrived {
			arrived += n
		}
	}
	if arrived != 6 {
		t.Errorf("the timeline holds %d requests, want 6", arrived)
	}
}

func TestAFallenPlatformFailsVisibly(t *testing.T) {
	s := open(t)
	s.heart.downUntil = time.Now().Add(time.Hour)
	srv := httptest.NewServer(s)
	defer srv.Close()
	var refused, reset int
	for range 40 {
		r, err := http.Post(srv.URL+"/attendance/check-in", "application/json", strings.NewReader("{}"))
		switch {
		case err != nil:
			reset++
		case r.StatusCode == 503:
			refused++
			r.Body.Close()
		default:
			t.Errorf("a fallen platform answered %d", r.StatusCode)
			r.Body.Close()
		}
	}
	if refused+reset != 40 {
		t.Errorf("%d refused and %d reset of 40", refused, reset)
	}
	if got := s.Counts(CheckIn).Failed; got < 40 {
		t.Errorf("%d failures counted, want 40 or more", got)
	}
}
