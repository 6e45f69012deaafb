package sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"firstbell/attendance"
)

// HTTPConfig is what an HTTP sink is made of. Zero bounds take their defaults.
type HTTPConfig struct {
	Name   string      // in Idempotency-Key and in errors; empty: the URL without credentials
	URL    string      // http or https
	Dir    string      // where position and parked records are kept; made when it is not there
	Header http.Header // sent with every request, such as Authorization

	Timeout time.Duration // for one request and all of its answer; 30 s
	ParkMax float64       // share of records that may be parked, 0.01; 1 parks whatever is refused
}

const (
	defaultTimeout = 30 * time.Second
	defaultParkMax = 0.01

	// parkedMin is how many records must be parked before their share counts:
	// one bad record in a small bulk is no reason to stop.
	parkedMin = 20

	// windowRecords is over how many records the share is taken, at most twice
	// as many.
	windowRecords = 10_000

	// answerBytesMax bounds an answer: a thousand verdicts with long reasons.
	answerBytesMax = 4 << 20
)

// HTTP is an attendance.Target. Its methods are called by one goroutine.
type HTTP struct {
	name    string
	url     string
	header  http.Header
	client  *http.Client
	dir     string
	parkMax float64

	at      attendance.Position
	parked  *os.File
	begun   *passage // the bulk that did not go through last time, with what did
	records int      // of the window
	refused int      // of them, parked
}

// passage is one bulk on its way.
type passage struct {
	first, next uint64
	settled     map[[2]uint64]bool // by first and last position: parts that went through
	done        attendance.Delivered
	parked      []Parked
}

// OpenHTTP makes a sink and reads its position. Nothing is sent yet.
func OpenHTTP(c HTTPConfig) (*HTTP, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("opening sink %q: want an http or https URL, such as http://10.0.0.5:8080/api/attendance/bulk", c.URL)
	}
	s := &HTTP{name: c.Name, url: c.URL, header: c.Header, dir: c.Dir, parkMax: c.ParkMax}
	if s.name == "" {
		s.name = u.Redacted()
	}
	if s.parkMax <= 0 {
		s.parkMax = defaultParkMax
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	s.client = &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: timeout,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   1,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if err := s.openFiles(); err != nil {
		return nil, fmt.Errorf("opening sink %s: %w", s.name, err)
	}
	return s, nil
}

func (s *HTTP) openFiles() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := attendance.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	var err error
	if s.at, err = readPosition(s.dir); err != nil {
		return err
	}
	s.parked, err = openParked(s.dir)
	return err
}

// Close lets go of files and connections.
func (s *HTTP) Close() error {
	s.client.CloseIdleConnections()
	if err := s.parked.Close(); err != nil {
		return fmt.Errorf("closing sink %s: %w", s.name, err)
	}
	return nil
}

// Position implements attendance.Target.
func (s *HTTP) Position(context.Context) (attendance.Position, error) { return s.at, nil }

// Deliver implements attendance.Target. A bulk without rows moves the position
// and sends nothing.
func (s *HTTP) Deliver(ctx context.Context, b *attendance.Bulk) (attendance.Delivered, error) {
	rows, _ := b.Fold()
	if s.begun == nil || s.begun.first != b.First || s.begun.next != b.Next {
		s.begun = &passage{first: b.First, next: b.Next, settled: make(map[[2]uint64]bool)}
	}
	if len(rows) > 0 {
		if err := s.move(attendance.Position{Next: b.First, Until: b.Next}); err != nil {
			return attendance.Delivered{}, err
		}
	}
	writes := s.begun.done.Writes
	err := s.send(ctx, rows, len(rows))
	if err != nil {
		var how *attendance.DeliverError
		failed := attendance.Delivered{Writes: s.begun.done.Writes - writes}
		if errors.As(err, &how) && how.Stop {
			s.begun = nil // whatever somebody changes, the whole bulk is asked again
		}
		return failed, err
	}
	if err := park(s.parked, s.begun.parked); err != nil {
		return attendance.Delivered{}, fmt.Errorf("parking %d records: %w", len(s.begun.parked), err)
	}
	if err := s.move(attendance.Position{Next: b.Next}); err != nil {
		return attendance.Delivered{}, err
	}
	done := s.begun.done
	done.Writes -= writes // those before were told with their error
	done.Parked = len(s.begun.parked)
	s.count(len(rows), done.Parked)
	s.begun = nil
	return done, nil
}

// move writes the position down, unless it stands there already.
func (s *HTTP) move(at attendance.Position) error {
	if s.at == at {
		return nil
	}
	if err := writePosition(s.dir, at); err != nil {
		return fmt.Errorf("writing the position down: %w", err)
	}
	s.at = at
	return nil
}

// count moves the window on.
func (s *HTTP) count(records, refused int) {
	s.records += records
	s.refused += refused
	if s.records > 2*windowRecords {
		s.records, s.refused = s.records/2, s.refused/2
	}
}

// mayPark reports whether what is parked of a bulk of records stays within
// bounds.
func (s *HTTP) mayPark(records int) bool {
	refused := s.refused + len(s.begun.parked)
	return refused < parkedMin || float64(refused) <= s.parkMax*float64(s.records+records)
}

// send delivers rows, a part of a bulk of so many, in halves where they are
// refused as a whole. Parts that went through before are passed over.
func (s *HTTP) send(ctx context.Context, rows []attendance.Row, ofBulk int) error {
	if len(rows) == 0 {
		return nil
	}
	part := [2]uint64{rows[0].Seq, rows[len(rows)-1].Seq}
	if s.begun.settled[part] {
		return nil
	}
	s.begun.done.Writes++
	v, err := s.post(ctx, rows)
	if err != nil {
		return err
	}
	switch {
	case v.refused != "" && len(rows) > 1:
		half := len(rows) / 2
		if err := s.send(ctx, rows[:half], ofBulk); err != nil {
			return err
		}
		return s.send(ctx, rows[half:], ofBulk)
	case v.refused != "":
		s.begun.parked = append(s.begun.parked, newParked(&rows[0], v.refused))
	default:
		for i := range rows {
			if reason, bad := v.rejected[rows[i].Key()]; bad {
				s.begun.parked = append(s.begun.parked, newParked(&rows[i], reason))
			}
		}
		s.begun.done.Rows += len(rows) - len(v.rejected) - v.duplicates
		s.begun.done.Duplicates += v.duplicates
	}
	s.begun.settled[part] = true
	if !s.mayPark(ofBulk) {
		last := s.begun.parked[len(s.begun.parked)-1]
		return stop("%d of %d records were refused, more than %.3g %%; the last, %s: %s", s.refused+len(s.begun.parked), s.records+ofBulk, 100*s.parkMax, last.Key, last.Reason)
	}
	return nil
}

// post sends one request and judges its answer.
func (s *HTTP) post(ctx context.Context, rows []attendance.Row) (verdict, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(encode(rows)))
	if err != nil {
		return verdict{}, err
	}
	for name, values := range s.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", s.idempotencyKey(&rows[0], &rows[len(rows)-1]))
	req.Header.Set("User-Agent", "firstbell")
	res, err := s.client.Do(req)
	if err != nil {
		return verdict{}, withoutURL(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax+1))
	if err != nil {
		return verdict{}, fmt.Errorf("reading the answer: %w", withoutURL(err))
	}
	return judge(res, answer, rows)
}

// withoutURL drops the URL from an error of net/http: it may hold credentials.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func encode(rows []attendance.Row) []byte {
	body := make([]byte, 0, 300*len(rows)+2)
	body = append(body, '[')
	for i := range rows {
		if i > 0 {
			body = append(body, ',')
		}
		body = rows[i].AppendRecordJSON(body, rows[i].Key())
	}
	return append(body, ']')
}

// idempotencyKey is the same for the same records to the same sink, also after
// a restart: 32 hexadecimal digits of SHA-256 over the sink's name and the first
// and last record, by position and receipt (positions alone would begin anew
// with a new journal).
func (s *HTTP) idempotencyKey(first, last *attendance.Row) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s %d %s %d %s", len(s.name), s.name, first.Seq, first.ID, last.Seq, last.ID))
	return hex.EncodeToString(sum[:16])
}
