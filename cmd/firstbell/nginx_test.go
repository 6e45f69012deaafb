package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need is the path of a program that a test runs as a service. Without it the
// test is left out, and says so; with FIRSTBELL_REQUIRE_SERVICES=1 it fails.
func need(t *testing.T, program, install string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path
		}
	}
	message := fmt.Sprintf("left out: there is no %s here; to run this test: %s", program, install)
	if os.Getenv("FIRSTBELL_REQUIRE_SERVICES") == "1" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

const nginxConf = `daemon off;
worker_processes 1;
%s
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  default_type application/octet-stream;
  types {text/html html; application/javascript js; image/svg+xml svg;}
  gzip on;
  gzip_proxied any; # without it nginx sends plain text to whoever sends Via
  gzip_types application/javascript;
  gzip_vary on;
  server {
    listen %s;
    root www;
    location /media/ {expires 1h;}
    location /private/ {add_header Cache-Control no-store;}
  }
}
`

// An nginxOrigin serves real files from a directory.
type nginxOrigin struct {
	url   string
	dir   string
	marks int
}

// newNginx starts an nginx. Its listening socket is made here and handed to it,
// as it would be by an nginx that is being replaced: it takes connections from
// the first moment.
func newNginx(t *testing.T) *nginxOrigin {
	t.Helper()
	program := need(t, "nginx", "apt-get install nginx")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	o := &nginxOrigin{url: "http://" + ln.Addr().String(), dir: t.TempDir()}
	for _, d := range []string{"www/media", "www/lessons", "www/private"} {
		if err := os.MkdirAll(filepath.Join(o.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the directory is not for others
	}
	rewrite(t, filepath.Join(o.dir, "nginx.conf"), fmt.Sprintf(nginxConf, user, ln.Addr()))
	cmd := exec.Command(program, "-p", o.dir, "-c", filepath.Join(o.dir, "nginx.conf"), "-e", "stderr")
	cmd.ExtraFiles = []*os.File{socket} // descriptor 3
	cmd.Env = append(os.Environ(), "NGINX=3;")
	said := newNoise()
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	socket.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // ends its worker too; it may have ended by itself
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("nginx said:\n%s", said)
		}
	})
	return o
}

func (o *nginxOrigin) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, "www", name), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// asked is how often nginx was asked for a path. It writes its log behind its
// answers, in order: a request of our own is waited for first.
func (o *nginxOrigin) asked(t *testing.T, path string) int {
	t.Helper()
	o.marks++
	mark := fmt.Sprintf("/mark-%d", o.marks)
	fetch(t, o.url+mark)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		log, err := os.ReadFile(filepath.Join(o.dir, "access.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), " "+mark+" ") {
			return strings.Count(string(log), " "+path+" ")
		}
		<-tick.C
	}
	t.Fatalf("nginx has not logged %s within 10 s", mark)
	return 0
}

// fetch gets a URL without any decoding.
func fetch(t *testing.T, url string, fields ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return res, content
}

func TestRealNginxIsAskedOnceAndReadWhole(t *testing.T) {
	o := newNginx(t)
	random := rand.NewChaCha8(sha256.Sum256([]byte("media")))
	film := make([]byte, 48<<20) // larger than what is stored
	_, _ = random.Read(film)     // never fails
	page := bytes.Repeat([]byte("<p>lesson</p>\n"), 500)
	o.put(t, "media/film.bin", film)
	o.put(t, "media/small.html", page)
	o.put(t, "media/code.js", page)
	o.put(t, "private/me.html", page)
	file := writeFile(t, o.url, "path: /lessons/*, origin: lms, cache: {", "path: /media/*, origin: lms, cache: {max_object: 16MiB, ")
	r := serve(t, file)
	web := "http://" + r.web

	for range 3 {
		if res, got := fetch(t, web+"/media/small.html", "Cookie", "session=1"); res.StatusCode != 200 || !bytes.Equal(got, page) {
			t.Errorf("a small file: got %d and %d bytes, want %d", res.StatusCode, len(got), len(page))
		}
	}
	if n := o.asked(t, "/media/small.html"); n != 1 {
		t.Errorf("a small file: nginx was asked %d times, want once", n)
	}

	if res, got := fetch(t, web+"/media/film.bin"); res.StatusCode != 200 || !bytes.Equal(got, film) || res.Header.Get("Content-Length") != strconv.Itoa(len(film)) {
		t.Errorf("a large file: got %d and %d bytes, want all %d", res.StatusCode, len(got), len(film))
	}

	res, got := fetch(t, web+"/media/film.bin", "Range", "bytes=1000000-1999999")
	if res.StatusCode != 206 || !bytes.Equal(got, film[1000000:2000000]) {
		t.Errorf("a range: got %d, %q and %d bytes", res.StatusCode, res.Header.Get("Content-Range"), len(got))
	}

	wantCoded(t, web+"/media/code.js", page)

	for range 2 {
		fetch(t, web+"/private/me.html")
	}
	if n := o.asked(t, "/private/me.html"); n != 2 {
		t.Errorf("a private page asked for twice: nginx was asked %d times, want 2", n)
	}
	if res, _ := fetch(t, web+"/media/missing"); res.StatusCode != 404 {
		t.Errorf("a file that is not there: got %d, want 404", res.StatusCode)
	}
}

// wantCoded wants gzip for those who take it, and plain text for those who
// refuse it.
func wantCoded(t *testing.T, url string, want []byte) {
	t.Helper()
	res, got := fetch(t, url, "Accept-Encoding", "gzip")
	if res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%s: got the coding %q, want gzip", url, res.Header.Get("Content-Encoding"))
	} else if z, err := gzip.NewReader(bytes.NewReader(got)); err != nil {
		t.Errorf("%s is not gzip: %v", url, err)
	} else if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, want) {
		t.Errorf("%s: got %d bytes after decoding, %v; want %d", url, len(plain), err, len(want))
	}
	res, got = fetch(t, url, "Accept-Encoding", "identity")
	if res.Header.Get("Content-Encoding") != "" || !bytes.Equal(got, want) {
		t.Errorf("%s for those who refuse gzip: got %q and %d bytes, want %d plain ones", url, res.Header.Get("Content-Encoding"), len(got), len(want))
	}
}

func TestCurlGetsThrough(t *testing.T) {
	curl := need(t, "curl", "apt-get install curl")
	r := serve(t, writeFile(t, newOrigin(t).URL))
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a lesson", []string{"--http1.1", "http://" + r.web + "/lessons/1"}, "this is /lessons/1"},
		{"a lesson over HTTP/1.0", []string{"--http1.0", "http://" + r.web + "/lessons/1"}, "this is /lessons/1"},
		{"encoded slashes", []string{"--path-as-is", "http://" + r.web + "/a%2Fb"}, "this is /a/b"},
		{"a check-in", []string{"-H", "Host: hangang.school.example", "--json", `{"student_id":"s1"}`, "http://" + r.web + "/check-in"}, `"student_id":"s1"`},
		{"no field", []string{"-w", " %{http_code}", "--json", `{}`, "http://" + r.web + "/check-in"}, " 400"},
		{"another method", []string{"-w", " %{http_code}", "http://" + r.web + "/check-in"}, " 405"},
		{"too large", []string{"-w", " %{http_code}", "--json", `{"x":"` + strings.Repeat("x", 70000) + `"}`, "http://" + r.web + "/check-in"}, " 413"},
	} {
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS"}, c.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v and %s, want %q", c.name, err, out, c.want)
		}
	}
}
