package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"firstbell/attendance"
)

// verdict is what an answer means for the records sent. Without refused they
// were all judged one by one.
type verdict struct {
	refused    string            // why the request was refused as a whole; halve it
	rejected   map[string]string // reason by key
	duplicates int
}

// stop is an error that somebody must look at.
func stop(format string, args ...any) error {
	return &attendance.DeliverError{Err: fmt.Errorf(format, args...), Stop: true}
}

// judge reads an answer; accepted reads that of a 2xx. Its error says how
// delivery goes on.
func judge(a *answered, accepted func() (verdict, error)) (verdict, error) {
	switch code, answer := a.status, a.body; {
	case code >= 200 && code < 300:
		return accepted()
	case code == http.StatusBadRequest, code == http.StatusConflict,
		code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return verdict{refused: fmt.Sprintf("answered %d: %s", code, excerpt(answer))}, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly,
		code == http.StatusTooManyRequests, code >= 500:
		return verdict{}, &attendance.DeliverError{
			Err:        fmt.Errorf("it answered %d: %s", code, excerpt(answer)),
			RetryAfter: retryAfter(a.header.Get("Retry-After"), time.Now()),
		}
	case code >= 300 && code < 400:
		return verdict{}, stop("it answered %d and points elsewhere; write the final address into the configuration", code)
	default:
		return verdict{}, stop("it answered %d: %s", code, excerpt(answer))
	}
}

// judgeRecords reads the verdicts of a 2xx. Every record needs one: an answer
// that is something else did not come from who keeps attendance.
func judgeRecords(answer []byte, records []record) (verdict, error) {
	var v verdict
	if len(bytes.TrimSpace(answer)) == 0 {
		return v, nil
	}
	if len(answer) > answerBytesMax {
		return v, stop("its answer is longer than %d bytes", answerBytesMax)
	}
	results, reasons, err := readVerdicts(answer)
	if err != nil {
		return v, stop("its answer is neither empty nor has results: %s", excerpt(answer))
	}
	rejected := make(map[string]string)
	for i := range records {
		key := records[i].key
		switch result := results[key]; result {
		case "stored":
		case "duplicate":
			v.duplicates++
		case "rejected":
			rejected[key] = reasons[key]
		default:
			return v, stop("its answer says %q of record %s; want stored, duplicate or rejected", result, key)
		}
	}
	v.rejected = rejected // of the records sent, whatever else was named
	return v, nil
}

// readVerdicts reads {"results":[…]}, or a line of JSON per record.
func readVerdicts(answer []byte) (results, reasons map[string]string, err error) {
	type line struct{ Key, Result, Reason string }
	results, reasons = make(map[string]string), make(map[string]string)
	note := func(l *line) {
		results[l.Key] = l.Result
		if l.Result == "rejected" {
			reasons[l.Key] = excerpt([]byte(l.Reason))
		}
	}
	for d := json.NewDecoder(bytes.NewReader(answer)); ; {
		var said struct {
			line
			Results []line
		}
		switch err := d.Decode(&said); {
		case err == io.EOF:
			return results, reasons, nil
		case err != nil:
			return nil, nil, err
		case said.Results == nil && said.Result == "":
			return nil, nil, errors.New("neither results nor a result")
		}
		if said.Results == nil {
			note(&said.line)
		}
		for i := range said.Results {
			note(&said.Results[i])
		}
	}
}

// excerpt is the beginning of what a stranger wrote, fit for one line.
func excerpt(b []byte) string {
	const most = 200
	cut := len(b) > most
	if cut {
		b = b[:most]
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, string(b))
	if s = strings.TrimSpace(s); s == "" {
		return "no reason given"
	}
	if cut {
		s += "…"
	}
	return s
}

// retryAfter reads the field (RFC 9110 section 10.2.3); 0 when there is none.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
