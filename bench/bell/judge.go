package bell

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Status is what a receipt says about an arrival.
type Status uint8

const (
	Nothing Status = iota // no receipt
	Present
	Late
	Outside
)

// String is the word on the wire.
func (s Status) String() string { return [...]string{"", "present", "late", "outside"}[s] }

// ParseStatus reads what String writes; Nothing for any other word.
func ParseStatus(s string) Status {
	for _, known := range []Status{Present, Late, Outside} {
		if s == known.String() {
			return known
		}
	}
	return Nothing
}

// Held is a receipt in a student's hands, less what the student's own number
// says already.
type Held struct {
	ID     [16]byte
	First  int64 // the first arrival it states, in Unix milliseconds
	Status Status
}

// outcome is what became of one try.
type outcome uint8

const (
	answered outcome = iota
	refused          // come back later
	errored          // an answer that is no success
	broken           // no answer: refused, reset, cut off
	timedOut
	wrong // an answer that is not what it has to be
)

// retried reports whether a browser's script would try again. An answer that
// says that the request itself is bad is not improved by asking again.
func (o outcome) retried(status int) bool {
	return o != answered && (o != errored || status >= 500 || status == 408 || status == 425)
}

// judge decides what an answer is worth, and sounds the alarm when it is not
// the student's to see. now is when its last byte came.
func (p *Player) judge(e *errand, st *Student, a *answer, now time.Time) outcome {
	if !p.ownCookies(e, st, a) {
		return wrong
	}
	switch {
	case a.status == 503 || a.status == 429:
		return refused
	case a.status != 200:
		return errored
	}
	switch e.kind {
	case Me:
		return p.judgeMe(st, a)
	case CheckIn:
		return p.judgeReceipt(e, st, a, now)
	}
	r := p.resource(e, st)
	if a.length != r.Bytes || a.crc != r.CRC {
		p.note("%s%s gave %s %d bytes with CRC %08x; it has %d with %08x", r.Host, r.Path, st.ID, a.length, a.crc, r.Bytes, r.CRC)
		return wrong
	}
	return answered
}

// ownCookies reports whether every session handed out is the student's own. A
// session of somebody else is how strangers end up in each other's account.
func (p *Player) ownCookies(e *errand, st *Student, a *answer) bool {
	if len(a.cookies) == 0 {
		return true
	}
	own := p.cfg.Session(st.ID)
	name, _, _ := strings.Cut(own, "=")
	for _, pair := range a.cookies {
		if n, _, _ := strings.Cut(pair, "="); n == name && pair != own {
			p.leaks.Add(1)
			p.note("%s was handed a session that is not theirs with a %s: %.60s", st.ID, e.kind, pair)
			return false
		}
	}
	return true
}

func (p *Player) judgeMe(st *Student, a *answer) outcome {
	var me struct {
		Student string `json:"student_id"`
	}
	if err := json.Unmarshal(a.body, &me); err != nil {
		p.note("the personal page of %s is not JSON: %v", st.ID, err)
		return wrong
	}
	if me.Student != st.ID {
		p.leaks.Add(1)
		p.note("%s was shown the personal page of %.40q", st.ID, me.Student)
		return wrong
	}
	return answered
}

// receipt is the answer to a check-in.
type receipt struct {
	Receipt      string    `json:"receipt"`
	Student      string    `json:"student_id"`
	School       string    `json:"school"`
	Class        string    `json:"class_id"`
	Date         string    `json:"date"`
	Period       string    `json:"period"`
	FirstArrival time.Time `json:"first_arrival"`
	Status       string    `json:"status"`
}

func (p *Player) judgeReceipt(e *errand, st *Student, a *answer, now time.Time) outcome {
	var r receipt
	if err := json.Unmarshal(a.body, &r); err != nil {
		p.note("the receipt of %s cannot be read: %v", st.ID, err)
		return wrong
	}
	if r.Student != st.ID || r.School != p.cfg.Roster.SchoolID(st.School) {
		p.leaks.Add(1)
		p.note("%s was given the receipt of %.40q at %.40q", st.ID, r.Student, r.School)
		return wrong
	}
	if reason := p.unlikely(&r, st, now); reason != "" {
		p.note("the receipt of %s %s", st.ID, reason)
		return wrong
	}
	id, ok := ParseUUID(r.Receipt)
	if !ok {
		p.note("the receipt of %s has no UUID but %.40q", st.ID, r.Receipt)
		return wrong
	}
	p.hold(e, Held{ID: id, First: r.FirstArrival.UnixMilli(), Status: ParseStatus(r.Status)}, now)
	return answered
}

// unlikely says what is wrong with a receipt that is the student's own.
func (p *Player) unlikely(r *receipt, st *Student, now time.Time) string {
	m := &p.cfg.Morning
	status := ParseStatus(r.Status)
	switch {
	case r.Class != st.ClassID:
		return fmt.Sprintf("is for class %.40q, not %q", r.Class, st.ClassID)
	case r.Date != m.Date:
		return fmt.Sprintf("is for %.40q, not %s", r.Date, m.Date)
	case r.FirstArrival.After(now.Add(clockSlack)):
		return fmt.Sprintf("says they arrive at %s, and it is only %s", r.FirstArrival, now)
	case status == Nothing:
		return fmt.Sprintf("has the status %.40q", r.Status)
	case status == Outside:
		return ""
	case r.Period != m.Period:
		return fmt.Sprintf("is for period %.40q, not %q", r.Period, m.Period)
	// The clock on the wall has seconds: who comes within the second of
	// late_after may be either.
	case status == Late && r.FirstArrival.Before(m.LateAfter):
		return fmt.Sprintf("calls an arrival at %s late; late is after %s", r.FirstArrival, m.LateAfter)
	case status == Present && r.FirstArrival.After(m.LateAfter.Add(time.Second)):
		return fmt.Sprintf("calls an arrival at %s present; late is after %s", r.FirstArrival, m.LateAfter)
	}
	return ""
}

// clockSlack is how far a receipt rounded to milliseconds may lie from the
// bell's own clock, which is the server's too.
const clockSlack = 5 * time.Millisecond

// ParseUUID reads the usual form of a UUID.
func ParseUUID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s[0:8]+s[9:13]+s[14:18]+s[19:23]+s[24:36]))
	return id, err == nil
}
