package lms

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	checkInBytesMax = 4 << 10
	bulkBytesMax    = 32 << 20
	// idempotencyMax is how many bulk answers are remembered by Idempotency-Key.
	idempotencyMax = 256
)

// Record is one line of the register: an element of a bulk POST, by its names on
// the wire.
type Record struct {
	Key          string    `json:"key"`
	Receipt      string    `json:"receipt"`
	Student      string    `json:"student_id"`
	School       string    `json:"school"`
	Class        string    `json:"class_id"`
	Date         string    `json:"date"`
	Period       string    `json:"period"`
	FirstArrival time.Time `json:"first_arrival"`
	Status       string    `json:"status"`
	Durable      string    `json:"durable"`
	Verified     bool      `json:"verified"`
}

// Result is the verdict on one record.
type Result struct {
	Key    string `json:"key"`
	Result string `json:"result"` // stored, duplicate or rejected
	Reason string `json:"reason,omitempty"`
}

// register is the platform's attendance table: a row per key.
type register struct {
	mu      sync.Mutex // guards what follows
	rows    map[string]Record
	writes  int64             // statements against the table: one per check-in, one per bulk
	repeats int64             // bulk POSTs that had been answered before
	answers map[string][]byte // bulk answers by Idempotency-Key
	order   []string          // the keys of answers, oldest first
	names   map[string]string // one copy of what rows have in common
}

func (g *register) open() {
	g.rows = make(map[string]Record)
	g.answers = make(map[string][]byte)
	g.names = make(map[string]string)
}

// internLocked spares a million rows a million copies of "present".
func (g *register) internLocked(s string) string {
	if kept, ok := g.names[s]; ok {
		return kept
	}
	g.names[s] = s
	return s
}

func (g *register) putLocked(r Record) (result string) {
	if old, ok := g.rows[r.Key]; ok {
		// The earlier arrival counts, whichever comes first.
		if r.FirstArrival.Before(old.FirstArrival) {
			g.rows[r.Key] = r
		}
		return "duplicate"
	}
	for _, s := range []*string{&r.School, &r.Class, &r.Date, &r.Period, &r.Status, &r.Durable} {
		*s = g.internLocked(*s)
	}
	g.rows[r.Key] = r
	return "stored"
}

// answerCheckIn is attendance as platforms do it: one write per student, while
// the student waits.
func (s *Server) answerCheckIn(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Student string `json:"student_id"`
		Class   string `json:"class_id"`
	}
	school := leftmost(r.Host)
	err := json.NewDecoder(io.LimitReader(r.Body, checkInBytesMax)).Decode(&in)
	s.count.answered(CheckIn, false, resource{})
	if err != nil || in.Student == "" || s.schools[school] == "" {
		http.Error(w, "who are you?", http.StatusBadRequest)
		return
	}
	rec := s.arrival(school, in.Student, in.Class, time.Now())
	s.register.mu.Lock()
	s.register.writes++
	if old, ok := s.register.rows[rec.Key]; ok {
		rec = old
	} else {
		s.register.putLocked(rec)
	}
	s.register.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	s.setSession(w.Header(), r)
	_ = json.NewEncoder(w).Encode(rec)
}

// arrival is what the platform makes of a check-in that comes now.
func (s *Server) arrival(school, student, class string, now time.Time) Record {
	p := &s.cfg.Period
	rec := Record{
		Receipt: newUUID(), Student: student, School: school, Class: class, Date: p.Date,
		Period: p.Name, FirstArrival: now.Truncate(time.Millisecond), Status: "present", Durable: "memory",
	}
	switch {
	case now.Before(p.Opens) || !now.Before(p.Ends):
		rec.Period, rec.Status = "outside", "outside"
	case now.After(p.LateAfter):
		rec.Status = "late"
	}
	rec.Key = fmt.Sprintf("%s/%s/%s/%s", rec.Date, school, rec.Period, student)
	return rec
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// answerBulk takes many records in one write and gives a verdict on each. The
// same Idempotency-Key gets the same answer.
func (s *Server) answerBulk(w http.ResponseWriter, r *http.Request) {
	s.count.answered(Bulk, false, resource{})
	body, err := io.ReadAll(io.LimitReader(r.Body, bulkBytesMax+1))
	switch {
	case err != nil:
		return // the sender has gone, and will come again
	case len(body) > bulkBytesMax:
		http.Error(w, "more than "+strconv.Itoa(bulkBytesMax)+" bytes; send fewer records", http.StatusRequestEntityTooLarge)
		return
	}
	var records []Record
	if err := json.Unmarshal(body, &records); err != nil {
		http.Error(w, "not a JSON array of receipts: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.register.takeBulk(r.Header.Get("Idempotency-Key"), records, s.reject))
}

// reject says why a record cannot be taken; empty when it can.
func (s *Server) reject(r *Record) string {
	switch {
	case r.Key == "" || r.Student == "" || r.Receipt == "":
		return "key, student_id and receipt are needed"
	case s.schools[r.School] == "":
		return "no such school here"
	}
	return ""
}

func (g *register) takeBulk(key string, records []Record, reject func(*Record) string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.answers[key]; ok && key != "" {
		g.repeats++
		return old
	}
	g.writes++
	answer := struct {
		Results []Result `json:"results"`
	}{make([]Result, 0, len(records))}
	for i := range records {
		r := &records[i]
		res := Result{Key: r.Key, Result: "rejected", Reason: reject(r)}
		if res.Reason == "" {
			res.Result = g.putLocked(*r)
		}
		answer.Results = append(answer.Results, res)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings always can be written
	}
	if key != "" {
		g.answers[key] = b
		g.order = append(g.order, key)
		if len(g.order) > idempotencyMax {
			delete(g.answers, g.order[0])
			g.order = g.order[1:]
		}
	}
	return b
}

// Register yields the rows, one per key, in no order. The register stands still
// meanwhile.
func (s *Server) Register() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		s.register.mu.Lock()
		defer s.register.mu.Unlock()
		for _, r := range s.register.rows {
			if !yield(r) {
				return
			}
		}
	}
}

// Rows is how many keys are in the register.
func (s *Server) Rows() int {
	s.register.mu.Lock()
	defer s.register.mu.Unlock()
	return len(s.register.rows)
}

// Writes is how many statements the register took: one per check-in that came
// directly, one per bulk POST.
func (s *Server) Writes() int64 {
	s.register.mu.Lock()
	defer s.register.mu.Unlock()
	return s.register.writes
}
