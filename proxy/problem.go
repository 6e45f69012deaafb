package proxy

import (
	"bytes"
	"encoding/json"
	"html"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"firstbell/proxy/field"
)

const problemType = "application/problem+json" // RFC 9457

// problem answers with an error of firstbell's own: a page for people, problem
// details for programs.
func (p *Proxy) problem(x *exchange, status int, detail string, more field.List) {
	fields := append(field.List{
		{Name: "Cache-Control", Value: "no-store"},
		{Name: "Vary", Value: "Accept"},
	}, more...)
	if wantsPage(x.fields) {
		fields = append(fields, field.Field{Name: "Content-Type", Value: "text/html; charset=utf-8"})
		x.out.send(x, status, fields, problemPage(status, detail, more.Get("Retry-After"), x.method == "GET" || x.method == "HEAD"))
		return
	}
	fields = append(fields, field.Field{Name: "Content-Type", Value: problemType})
	x.out.send(x, status, fields, problemJSON(x.scratch[1][:0], status, detail))
}

// wantsPage reports whether the client is a browser showing a page.
func wantsPage(f field.Fields) bool { return bytes.Contains(f.Peek("Accept"), []byte("text/html")) }

// problemJSON appends problem details.
func problemJSON(dst []byte, status int, detail string) []byte {
	dst = append(dst, `{"title":"`...)
	dst = append(dst, http.StatusText(status)...)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"detail":`...)
	quoted, _ := json.Marshal(detail) // a string always marshals
	return append(append(dst, quoted...), '}', '\n')
}

// problemPage is a page that says what happened and what to do, on any screen.
// What a form sent is not sent again by loading the page: its sender is told to
// go back and press again.
func problemPage(status int, detail, retryAfter string, reloads bool) []byte {
	title := html.EscapeString(http.StatusText(status))
	var b bytes.Buffer
	b.WriteString(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">`)
	if retryAfter != "" && reloads {
		b.WriteString(`<meta http-equiv="refresh" content="` + html.EscapeString(retryAfter) + `">`)
	}
	b.WriteString(`<title>` + title + `</title><style>:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1.25rem}` +
		`h1{font-size:1.5rem;margin:0 0 .5rem}p{margin:.5rem 0}small{opacity:.7}</style></head><body><h1>` + title + `</h1><p>` + html.EscapeString(detail) + `.</p>`)
	switch {
	case retryAfter != "" && reloads:
		b.WriteString(`<p>This page tries again by itself in ` + html.EscapeString(retryAfter) + ` seconds.</p>`)
	case retryAfter != "":
		b.WriteString(`<p>Please go back and press again in ` + html.EscapeString(retryAfter) + ` seconds.</p>`)
	case !reloads:
		b.WriteString(`<p>Please go back to the page you came from.</p>`)
	}
	b.WriteString(`<p><small>` + strconv.Itoa(status) + ` &middot; firstbell</small></p></body></html>` + "\n")
	return b.Bytes()
}

// retryAfter is the Retry-After field for a wait, in whole seconds, at least 1.
func retryAfter(d time.Duration) field.Field {
	seconds := max(1, int64((d+time.Second-1)/time.Second))
	return field.Field{Name: "Retry-After", Value: strconv.FormatInt(seconds, 10)}
}

// secondDate is a Date and the second it is of.
type secondDate struct {
	unix int64
	date string
}

var lastSecond atomic.Pointer[secondDate]

// dateNow is the Date field's value at t, made once a second.
func dateNow(t time.Time) string {
	last := lastSecond.Load()
	if last == nil || last.unix != t.Unix() {
		last = &secondDate{t.Unix(), t.UTC().Format(http.TimeFormat)}
		lastSecond.Store(last)
	}
	return last.date
}
