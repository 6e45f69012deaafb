package main

import (
	"context"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// lessonPage is what a student's browser opens: it loads its script and its
// picture, and presses "check in" by itself.
const lessonPage = `<!doctype html><html><head><meta charset="utf-8"><title>수업 1</title>
<script src="/media/bell.js"></script></head>
<body><img id="picture" src="/media/bell.svg" width="40" height="40"><p id="receipt"></p></body></html>`

const lessonScript = `addEventListener("load", async () => {
  const shown = document.getElementById("picture").naturalWidth > 0;
  const body = JSON.stringify({student_id: "학생-1", class_id: "c1"});
  const press = () => fetch("/check-in", {method: "POST", body}).then(r => r.json());
  const [first, again] = [await press(), await press()];
  document.getElementById("receipt").textContent =
    "picture " + shown + ", " + first.status + " " + first.student_id + " at " + first.school + ", same " + (first.receipt === again.receipt);
});
`

const lessonPicture = `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="18" fill="orange"/></svg>`

// TestABrowserOpensALessonAndChecksIn lets a real Chromium load a page of a
// real nginx through firstbell, twice; a name below localhost is a school's.
func TestABrowserOpensALessonAndChecksIn(t *testing.T) {
	if testing.Short() {
		t.Skip("left out with -short: a real browser")
	}
	chromium := need(t, "chromium", "apt-get install chromium")
	nginx := newNginx(t)
	nginx.put(t, "lessons/1.html", []byte(lessonPage))
	nginx.put(t, "media/bell.js", []byte(lessonScript))
	nginx.put(t, "media/bell.svg", []byte(lessonPicture))
	r := serve(t, writeFile(t, nginx.url,
		"{hosts: [\"*\"], origin: lms}", "{hosts: [\"*\"], origin: lms, cache: {}}",
		"  sinks: [{name: lms, http: {url: \""+nginx.url+"/bulk\"}}]\n", "",
	))
	_, port, err := net.SplitHostPort(r.web)
	if err != nil {
		t.Fatal(err)
	}
	page := regexp.MustCompile(`<p id="receipt">([^<]*)</p>`)
	for visit := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		dom, err := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
			"--user-data-dir="+t.TempDir(), "--virtual-time-budget=5000", "--dump-dom",
			"http://s01.localhost:"+port+"/lessons/1.html").Output()
		if err != nil {
			t.Fatalf("chromium: %v", err)
		}
		got := page.FindStringSubmatch(string(dom))
		want := "picture true, present 학생-1 at s01, same true"
		if got == nil || got[1] != want {
			t.Errorf("visit %d: the page says %q, want %q\n%s", visit, got, want, dom)
		}
	}
	for _, path := range []string{"/lessons/1.html", "/media/bell.js"} {
		if n := nginx.asked(t, path); n != 1 {
			t.Errorf("nginx was asked for %s %d times by two browsers, want once", path, n)
		}
	}
	if log := r.log.String(); !strings.Contains(log, "outcome=hit") {
		t.Errorf("no hit in the access log:\n%s", log)
	}
}
