package attendance

import "unicode/utf8"

// Press is one check-in as it came. Its strings need only be valid while Take
// runs; the receipt refers to some of them.
type Press struct {
	Host    string // authority the route matched: lower case, no port, no trailing dot
	Student string // required
	Class   string // may be empty unless ClassIsKey
	Date    string // 2006-01-02; empty: the server's
	Period  string // empty: the one that is on

	// Attempt names one press (a field or Idempotency-Key), so that its retry
	// gets its receipt even after the period has ended. May be empty.
	Attempt string

	// FirstSeen is the token of an earlier Refused, or of Seen. One that is
	// forged, too old or of another check-in is ignored.
	FirstSeen string

	// Session is the credential that vouches for the student, as Seen was told
	// it. May be empty.
	Session []byte

	Verified   bool // the student's identity was verified as the route says
	ClassIsKey bool // a student checks in once per class
}

// validate names the first field that cannot be recorded.
func (p *Press) validate() error {
	if p.Host == "" {
		return &FieldError{"host", "is missing"}
	}
	if p.Student == "" {
		return &FieldError{"student", "is missing"}
	}
	if p.ClassIsKey && p.Class == "" {
		return &FieldError{"class", "is missing; students check in to each class here"}
	}
	for _, f := range [...]struct{ name, value string }{
		{"student", p.Student}, {"class", p.Class}, {"period", p.Period}, {"date", p.Date},
		{"attempt", p.Attempt}, {"host", p.Host},
	} {
		if reason := unfit(f.value); reason != "" {
			return &FieldError{f.name, reason}
		}
	}
	return nil
}

// unfit says why a text cannot be recorded; empty when it can.
func unfit(s string) string {
	if len(s) > fieldBytesMax {
		return "is longer than 256 bytes"
	}
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return "has a control character"
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii {
		return ""
	}
	if !utf8.ValidString(s) {
		return "is not valid UTF-8"
	}
	for _, r := range s {
		if r >= 0x80 && r < 0xa0 {
			return "has a control character"
		}
	}
	return ""
}
