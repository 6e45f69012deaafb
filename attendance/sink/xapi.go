package sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"firstbell/attendance"
)

// XAPIConfig is what a sink for a Learning Record Store is made of. The URL of
// its endpoint is the LRS's, without "statements".
type XAPIConfig struct {
	Config
	Version  string // 1.0.3 or 2.0.0; 1.0.3 unless said
	HomePage string // of a school's accounts, a template of {school}; required
	Activity string // a template; HomePage/attendance/{date}/{period} unless said
	Verb     string // an IRI; attended unless said

	// Extensions is what the IRIs of the extensions begin with: receipt,
	// student and so on follow.
	Extensions string
}

const (
	verbAttended      = "http://adlnet.gov/expapi/verbs/attended"
	verbVoided        = "http://adlnet.gov/expapi/verbs/voided"
	extensionsDefault = "urn:x-firstbell:attendance:"
)

// A statement is what an LRS keeps. Field names are those of the
// specification (xAPI 1.0.3 part 2, IEEE 9274.1.1).
type statement struct {
	ID        string            `json:"id"`
	Actor     agent             `json:"actor"`
	Verb      verb              `json:"verb"`
	Object    any               `json:"object"`
	Context   *statementContext `json:"context,omitempty"`
	Timestamp string            `json:"timestamp,omitempty"`
}

type agent struct {
	ObjectType string  `json:"objectType"`
	Account    account `json:"account"`
}

type account struct {
	HomePage string `json:"homePage"`
	Name     string `json:"name"`
}

type verb struct {
	ID      string            `json:"id"`
	Display map[string]string `json:"display"`
}

type activity struct {
	ObjectType string              `json:"objectType"`
	ID         string              `json:"id"`
	Definition *activityDefinition `json:"definition,omitempty"`
}

type activityDefinition struct {
	Name map[string]string `json:"name"`
	Type string            `json:"type,omitempty"`
}

type statementRef struct {
	ObjectType string `json:"objectType"`
	ID         string `json:"id"`
}

type statementContext struct {
	Platform   string             `json:"platform"`
	Activities *contextActivities `json:"contextActivities,omitempty"`
	Extensions map[string]any     `json:"extensions"`
}

type contextActivities struct {
	Grouping []activity `json:"grouping"`
}

// lrs sends check-ins as statements.
type lrs struct {
	*endpoint
	version    string
	homePage   *template
	activity   *template
	verb       string
	extensions string
}

// OpenXAPI makes a sink that POSTs check-ins as xAPI statements to an LRS and
// reads its position. Nothing is sent yet.
func OpenXAPI(c XAPIConfig) (*Sink, error) {
	l, err := c.lrs()
	if err != nil {
		return nil, fmt.Errorf("opening sink %s: %w", c.Name, err)
	}
	if l.endpoint, err = newEndpoint(&c.Endpoint, 1, "https://lrs.example/xapi/"); err != nil {
		return nil, err
	}
	l.url = strings.TrimSuffix(l.url, "/") + "/statements"
	return open(&c.Config, inBulk{l})
}

// Check reads what the statements are made of.
func (c *XAPIConfig) Check() error {
	_, err := c.lrs()
	return err
}

func (c *XAPIConfig) lrs() (*lrs, error) {
	l := &lrs{version: c.Version, verb: c.Verb, extensions: c.Extensions}
	switch l.version {
	case "":
		l.version = "1.0.3"
	case "1.0.3", "2.0.0":
	default:
		return nil, &PartError{"version", fmt.Sprintf("%q is neither 1.0.3 nor 2.0.0", c.Version)}
	}
	if l.verb == "" {
		l.verb = verbAttended
	}
	if l.extensions == "" {
		l.extensions = extensionsDefault
	}
	for part, iri := range map[string]string{"verb": l.verb, "extensions": l.extensions} {
		if !isIRI(iri) {
			return nil, &PartError{part, fmt.Sprintf("%q is not an IRI", iri)}
		}
	}
	var err error
	if l.homePage, err = iriTemplate("home_page", c.HomePage, "school"); err != nil {
		return nil, err
	}
	about := c.Activity
	if about == "" {
		about = strings.TrimSuffix(c.HomePage, "/") + "/attendance/{date}/{period}"
	}
	l.activity, err = iriTemplate("activity", about, "school", "date", "period")
	return l, err
}

// iriTemplate reads a template of fields that makes an IRI.
func iriTemplate(part, text string, fields ...string) (*template, error) {
	t, err := parseTemplate(text, fields, placeURL)
	if err != nil {
		return nil, &PartError{part, err.Error()}
	}
	if text == "" {
		return nil, &PartError{part, "is missing"}
	}
	if iri := string(t.append(nil, plainSample)); !isIRI(iri) {
		return nil, &PartError{part, fmt.Sprintf("%q does not make an IRI", text)}
	}
	return t, nil
}

var plainSample = &record{Row: attendance.Row{Receipt: attendance.Receipt{School: "a", Student: "b", Period: "1"}}}

// isIRI wants a scheme and something behind it.
func isIRI(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && (u.Opaque != "" || u.Host != "" && !strings.ContainsAny(u.Host, " {}"))
}

// statement is the check-in as an LRS keeps it, under its receipt.
func (l *lrs) statement(r *record) statement {
	home, about := string(l.homePage.append(nil, r)), string(l.activity.append(nil, r))
	if r.ClassIsKey {
		about += "/" + url.PathEscape(r.Class)
	}
	s := statement{
		ID:    r.ID.String(),
		Actor: agent{ObjectType: "Agent", Account: account{HomePage: home, Name: r.Student}},
		Verb:  verb{ID: l.verb, Display: map[string]string{"en": "attended"}},
		Object: activity{ObjectType: "Activity", ID: about, Definition: &activityDefinition{
			Name: map[string]string{"en": fmt.Sprintf("%s, period %s", r.Date, r.Period)},
			Type: "http://adlnet.gov/expapi/activities/meeting",
		}},
		Context: &statementContext{Platform: "firstbell", Extensions: map[string]any{
			l.extensions + "receipt": r.ID.String(), l.extensions + "school": r.School, l.extensions + "date": r.Date.String(),
			l.extensions + "period": r.Period, l.extensions + "status": string(r.Status), l.extensions + "verified": r.Verified,
		}},
		Timestamp: r.value("first_arrival"),
	}
	if r.Class != "" {
		s.Context.Extensions[l.extensions+"class"] = r.Class
		s.Context.Activities = &contextActivities{Grouping: []activity{{ObjectType: "Activity", ID: strings.TrimSuffix(home, "/") + "/classes/" + url.PathEscape(r.Class)}}}
	}
	return s
}

// post implements form. An LRS refuses the whole array for one bad statement
// (400), and may do so when it has one of them already (409): bulk halves it.
// A statement that it has alone is compared by the specification's rules.
func (l *lrs) post(ctx context.Context, records []record, _ string) (verdict, error) {
	statements := make([]statement, 0, len(records))
	for i := range records {
		statements = append(statements, l.statement(&records[i]))
	}
	a, err := l.send(ctx, statements)
	if err != nil {
		return verdict{}, err
	}
	if a.status == http.StatusConflict && len(records) == 1 {
		return l.conflict(ctx, &statements[0])
	}
	return judge(a, func() (verdict, error) { return verdict{}, listsAll(a.body, statements) })
}

func (l *lrs) send(ctx context.Context, statements []statement) (*answered, error) {
	content, err := json.Marshal(statements)
	if err != nil {
		return nil, err
	}
	return l.do(ctx, "POST", l.url, content, "Content-Type", "application/json", "X-Experience-API-Version", l.version)
}

// listsAll wants the ids of all statements in the answer to a POST: anything
// else did not come from an LRS.
func listsAll(answer []byte, statements []statement) error {
	var ids []string
	if err := json.Unmarshal(answer, &ids); err != nil {
		return stop("its answer does not list the statements' ids: %s", excerpt(answer))
	}
	if len(ids) != len(statements) {
		return stop("its answer lists %d ids of %d statements", len(ids), len(statements))
	}
	for i := range ids {
		if !strings.EqualFold(ids[i], statements[i].ID) {
			return stop("its answer lists the id %.40q where %s was sent", ids[i], statements[i].ID)
		}
	}
	return nil
}

// conflict decides about a statement whose id the LRS has. One that says the
// same is a duplicate. A statement never changes: one that is about the same
// check-in and says something else, because a better arrival took its place, is
// voided and followed by another with an id of its own. Anything else under our
// id is not ours, and the record is refused.
func (l *lrs) conflict(ctx context.Context, sent *statement) (verdict, error) {
	kept, refused, err := l.fetch(ctx, sent.ID)
	if err != nil || refused != "" {
		return verdict{refused: refused}, err
	}
	ours, err := plainStatement(sent)
	if err != nil {
		return verdict{}, err
	}
	switch {
	case sameStatement(ours, kept):
		return verdict{duplicates: 1}, nil
	case !sameCheckIn(ours, kept):
		return verdict{refused: "answered 409: the LRS has another statement under this id"}, nil
	}
	replacement := *sent
	replacement.ID = derivedID(sent, "replacement")
	voiding := statement{
		ID: derivedID(sent, "voiding"), Actor: sent.Actor,
		Verb:   verb{ID: verbVoided, Display: map[string]string{"en": "voided"}},
		Object: statementRef{ObjectType: "StatementRef", ID: sent.ID},
	}
	both := []statement{voiding, replacement}
	a, err := l.send(ctx, both)
	if err != nil {
		return verdict{}, err
	}
	if a.status == http.StatusConflict {
		return verdict{duplicates: 1}, nil // an earlier try got through: the ids are of this very content
	}
	return judge(a, func() (verdict, error) { return verdict{}, listsAll(a.body, both) })
}

// fetch asks for a statement; refused says why there is none to compare with.
func (l *lrs) fetch(ctx context.Context, id string) (kept map[string]any, refused string, err error) {
	for _, name := range [...]string{"statementId", "voidedStatementId"} {
		a, err := l.do(ctx, "GET", l.url+"?"+name+"="+id, nil, "X-Experience-API-Version", l.version)
		if err != nil {
			return nil, "", err
		}
		if a.status == http.StatusNotFound {
			continue
		}
		v, err := judge(a, func() (verdict, error) {
			media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
			if d := json.NewDecoder(bytes.NewReader(a.body)); media != "application/json" || d.Decode(&kept) != nil {
				return verdict{}, stop("asked for statement %s it answered something else: %s", id, excerpt(a.body))
			}
			return verdict{}, nil
		})
		return kept, v.refused, err
	}
	return nil, "answered 409, but the LRS does not show the statement of this id", nil
}

// derivedID is a UUIDv8 of a statement's content and what it is for, so that
// the same comes again under the same id.
func derivedID(s *statement, what string) string {
	content, _ := json.Marshal(s) // it was sent already
	sum := sha256.Sum256(append([]byte(what+"\x00"), content...))
	id := attendance.ReceiptID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}
