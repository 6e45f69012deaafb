package proxy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
	"firstbell/proxy/field"
)

var aReceipt = attendance.Receipt{
	School: "hangang", Student: `<b>"s1"&'\`, Class: "3-2 \u2028", Date: timetable.Date{Year: 2026, Month: 5, Day: 4}, Period: "1",
	FirstArrival: time.Date(2026, 5, 4, 9, 1, 2, 0, time.FixedZone("", 9*3600)), Status: "present", Verified: true,
}

// taken is a responder that keeps what it is told.
type taken struct {
	responder
	status int
	fields field.List
	body   string
}

func (k *taken) send(_ *exchange, status int, fields field.List, body []byte) {
	k.status, k.fields, k.body = status, fields, string(body)
}

func TestAReplyIsFilledAndEscapedByItsKind(t *testing.T) {
	for _, c := range []struct {
		reply ReplyConfig
		want  string
	}{
		{ReplyConfig{Body: `{"ok":true,"id":"${student_id}","c":"${class_id}","v":${verified}}`},
			`{"ok":true,"id":"\u003cb\u003e\"s1\"\u0026'\\","c":"3-2 \u2028","v":true}`},
		{ReplyConfig{ContentType: "text/html; charset=utf-8", Body: `<p class="${status}">`}, "an error"},
		{ReplyConfig{ContentType: "text/html; charset=utf-8", Body: `<a href="/r/${receipt}">${student_id}</a> $${receipt} ${date}`},
			`<a href="/r/00000000-0000-0000-0000-000000000000">&lt;b&gt;&#34;s1&#34;&amp;&#39;\</a> ${receipt} 2026-05-04`},
		{ReplyConfig{ContentType: "text/plain", Body: "OK ${first_arrival} ${period} ${school} ${durable} ${status}"},
			"OK 2026-05-04T09:01:02.000+09:00 1 hangang disk present"},
		{ReplyConfig{ContentType: "application/x-www-form-urlencoded", Body: "s=${student_id}&ok=1"}, `s=%3Cb%3E%22s1%22%26%27%5C&ok=1`},
		{ReplyConfig{Status: 204}, ""},
		{ReplyConfig{Status: 201}, string(aReceipt.AppendJSON(nil)) + "\n"},
	} {
		r, err := NewReply(c.reply)
		if c.want == "an error" {
			if err == nil {
				t.Errorf("%+v: got no error", c.reply)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.reply, err)
			continue
		}
		out := &taken{}
		r.send(&exchange{out: out, fields: field.List{}}, &aReceipt, nil)
		if out.body != c.want || out.status != max(200, c.reply.Status) || out.fields.Get("Cache-Control") != "no-store" {
			t.Errorf("%+v:\ngot  %d %v %s\nwant %s", c.reply, out.status, out.fields, out.body, c.want)
		}
		if kind := out.fields.Get("Content-Type"); strings.Contains(kind, "json") && !json.Valid([]byte(out.body)) {
			t.Errorf("%+v: the answer is not JSON: %s", c.reply, out.body)
		}
	}
}

func TestAReplyThatCannotBeMadeSafeIsRefused(t *testing.T) {
	for _, c := range []struct {
		reply ReplyConfig
		says  string
	}{
		{ReplyConfig{Status: 302}, "does not say"},
		{ReplyConfig{Status: 404}, "does not say"},
		{ReplyConfig{Status: 204, Body: "x"}, "no content"},
		{ReplyConfig{Body: `{"a":${student_id}}`}, "not JSON"},
		{ReplyConfig{Body: `{"a":`}, "not JSON"},
		{ReplyConfig{Body: `"${nobody}"`}, "no placeholder"},
		{ReplyConfig{Body: `"${receipt"`}, "no placeholder"},
		{ReplyConfig{ContentType: "text/html", Body: "<script>var a='${student_id}'</script>"}, "a script"},
		{ReplyConfig{ContentType: "text/html", Body: "<STYLE>${class_id}</STYLE>"}, "a style"},
		{ReplyConfig{ContentType: "text/html", Body: "<!-- ${class_id} -->"}, "a comment"},
		{ReplyConfig{ContentType: "text/html", Body: "<a href=${student_id}>"}, "a tag"},
		{ReplyConfig{ContentType: "text/javascript", Body: "f('${student_id}')"}, "not known"},
		{ReplyConfig{ContentType: "text/html\r\nX: y", Body: "x"}, "media type"},
		{ReplyConfig{ContentType: "text/plain"}, "add a body"},
		{ReplyConfig{Body: strings.Repeat("x", replyBytesMax+1)}, "more than"},
		{ReplyConfig{Redirect: "//evil.example"}, "not a place"},
		{ReplyConfig{Redirect: "https://${school}.example/"}, "not a place"},
		{ReplyConfig{Redirect: "https://a.example${school}"}, "not a place"},
		{ReplyConfig{Redirect: "javascript:alert(1)"}, "not a place"},
		{ReplyConfig{Redirect: "${school}"}, "not a place"},
		{ReplyConfig{Redirect: "/a b"}, "not a place"},
		{ReplyConfig{Redirect: `/\evil.example`}, "not a place"},
	} {
		if _, err := NewReply(c.reply); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), ";") {
			t.Errorf("%+v: got %v, want %q and a way out", c.reply, err, c.says)
		}
	}
}

func TestAFrontEndGetsTheAnswerItKnows(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := checkInGate(t, &brokenDisk{})
		reply, err := NewReply(ReplyConfig{Status: 201, Body: `{"result":"ok","no":"${receipt}"}`, Redirect: "/done?student=${student_id}"})
		if err != nil {
			t.Fatal(err)
		}
		g.proxy.Swap(NewTable([]*Route{{Hosts: []string{"*"}, Path: "/form", Methods: []string{"POST"},
			CheckIn: &CheckIn{Student: Ref{Kind: RefForm, Name: "student"}, Reply: reply}}}))
		a := g.do("POST", "/form", strings.NewReader("student=s%201"))
		var body struct{ Result, No string }
		if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.StatusCode != 201 || body.Result != "ok" || len(body.No) != 36 {
			t.Errorf("a program: got %d %s, want 201 and the result", a.StatusCode, a.body)
		}
		a = g.do("POST", "/form", strings.NewReader("student=s%201"), "Accept: text/html")
		if a.StatusCode != 303 || a.Header.Get("Location") != "/done?student=s%201" {
			t.Errorf("a browser's form: got %d to %q, want 303 to /done?student=s%%201", a.StatusCode, a.Header.Get("Location"))
		}
		a = g.do("POST", "/form", strings.NewReader(""), "Accept: text/html")
		if a.StatusCode != 400 || !strings.Contains(a.body, "<html") || !strings.Contains(a.body, "go back") || strings.Contains(a.body, "http-equiv") {
			t.Errorf("a browser's form without a student: got %d %s, want a page that leads back", a.StatusCode, a.body)
		}
	})
}
