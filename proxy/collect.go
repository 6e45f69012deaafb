package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"firstbell/attendance"
	"firstbell/proxy/field"
)

// Collect says how a route takes other small writes, such as progress beacons
// and quiz answers: they are kept as they came and delivered in bulk to a sink.
type Collect struct {
	Key       []Ref // by which a write is known, all of them together; none: the Idempotency-Key field
	Sink      string
	BytesMax  int64 // of content; 0, or more: attendance.CollectedBytesMax
	NoContent bool  // answer 204 instead of 200 with the receipt
}

// receiptName is the field that names the receipt of what was collected.
const receiptName = "Receipt"

// collect answers a small write once it is on disk. It waits behind no origin's
// limit.
func (p *Proxy) collect(x *exchange, rule *Collect) {
	x.outcome = outcomeCollected
	out, able := x.out.(postponer)
	if !able {
		x.mayWait()
	}
	r := readings.Get().(*reading)
	r.proxy, r.x, r.collects, r.out = p, x, rule, out
	item, status, err := r.item(x, rule)
	if err != nil {
		x.outcome = outcomeCollectInvalid
		p.problem(x, status, err.Error(), nil)
		r.free()
		return
	}
	if able && out.postpones() {
		id, waits, err := p.recorder.SubmitItem(item, &r.pending, r)
		if waits {
			out.postpone(r)
			return
		}
		r.receipt.ID, r.err = id, err
	} else {
		// The recorder answers everybody, at the latest when it ends.
		r.receipt.ID, r.err = p.recorder.Collect(context.Background(), item)
	}
	r.answer()
}

// answerCollected says what became of a small write.
func (r *reading) answerCollected() {
	x := r.x
	if r.err != nil {
		r.proxy.refuseCollect(x, r.err)
		return
	}
	fields := field.List{{Name: receiptName, Value: r.receipt.ID.String()}, {Name: "Cache-Control", Value: "no-store"}}
	if r.collects.NoContent {
		x.out.send(x, 204, fields, nil)
		return
	}
	r.written = append(append(append(r.written[:0], `{"receipt":"`...), fields[0].Value...), "\",\"durable\":\"disk\"}\n"...)
	x.out.send(x, 200, append(fields, field.Field{Name: "Content-Type", Value: "application/json"}), r.written)
}

func (p *Proxy) refuseCollect(x *exchange, err error) {
	var invalid *attendance.FieldError
	if errors.As(err, &invalid) {
		x.outcome = outcomeCollectInvalid
		p.problem(x, 400, "the write's "+invalid.Error(), nil)
		return
	}
	x.outcome = outcomeCollectRefused
	wait := 2 * time.Second
	var refused *attendance.Refused
	if errors.As(err, &refused) {
		wait = refused.RetryAfter
	}
	p.problem(x, 503, "this could not be recorded yet; send it again in a moment, under the same key", field.List{retryAfter(wait)})
}

// item takes in the content, and reads of it and of the fields what the rule
// needs. The item is valid while r and x are.
func (r *reading) item(x *exchange, rule *Collect) (item attendance.Item, status int, err error) {
	most := rule.BytesMax
	if most <= 0 || most > attendance.CollectedBytesMax {
		most = attendance.CollectedBytesMax
	}
	tooLong := fmt.Errorf("what is collected has at most %d bytes here", most)
	if coding := x.fields.Peek("Content-Encoding"); len(coding) > 0 && !field.EqualName(coding, "identity") {
		return item, 415, errors.New("content is taken as it is here; send it without Content-Encoding")
	}
	if x.length > most {
		return item, 413, tooLong
	}
	r.content = r.content[:0]
	if x.body != nil {
		if r.content, err = readAll(r.content, x.body, most); err != nil {
			if errors.Is(err, errTooLong) {
				return item, 413, tooLong
			}
			return item, notWhole(err), errors.New("the content did not arrive whole, or not in time")
		}
	}
	item = attendance.Item{
		Host: text(x.host), Sink: rule.Sink, Path: text(x.target.path),
		ContentType: text(x.fields.Peek("Content-Type")), Body: r.content,
	}
	item.Key, err = r.collectKey(x, rule.Key)
	return item, 400, err
}

// collectKey reads the key: what stands in one place as it is; of several, each
// escaped as in a path and joined by slashes.
func (r *reading) collectKey(x *exchange, places []Ref) (string, error) {
	if len(places) == 0 {
		key := strings.Trim(text(x.fields.Peek("Idempotency-Key")), `"`)
		if key == "" {
			return "", errors.New("the field Idempotency-Key is missing; it tells a repeat from a new write")
		}
		return key, nil
	}
	if err := r.parse(places); err != nil {
		return "", err
	}
	parts := make([]string, len(places))
	for i := range places {
		value, err := r.value(x, &places[i])
		switch {
		case err != nil:
		case value == "":
			err = errors.New("is missing")
		case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
			err = errors.New("is not plain text")
		}
		if err != nil {
			return "", fmt.Errorf("a part of the key, %s, %w", places[i].place(), err)
		}
		parts[i] = value
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/"), nil
}

// parse reads the content as the places need it.
func (r *reading) parse(places []Ref) (err error) {
	checked := false
	for i := range places {
		switch places[i].Kind {
		case RefJSON:
			if !checked && !validJSON(r.content) {
				return errors.New("the content is not JSON")
			}
			checked = true
		case RefForm:
			if r.form == nil {
				if r.form, err = url.ParseQuery(string(r.content)); err != nil {
					return errors.New("the content is not a form (application/x-www-form-urlencoded)")
				}
			}
		}
	}
	return nil
}

// place names where a Ref points to.
func (ref *Ref) place() string {
	switch ref.Kind {
	case RefJSON:
		return "json:/" + strings.Join(ref.Path, "/")
	case RefForm:
		return "form:" + ref.Name
	}
	return "header:" + ref.Name
}
