package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"firstbell/proxy/peer"
)

// TestClientsAreKnownAndLimitedAsTheFileSays begins with a file that trusts and
// limits nobody, and reloads others.
func TestClientsAreKnownAndLimitedAsTheFileSays(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), " by ", r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(origin.Close)
	file := writeFile(t, origin.URL)
	r := serve(t, file)
	claim := []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https"}
	see := func(when string, wantStatus int, want string) {
		t.Helper()
		if status, got := ask(t, "GET", "http://"+r.web+"/", "", claim...); status != wantStatus || !strings.Contains(got, want) {
			t.Errorf("%s: got %d %q, want %d %q", when, status, got, wantStatus, want)
		}
	}
	reload := func(clients string, edits ...string) {
		t.Helper()
		edit(t, file, append(edits, "timetable:\n", clients+"\ntimetable:\n")...)
		if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 {
			t.Fatalf("reloading: got %d %s", status, answer)
		}
	}
	see("a stranger's claim", 200, "127.0.0.1 by http")
	reload(`clients: {trusted: ["127.0.0.0/8", "::1"], deny: ["192.0.2.64/26"], per_client: {rate: 1/m, burst: 2}}`)
	see("through a trusted proxy", 200, "192.0.2.1 by https")
	see("again", 200, "192.0.2.1 by https")
	see("once too often", 429, "too many requests")
	if status, answer := ask(t, "POST", "http://"+r.web+"/check-in", `{"student_id": "s1", "class_id": "1"}`, claim...); status != 200 {
		t.Errorf("a check-in beyond the rate: got %d %s, want 200", status, answer)
	}
	claim[1] = "192.0.2.70"
	see("of who is denied", 403, "not served to your network")
	reload("", "rate: 1/m", "rate: 50/s", "{hosts: [\"*\"], origin: lms}", "{hosts: [\"*\"], origin: lms, allow: [\"198.51.100.0/24\"]}")
	claim[1] = "192.0.2.1"
	see("of who is not let in by the route", 403, "not served to your network")
	var metrics string
	if _, metrics = ask(t, "GET", "http://"+r.ops+"/metrics", ""); !strings.Contains(metrics, `firstbell_proxy_limited_total{limit="client-rate"} 1`) || !strings.Contains(metrics, "firstbell_proxy_denied_total 2") {
		t.Errorf("the metrics do not show one limited and two denied:\n%s", metrics)
	}
	var shown strings.Builder
	if err := run(t.Context(), []string{"status", "-config", file, "-ops", r.ops}, &shown, io.Discard); err == nil && !strings.Contains(shown.String(), "client-rate 1") {
		t.Errorf("status does not show the limit:\n%s", shown.String())
	}
}

func TestThePROXYProtocolIsAskedForWhereTheFileSaysSo(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"))
	}))
	t.Cleanup(origin.Close)
	file := writeFile(t, origin.URL, `listen: {http: "127.0.0.1:0", `, "clients: {trusted: [\"127.0.0.1\"]}\nlisten: {proxy_protocol: true, http: \"127.0.0.1:0\", ")
	r := serve(t, file)
	say := func(header string) string {
		t.Helper()
		c, err := net.Dial("tcp", r.web)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, header+"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
			return ""
		}
		all, _ := io.ReadAll(c) // a reset is no answer, too
		return string(all)
	}
	if got := say("PROXY TCP4 192.0.2.1 198.51.100.7 5 80\r\n"); !strings.HasSuffix(got, "\r\n\r\n192.0.2.1") {
		t.Errorf("with a header: got %q, want the origin to hear of 192.0.2.1", got)
	}
	if got := say(string(peer.Header{}.AppendV2(nil))); !strings.HasSuffix(got, "\r\n\r\n127.0.0.1") {
		t.Errorf("with a header for nobody: got %q, want the origin to hear of 127.0.0.1", got)
	}
	if got := say(""); got != "" {
		t.Errorf("without a header: got %q, want nothing", got)
	}
	if _, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", ""); !strings.Contains(metrics, "firstbell_proxy_preface_missing_total 1") {
		t.Error("the metrics do not show the connection without a header")
	}
}
