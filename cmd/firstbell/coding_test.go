package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCurlAndNginxMeetInBrotli: nginx codes in gzip, curl wants the best there
// is, and what is made between them is made once.
func TestCurlAndNginxMeetInBrotli(t *testing.T) {
	curl := need(t, "curl", "apt-get install curl")
	o := newNginx(t)
	var page bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&page, "<p>step %d of %d: write it down</p>\n", i, i*i%97)
	}
	o.put(t, "media/page.html", page.Bytes())
	r := serve(t, writeFile(t, o.url, "path: /lessons/*", "path: /media/*"))
	url := "http://" + r.web + "/media/page.html"

	var res *http.Response
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		var got []byte
		if res, got = fetch(t, url, "Accept-Encoding", "gzip, deflate, br, zstd"); res.Header.Get("Content-Encoding") == "br" {
			break
		} else if res.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("got %q and %d bytes before there is brotli, want nginx's gzip", res.Header.Get("Content-Encoding"), len(got))
		}
	}
	tag := res.Header.Get("ETag")
	if res.Header.Get("Content-Encoding") != "br" || !strings.HasSuffix(tag, `~br"`) || !strings.Contains(res.Header.Get("Cache-Status"), "detail=br") {
		t.Fatalf("coding %q, ETag %s, Cache-Status %q; want brotli under its own tag", res.Header.Get("Content-Encoding"), tag, res.Header.Get("Cache-Status"))
	}
	if res, _ := fetch(t, url, "Accept-Encoding", "br", "If-None-Match", tag); res.StatusCode != 304 || res.Header.Get("ETag") != tag {
		t.Errorf("If-None-Match: %s got %d and ETag %s, want 304 and the same", tag, res.StatusCode, res.Header.Get("ETag"))
	}

	ask := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--noproxy", "*", url}, args...)...).Output()
		if err != nil {
			t.Fatalf("curl %q: %v", args, err)
		}
		return string(out)
	}
	for range 3 {
		if got := ask("--compressed"); got != page.String() {
			t.Errorf("curl --compressed got %d bytes, want %d", len(got), page.Len())
		}
		if got := ask(); got != page.String() {
			t.Errorf("curl got %d bytes, want %d", len(got), page.Len())
		}
	}
	wantParts(t, ask, page.String())
	if n := o.asked(t, "/media/page.html"); n != 1 {
		t.Errorf("nginx was asked %d times, want once", n)
	}
	_, metrics := fetch(t, "http://"+r.ops+"/metrics")
	if !strings.Contains(string(metrics), "\nfirstbell_proxy_codings_total{coding=\"br\"} 1\n") ||
		!regexp.MustCompile(`\nfirstbell_proxy_saved_bytes_total [1-9]`).Match(metrics) {
		t.Errorf("/metrics has %q, want one variant in brotli and bytes saved", regexp.MustCompile(`firstbell_proxy_(codings|saved).*`).FindAll(metrics, -1))
	}
}

// wantParts has curl ask for parts, and resume a download in the middle.
func wantParts(t *testing.T, ask func(args ...string) string, page string) {
	t.Helper()
	var got string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // until the decoded page is there; curl refuses no coding, so it is for the first
		if got = ask("-i", "-r", "0-99,1000-1099,-50"); strings.HasPrefix(got, "HTTP/1.1 206") {
			break
		}
	}
	for _, want := range []string{
		"Content-Type: multipart/byteranges; boundary=",
		fmt.Sprintf("\r\nContent-Range: bytes 0-99/%d\r\n\r\n%s\r\n--", len(page), page[:100]),
		fmt.Sprintf("\r\nContent-Range: bytes 1000-1099/%d\r\n\r\n%s\r\n--", len(page), page[1000:1100]),
		fmt.Sprintf("\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s\r\n--", len(page)-50, len(page)-1, len(page), page[len(page)-50:]),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("curl asked for three parts: %.600q..., want %q in it", got, want)
		}
	}
	half := filepath.Join(t.TempDir(), "page")
	rewrite(t, half, page[:len(page)/2])
	ask("-C", "-", "-o", half)
	if whole, err := os.ReadFile(half); err != nil || string(whole) != page {
		t.Errorf("curl -C - made %d bytes of it, %v; want %d", len(whole), err, len(page))
	}
}
