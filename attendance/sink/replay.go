package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"firstbell/attendance"
)

// ReplayConfig is what a paced replay is made of: one request for each record,
// written from a template, for an origin that knows nothing else.
type ReplayConfig struct {
	Config              // Endpoint.URL is the origin, without a path; its credential is a service's own
	Collected   bool    // the records are what was collected, not check-ins
	Method      string  // POST unless said
	Path        string  // with its query; a template
	Fields      []Field // beside Content-Type; their values are templates
	ContentType string  // application/json unless said
	Body        string  // a template; of what was collected {body} unless said

	PerSecond   float64 // requests in a second, at most; 50
	Concurrency int     // requests at once, at most; 4
	Statuses    Statuses
}

// Statuses are answers that mean something else to this origin than what they
// say: a login-less form that answers 302 to what it has taken, a 404 that means
// one student and not the whole address.
type Statuses struct {
	Taken     []int // beside 2xx
	Duplicate []int // the origin has the record already
	Refused   []int // beside 400, 409, 413 and 422: the record is parked
}

// Field is one field of a request.
type Field struct{ Name, Value string }

const (
	defaultPerSecond   = 50
	defaultConcurrency = 4

	// endMax is how long requests under way may take when the sink has to end:
	// what is answered by then need not be sent again.
	endMax = 3 * time.Second
)

// PartError says which part of a sink's configuration cannot be used.
type PartError struct {
	Part   string // as the configuration spells it: path, headers, body, home_page and so on
	Reason string
}

func (e *PartError) Error() string { return e.Part + ": " + e.Reason }

// requestTemplate is a request with the fields of the record left open.
type requestTemplate struct {
	method      string
	origin      string
	path        *template
	names       []string
	values      []*template
	contentType *template
	body        *template
}

// Check reads the templates. Its error is a *PartError.
func (c *ReplayConfig) Check() error {
	_, err := c.template()
	return err
}

func (c *ReplayConfig) template() (*requestTemplate, error) {
	known := checkInFields
	if c.Collected {
		known = collectedFields
	}
	t := &requestTemplate{method: c.Method, origin: strings.TrimSuffix(c.Endpoint.URL, "/")}
	switch t.method {
	case "":
		t.method = http.MethodPost
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return nil, &PartError{"method", fmt.Sprintf("%q is not POST, PUT or PATCH", c.Method)}
	}
	path := c.Path
	if path == "" && c.Collected {
		path = "{path}"
	}
	var err error
	if t.path, err = parseTemplate(path, known, placeURL); err != nil {
		return nil, &PartError{"path", err.Error()}
	}
	if path != "{path}" && !strings.HasPrefix(path, "/") {
		return nil, &PartError{"path", fmt.Sprintf("%q does not begin with /", path)}
	}
	if _, err := url.ParseRequestURI(string(t.path.append(nil, sample(c.Collected)))); err != nil {
		return nil, &PartError{"path", fmt.Sprintf("%q is not the path of a request", path)}
	}
	for _, f := range c.Fields {
		value, err := parseTemplate(f.Value, known, placeField)
		if err != nil {
			return nil, &PartError{"headers", err.Error()}
		}
		t.names, t.values = append(t.names, f.Name), append(t.values, value)
	}
	return t, c.content(t, known)
}

// content reads the templates of the content. The content type says how its
// fields are escaped.
func (c *ReplayConfig) content(t *requestTemplate, known []string) error {
	contentType, body := c.ContentType, c.Body
	if contentType == "" {
		contentType = "application/json"
		if c.Collected {
			contentType = "{content_type}"
		}
	}
	if body == "" && c.Collected {
		body = "{body}"
	}
	var err error
	if t.contentType, err = parseTemplate(contentType, known, placeField); err != nil {
		return &PartError{"content_type", err.Error()}
	}
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case body == "{body}":
		t.body, err = parseTemplate(body, known, placeText)
	case err != nil:
		return &PartError{"content_type", fmt.Sprintf("%q is not a media type", contentType)}
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		if t.body, err = parseTemplate(body, known, placeJSON); err == nil {
			err = c.jsonContent(t)
		}
	case media == "application/x-www-form-urlencoded":
		t.body, err = parseTemplate(body, known, placeForm)
	case media == "text/plain":
		t.body, err = parseTemplate(body, known, placeText)
	default:
		return &PartError{"content_type", fmt.Sprintf("in %s no value can be escaped; write application/json, application/x-www-form-urlencoded or text/plain", media)}
	}
	if err != nil {
		return &PartError{"body", err.Error()}
	}
	return nil
}

// jsonContent fills in values that are hard to quote and looks whether JSON
// comes out.
func (c *ReplayConfig) jsonContent(t *requestTemplate) error {
	text := t.body.append(nil, sample(c.Collected))
	if len(text) == 0 || json.Valid(text) {
		return nil
	}
	return errors.New("what comes out is not JSON")
}

// sample is a record to try templates on.
func sample(collected bool) *record {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	r := &record{key: `2026-05-04/a"\b`, Row: attendance.Row{Receipt: attendance.Receipt{School: `a"\b`, Student: `a"\b`, Class: `a"\b`, Period: "1", FirstArrival: at, Status: "present"}}}
	if collected {
		r.event = &attendance.Event{Kind: attendance.KindCollected, Receipt: r.Receipt,
			Collected: &attendance.Collected{Path: "/a", ContentType: "text/plain", Body: `a"\b`}}
	}
	return r
}

// replay is the carrier that sends one request for each record, no faster than
// said.
type replay struct {
	*endpoint
	template    *requestTemplate
	every       time.Duration // between two requests
	concurrency int
	statuses    Statuses

	next time.Time // when the next request may begin; belongs to the holder of turn
}

// OpenReplay makes a sink that sends one request for each record and reads its
// position. Nothing is sent yet.
func OpenReplay(c ReplayConfig) (*Sink, error) {
	t, err := c.template()
	if err != nil {
		return nil, fmt.Errorf("opening sink %s: %w", c.Name, err)
	}
	r := &replay{template: t, concurrency: c.Concurrency, statuses: c.Statuses}
	if r.concurrency <= 0 {
		r.concurrency = defaultConcurrency
	}
	if c.PerSecond <= 0 {
		c.PerSecond = defaultPerSecond
	}
	r.every = time.Duration(float64(time.Second) / c.PerSecond)
	if r.endpoint, err = newEndpoint(&c.Endpoint, r.concurrency, "http://10.0.0.5:8080"); err != nil {
		return nil, err
	}
	return open(&c.Config, r)
}

// A sent is one record's request that is over.
type sent struct {
	record *record
	result string // taken, duplicate, or refused for the reason; empty: err says why not
	reason string
	err    error
}

const (
	resultTaken     = "taken"
	resultDuplicate = "duplicate"
	resultParked    = "parked"
	resultRefused   = "refused"
)

// carry implements carrier. Those that were settled before are passed over,
// also by the last process. One that fails for the moment holds the others up
// only when as many as may be under way fail in a row, or when the origin says
// when to come back; it comes again with the next try of the bulk.
func (c *replay) carry(ctx context.Context, s *Sink, p *passage, records []record) error {
	round := &replayRound{replay: c, sink: s, passage: p}
	if p.next != 0 && len(records) > 0 {
		file, settled, err := openProgress(s.dir, p.first, p.next)
		if err != nil {
			return fmt.Errorf("reading how far the replay had come: %w", err)
		}
		defer file.close()
		round.progress = file
		if p.single == nil {
			round.restore(settled)
		}
	}
	for i := range records {
		if r := &records[i]; p.single[r.Seq] == "" {
			round.todo = append(round.todo, r)
		}
	}
	return round.run(ctx)
}

// replayRound is one try of what is left of a bulk. Its fields belong to the
// goroutine that carries.
type replayRound struct {
	*replay
	sink     *Sink
	passage  *passage
	progress *progress // nil without a bulk
	todo     []*record

	underWay int
	inARow   int   // failures without a success between
	left     error // why one has to come again
	end      error // why no more are begun
}

// restore counts what the last process had settled.
func (r *replayRound) restore(settled map[uint64]string) {
	p := r.passage
	p.single = settled
	for _, result := range settled {
		switch result {
		case resultDuplicate:
			p.done.Duplicates++
		case resultParked:
			p.parkedNow++
		default:
			p.done.Rows++
		}
	}
}

// run begins requests one by one and takes in what became of them.
func (r *replayRound) run(ctx context.Context) error {
	if r.passage.single == nil {
		r.passage.single = make(map[uint64]string)
	}
	// Requests under way may go on for a moment when the sink has to end.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endMax, cancel) })()

	over := make(chan sent, r.concurrency)
	for _, rec := range r.todo {
		if !r.wait(ctx, over) {
			break
		}
		r.underWay++
		r.passage.done.Writes++
		go func() { over <- r.send(sending, rec) }()
	}
	for r.underWay > 0 {
		r.take(<-over)
	}
	switch {
	case r.end != nil:
		return r.end
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return r.left
}

// wait returns when the next request may begin; false: no more are to.
func (r *replayRound) wait(ctx context.Context, over <-chan sent) bool {
	now := time.Now()
	if r.next.Before(now) {
		r.next = now
	}
	t := time.NewTimer(r.next.Sub(now))
	defer t.Stop()
	due := false
	for r.end == nil && (!due || r.underWay >= r.concurrency) {
		select {
		case done := <-over:
			r.take(done)
		case <-t.C:
			due = true
		case <-ctx.Done():
			return false
		}
	}
	r.next = r.next.Add(r.every)
	return r.end == nil
}

// take notes what became of a request.
func (r *replayRound) take(done sent) {
	r.underWay--
	result := done.result
	switch result {
	case "":
		r.fail(done.err)
		return
	case resultTaken:
		r.passage.done.Rows++
	case resultDuplicate:
		r.passage.done.Duplicates++
	case resultRefused:
		if err := r.park(done.record, done.reason); err != nil {
			r.end = err
			return
		}
		result = resultParked
	}
	r.inARow = 0
	r.passage.single[done.record.Seq] = result
	if r.progress == nil {
		return
	}
	if err := r.progress.note(done.record.Seq, result); err != nil && r.end == nil {
		r.end = fmt.Errorf("writing down how far the replay has come: %w", err)
	}
}

// fail decides whether others are worth a try.
func (r *replayRound) fail(err error) {
	r.left = err
	r.inARow++
	var how *attendance.DeliverError
	errors.As(err, &how)
	if r.end == nil && (r.inARow >= r.concurrency || how != nil && (how.Stop || how.RetryAfter > 0)) {
		r.end = err
	}
}

func (r *replayRound) park(rec *record, reason string) error {
	if r.passage.again {
		r.passage.parked = append(r.passage.parked, newParked(rec, reason))
		return nil
	}
	if err := r.sink.tooMany(r.passage, 1, rec.key, reason); err != nil {
		return err
	}
	if err := r.sink.park([]Parked{newParked(rec, reason)}); err != nil {
		return fmt.Errorf("parking a record: %w", err)
	}
	r.passage.parkedNow++
	return nil
}

// send sends one record's request and judges the answer.
func (r *replayRound) send(ctx context.Context, rec *record) sent {
	t := r.template
	fields := make([]string, 0, 2*len(t.names)+4)
	for i, name := range t.names {
		fields = append(fields, name, string(t.values[i].append(nil, rec)))
	}
	if contentType := string(t.contentType.append(nil, rec)); contentType != "" {
		fields = append(fields, "Content-Type", contentType)
	}
	fields = append(fields, "Idempotency-Key", r.sink.idempotencyKey(rec, rec))
	a, err := r.do(ctx, t.method, t.origin+string(t.path.append(nil, rec)), t.body.append(nil, rec), fields...)
	if err != nil {
		return sent{record: rec, err: err}
	}
	switch says := &r.statuses; {
	case slices.Contains(says.Taken, a.status):
		return sent{record: rec, result: resultTaken}
	case slices.Contains(says.Duplicate, a.status):
		return sent{record: rec, result: resultDuplicate}
	case slices.Contains(says.Refused, a.status):
		return sent{record: rec, result: resultRefused, reason: fmt.Sprintf("answered %d: %s", a.status, excerpt(a.body))}
	}
	v, err := judge(a, func() (verdict, error) { return verdict{}, nil })
	switch {
	case err != nil:
		return sent{record: rec, err: err}
	case v.refused != "":
		return sent{record: rec, result: resultRefused, reason: v.refused}
	}
	return sent{record: rec, result: resultTaken}
}
