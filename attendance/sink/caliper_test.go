package sink

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
)

var (
	caliperMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	caliperID     = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// badEnvelope says what an envelope lacks by Caliper 1.2; empty when nothing.
func badEnvelope(body []byte, poison string) string {
	var e struct {
		Sensor, SendTime, DataVersion string
		Data                          []map[string]any
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err.Error()
	}
	if !absolute(e.Sensor) || !caliperMoment.MatchString(e.SendTime) || e.DataVersion != "http://purl.imsglobal.org/ctx/caliper/v1p2" || len(e.Data) == 0 {
		return fmt.Sprintf("envelope of %q at %q as %q with %d", e.Sensor, e.SendTime, e.DataVersion, len(e.Data))
	}
	for _, ev := range e.Data {
		if ev["@context"] != e.DataVersion || ev["type"] != "Event" || ev["profile"] != "GeneralProfile" || ev["action"] != "Started" {
			return fmt.Sprintf("event %v", ev)
		}
		if !caliperID.MatchString(fmt.Sprint(ev["id"])) || !caliperMoment.MatchString(fmt.Sprint(ev["eventTime"])) {
			return fmt.Sprintf("id %v at %v", ev["id"], ev["eventTime"])
		}
		for name, kind := range map[string]string{"actor": "Person", "object": "Session", "group": "CourseSection"} {
			entity, _ := ev[name].(map[string]any)
			if entity["type"] != kind || !absolute(entity["id"]) || strings.Contains(fmt.Sprint(entity["id"]), " ") {
				return fmt.Sprintf("%s %v", name, entity)
			}
		}
		if poison != "" && strings.HasSuffix(fmt.Sprint(ev["actor"].(map[string]any)["id"]), poison) {
			return "unknown person"
		}
	}
	return ""
}

func TestCaliperEnvelopesAreWellFormed(t *testing.T) {
	events := map[string]int{}
	page := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if page {
			fmt.Fprint(w, "<!doctype html>log in")
			return
		}
		if r.Header.Get("Authorization") != "Bearer key" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got fields %v", r.Header)
		}
		if bad := badEnvelope(body, "s00007"); bad != "" {
			if bad != "unknown person" {
				t.Errorf("the envelope is not well formed: %s", bad)
			}
			http.Error(w, bad, 400)
			return
		}
		var e envelope
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		for _, ev := range e.Data {
			events[ev.ID]++
		}
		fmt.Fprint(w, "thanks")
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	s, err := OpenCaliper(CaliperConfig{Sensor: "https://firstbell.school.example", HomePage: "https://{school}.school.example", Config: Config{
		Name: "caliper", Dir: dir, Endpoint: Endpoint{URL: server.URL, Header: http.Header{"Authorization": {"Bearer key"}}, Timeout: 10 * time.Second}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := bulk(1, 31)
	b.Events[0].Student = "민 1"
	if done, err := deliver(s, b); err != nil || done.Rows != 29 || done.Parked != 1 {
		t.Fatalf("got %+v %v, want 29 and one parked", done, err)
	}
	if students, _ := parkedStudents(t, dir); !slices.Equal(students, []string{"s00007"}) {
		t.Errorf("got parked %v, want s00007", students)
	}
	if len(events) != 29 || events["urn:uuid:"+b.Events[0].ID.String()] != 1 {
		t.Errorf("got %d events, want 29, each once under its receipt", len(events))
	}
	page = true
	if _, err := deliver(s, bulk(31, 33)); err == nil || !strings.Contains(err.Error(), "page") {
		t.Errorf("a login page: got %v, want the sink to stop", err)
	}
	wantPosition(t, s, attendance.Position{Next: 31, Until: 33})
}
