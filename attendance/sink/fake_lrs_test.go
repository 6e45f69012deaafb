package sink

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeLRS is a Learning Record Store that holds to the specification: it checks
// headers and the shape of statements strictly, refuses a whole array for one
// bad statement, keeps statements for ever, and gives them back in its own form.
type fakeLRS struct {
	t       *testing.T
	version string
	server  *httptest.Server

	mu         sync.Mutex // guards what follows
	statements map[string]map[string]any
	voided     map[string]bool
	posts      int
	strict     bool                             // 409 for every id that it has, not for those that differ alone
	poison     map[string]bool                  // account names that it refuses
	answer     func(w http.ResponseWriter) bool // nil: as usual
	after      func(w http.ResponseWriter) bool // once the statements are kept
}

func newLRS(t *testing.T, version string) *fakeLRS {
	l := &fakeLRS{t: t, version: version, statements: map[string]map[string]any{}, voided: map[string]bool{}, poison: map[string]bool{}}
	l.server = httptest.NewServer(l)
	t.Cleanup(l.server.Close)
	return l
}

func (l *fakeLRS) open(dir string) *Sink {
	l.t.Helper()
	s, err := OpenXAPI(XAPIConfig{Version: l.version, HomePage: "https://{school}.school.example", Config: Config{Name: "lrs", Dir: dir, Endpoint: Endpoint{
		URL: l.server.URL + "/xapi/", Header: http.Header{"Authorization": {"Basic dTpw"}}, Timeout: 10 * time.Second,
	}}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

func (l *fakeLRS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.URL.Path != "/xapi/statements":
		http.Error(w, "no such resource", 404)
		return
	case r.Header.Get("Authorization") != "Basic dTpw":
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	case r.Header.Get("X-Experience-API-Version") != l.version:
		http.Error(w, "X-Experience-API-Version "+r.Header.Get("X-Experience-API-Version"), 400)
		return
	}
	w.Header().Set("X-Experience-API-Version", l.version)
	if r.Method == "GET" {
		l.get(w, r.URL.Query())
		return
	}
	if r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" {
		l.t.Errorf("%s with content of type %s", r.Method, r.Header.Get("Content-Type"))
		http.Error(w, "POST JSON", 400)
		return
	}
	l.posts++
	if l.answer != nil && l.answer(w) {
		return
	}
	body, _ := io.ReadAll(r.Body)
	l.post(w, body)
}

func (l *fakeLRS) get(w http.ResponseWriter, q url.Values) {
	id, voided := q.Get("statementId"), false
	if id == "" {
		id, voided = q.Get("voidedStatementId"), true
	}
	s, ok := l.statements[id]
	if !ok || l.voided[id] != voided {
		http.Error(w, "no such statement", 404)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(s)
}

func (l *fakeLRS) post(w http.ResponseWriter, body []byte) {
	var array []map[string]any
	if err := json.Unmarshal(body, &array); err != nil || len(array) == 0 {
		http.Error(w, "want an array of statements", 400)
		return
	}
	ids := []string{}
	for _, s := range array {
		if reason := l.badStatement(s); reason != "" {
			http.Error(w, reason, 400) // the whole array
			return
		}
		id := s["id"].(string)
		if before, has := l.statements[id]; has && (l.strict || !reflect.DeepEqual(essence(before), essence(s))) {
			http.Error(w, "a statement with the id "+id+" is there", http.StatusConflict)
			return
		}
		ids = append(ids, id)
	}
	for _, s := range array {
		if id := s["id"].(string); l.statements[id] == nil {
			l.keep(id, s)
		}
	}
	if l.after != nil && l.after(w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(ids)
}

// keep stores a statement as LRSs do: with what they add, and moments and lists
// in a form of their own.
func (l *fakeLRS) keep(id string, s map[string]any) {
	if s["verb"].(map[string]any)["id"] == verbVoided {
		l.voided[s["object"].(map[string]any)["id"].(string)] = true
	}
	s["stored"], s["authority"], s["version"] = "2026-05-04T00:00:05Z", map[string]any{"mbox": "mailto:lrs@example.org"}, "1.0.0"
	if text, ok := s["timestamp"].(string); ok {
		at, _ := time.Parse(time.RFC3339Nano, text)
		s["timestamp"] = at.UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	if c, ok := s["context"].(map[string]any); ok {
		if kinds, ok := c["contextActivities"].(map[string]any); ok && l.version == "1.0.3" {
			kinds["grouping"] = kinds["grouping"].([]any)[0] // an object is a list of one
		}
	}
	l.statements[id] = s
}

// essence is what tells statements apart here: not what keep changes.
func essence(s map[string]any) any {
	at, _ := time.Parse(time.RFC3339Nano, fmt.Sprint(s["timestamp"]))
	c, _ := s["context"].(map[string]any)
	return []any{s["actor"], s["verb"], s["object"], at.UnixMilli(), c["extensions"]}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// badStatement says what is wrong with a statement by the specification; empty
// when nothing.
func (l *fakeLRS) badStatement(s map[string]any) string {
	for name := range s {
		if !strings.Contains(" id actor verb object result context timestamp attachments ", " "+name+" ") {
			return "unknown property " + name
		}
	}
	if id, _ := s["id"].(string); !uuid.MatchString(id) {
		return "id is no UUID: " + id
	}
	actor, _ := s["actor"].(map[string]any)
	account, _ := actor["account"].(map[string]any)
	home, _ := url.Parse(fmt.Sprint(account["homePage"]))
	name, _ := account["name"].(string)
	if len(actor) != 2 || actor["objectType"] != "Agent" || len(account) != 2 || home == nil || home.Host == "" || name == "" {
		return "the actor is no agent with an account"
	}
	if l.poison[name] {
		return "cannot take " + name
	}
	verb, _ := s["verb"].(map[string]any)
	if !absolute(verb["id"]) {
		return "verb has no IRI"
	}
	object, _ := s["object"].(map[string]any)
	if object["objectType"] == "StatementRef" {
		if verb["id"] != verbVoided || !uuid.MatchString(fmt.Sprint(object["id"])) || s["context"] != nil {
			return "a reference without voiding"
		}
		return ""
	}
	if object["objectType"] != "Activity" || !absolute(object["id"]) {
		return "the object is no activity"
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(s["timestamp"])); err != nil {
		return "timestamp: " + err.Error()
	}
	context, _ := s["context"].(map[string]any)
	extensions, _ := context["extensions"].(map[string]any)
	for key := range extensions {
		if !absolute(key) {
			return "extension " + key + " is no IRI"
		}
	}
	return ""
}

func absolute(v any) bool {
	u, err := url.Parse(fmt.Sprint(v))
	return err == nil && u.Scheme != "" && (u.Host != "" || u.Opaque != "")
}
