package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// CaliperConfig is what a sink for a Caliper 1.2 endpoint is made of.
type CaliperConfig struct {
	Config
	Sensor   string // IRI of this sensor; required
	HomePage string // of a school, a template of {school}; required
	Actor    string // IRI of a student, a template; HomePage/users/{student_id} unless said
}

const (
	caliperContext = "http://purl.imsglobal.org/ctx/caliper/v1p2"
	caliperTime    = "2006-01-02T15:04:05.000Z"
)

// envelope is what is sent (Caliper 1.2, "Envelope").
type envelope struct {
	Sensor      string         `json:"sensor"`
	SendTime    string         `json:"sendTime"`
	DataVersion string         `json:"dataVersion"`
	Data        []caliperEvent `json:"data"`
}

// caliperEvent is an Event of the General Profile: Caliper has no profile for
// attendance, and this one lets an Agent act on any Entity.
type caliperEvent struct {
	Context    string         `json:"@context"`
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Profile    string         `json:"profile"`
	Actor      entity         `json:"actor"`
	Action     string         `json:"action"`
	Object     entity         `json:"object"`
	Group      *entity        `json:"group,omitempty"`
	EventTime  string         `json:"eventTime"`
	Extensions map[string]any `json:"extensions"`
}

type entity struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name,omitempty"`
}

// caliper sends check-ins as events.
type caliper struct {
	*endpoint
	sensor   string
	homePage *template
	actor    *template
}

// OpenCaliper makes a sink that POSTs check-ins in Caliper envelopes and reads
// its position. Nothing is sent yet.
func OpenCaliper(c CaliperConfig) (*Sink, error) {
	f, err := c.form()
	if err != nil {
		return nil, fmt.Errorf("opening sink %s: %w", c.Name, err)
	}
	if f.endpoint, err = newEndpoint(&c.Endpoint, 1, "https://caliper.example/events"); err != nil {
		return nil, err
	}
	return open(&c.Config, inBulk{f})
}

// Check reads what the events are made of.
func (c *CaliperConfig) Check() error {
	_, err := c.form()
	return err
}

func (c *CaliperConfig) form() (*caliper, error) {
	f := &caliper{sensor: c.Sensor}
	if !isIRI(c.Sensor) {
		return nil, &PartError{"sensor", fmt.Sprintf("%q is not an IRI", c.Sensor)}
	}
	var err error
	if f.homePage, err = iriTemplate("home_page", c.HomePage, "school"); err != nil {
		return nil, err
	}
	actor := c.Actor
	if actor == "" {
		actor = strings.TrimSuffix(c.HomePage, "/") + "/users/{student_id}"
	}
	f.actor, err = iriTemplate("actor", actor, "school", "student_id")
	return f, err
}

// event is the check-in as an event, under its receipt.
func (f *caliper) event(r *record) caliperEvent {
	home := strings.TrimSuffix(string(f.homePage.append(nil, r)), "/")
	about := home + "/attendance/" + r.Date.String() + "/" + url.PathEscape(r.Period)
	if r.ClassIsKey {
		about += "/" + url.PathEscape(r.Class)
	}
	e := caliperEvent{
		Context: caliperContext, ID: "urn:uuid:" + r.ID.String(), Type: "Event", Profile: "GeneralProfile",
		Actor:  entity{ID: string(f.actor.append(nil, r)), Type: "Person"},
		Action: "Started",
		Object: entity{ID: about, Type: "Session", Name: fmt.Sprintf("%s, period %s", r.Date, r.Period)},
		// The moment in UTC; the school's own date is among the extensions.
		EventTime: r.FirstArrival.UTC().Format(caliperTime),
		Extensions: map[string]any{
			"student_id": r.Student, "school": r.School, "date": r.Date.String(), "period": r.Period,
			"status": string(r.Status), "verified": r.Verified,
		},
	}
	if r.Class != "" {
		e.Group = &entity{ID: home + "/classes/" + url.PathEscape(r.Class), Type: "CourseSection"}
		e.Extensions["class_id"] = r.Class
	}
	return e
}

// post implements form. An envelope is taken or refused as a whole.
func (f *caliper) post(ctx context.Context, records []record, _ string) (verdict, error) {
	out := envelope{Sensor: f.sensor, SendTime: time.Now().UTC().Format(caliperTime), DataVersion: caliperContext}
	for i := range records {
		out.Data = append(out.Data, f.event(&records[i]))
	}
	content, err := json.Marshal(&out)
	if err != nil {
		return verdict{}, err
	}
	a, err := f.do(ctx, http.MethodPost, f.url, content, "Content-Type", "application/json")
	if err != nil {
		return verdict{}, err
	}
	return judge(a, func() (verdict, error) {
		// The specification says nothing about the content; a page did not come
		// from an endpoint.
		if strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("<")) {
			return verdict{}, stop("its answer is a page: %s", excerpt(a.body))
		}
		return verdict{}, nil
	})
}
