package origin

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"firstbell/bench/ports"
	"firstbell/proxy/field"
)

// nginxConf serves a directory, and two locations of another kind.
const nginxConf = `
daemon off; master_process off; pid nginx.pid; error_log error.log; worker_processes 1;
events { worker_connections 512; }
http {
  access_log off; default_type text/plain; keepalive_requests 50; client_max_body_size 1m;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  gzip on; gzip_min_length 100; gzip_types text/plain; gzip_proxied any;
  server {
    listen 127.0.0.1:%d;
    root files;
    location = /empty { return 204; }
    location = /moved { return 301 /small.txt; }
    location = /put { proxy_pass http://127.0.0.1:%d/empty; }
  }
}
`

// startNginx runs nginx on files until the test ends, and returns its address.
func startNginx(t *testing.T, files map[string][]byte) string {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary = "/usr/sbin/nginx"
		_, err = os.Stat(binary)
	}
	if err != nil && os.Getenv("FIRSTBELL_REQUIRE_SERVICES") == "1" {
		t.Fatalf("nginx is required and not installed: %v", err)
	} else if err != nil {
		t.Skip("nginx is not installed: left out are large, small, gzip, range and chunked answers of a real origin")
	}
	dir := t.TempDir()
	for _, d := range []string{"files", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, "files", name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, port, port), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-p", dir, "-c", conf, "-e", "error.log")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting nginx: %v", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	waitListening(t, addr, exited, &out)
	return addr
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// waitListening returns once nginx, a process of its own, takes connections.
func waitListening(t *testing.T, addr string, exited chan error, out *bytes.Buffer) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if nc, err := net.Dial("tcp", addr); err == nil {
			_ = nc.Close()
			return
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("nginx ended: %v\n%s", err, out)
		case <-deadline:
			t.Fatalf("nginx does not listen on %s after a minute", addr)
		case <-tick.C:
		}
	}
}

// nginxFiles are what nginx serves in the test.
type nginxFiles struct{ small, large, text []byte }

func newNginxFiles() nginxFiles {
	f := nginxFiles{
		small: []byte("Good morning.\n"),
		large: make([]byte, 8<<20),
		text:  []byte(strings.Repeat("nine o'clock, the first lesson begins\n", 2000)),
	}
	_, _ = rand.NewChaCha8([32]byte{1}).Read(f.large)
	return f
}

func at(method, target string, fields ...field.Field) *Request {
	return &Request{Method: method, Target: target, Host: "a.test", Fields: fields}
}

func TestARealNginx(t *testing.T) {
	files := newNginxFiles()
	addr := startNginx(t, map[string][]byte{"small.txt": files.small, "large.bin": files.large, "text.txt": files.text, "zero.txt": nil})
	p := newPool(t, Config{Name: "nginx", Servers: []string{"http://" + addr}})
	for name, test := range map[string]func(*testing.T, *Pool, nginxFiles){
		"small, kept alive": nginxKeepAlive, "large, many at once": nginxLarge, "no content": nginxNoContent,
		"gzip, chunked": nginxGzip, "ranges": nginxRanges, "errors": nginxErrors, "uploads": nginxUploads,
	} {
		t.Run(name, func(t *testing.T) { test(t, p, files) })
	}
	if st := p.Stats().Servers[0]; st.Failures != 0 || st.InFlight != 0 {
		t.Errorf("%+v at the end, want no failures and nothing in flight", st)
	}
}

func nginxKeepAlive(t *testing.T, p *Pool, files nginxFiles) {
	before := p.Stats().Servers[0]
	for range 120 {
		res, body := mustDo(t, p, at("GET", "/small.txt"))
		if res.Status != 200 || body != string(files.small) || res.Fields.Get("Etag") == "" || res.Fields.Has("Connection") {
			t.Fatalf("got %d %q with %s", res.Status, body, lines(res.Fields))
		}
	}
	// nginx closes behind every 50th request and says so; some idle connections
	// may be there already.
	if opened := p.Stats().Servers[0].Opened - before.Opened; opened > 3 {
		t.Errorf("%d connections for 120 requests of at most 50 each, want at most 3", opened)
	}
}

func nginxNoContent(t *testing.T, p *Pool, files nginxFiles) {
	for target, want := range map[string]int{"/zero.txt": 200, "/empty": 204} {
		if res, body := mustDo(t, p, at("GET", target)); res.Status != want || body != "" || res.ContentLength != 0 {
			t.Errorf("%s: %d %q, length %d; want %d with nothing", target, res.Status, body, res.ContentLength, want)
		}
	}
	res, body := mustDo(t, p, at("HEAD", "/large.bin"))
	if res.Status != 200 || body != "" || res.ContentLength != int64(len(files.large)) {
		t.Errorf("HEAD: %d, %d bytes of content, length %d; want 200, 0, %d", res.Status, len(body), res.ContentLength, len(files.large))
	}
	res, _ = mustDo(t, p, at("GET", "/small.txt"))
	res, body = mustDo(t, p, at("GET", "/small.txt", field.Field{Name: "If-None-Match", Value: res.Fields.Get("ETag")}))
	if res.Status != 304 || body != "" {
		t.Errorf("If-None-Match: %d %q, want 304 with nothing", res.Status, body)
	}
}

func nginxLarge(t *testing.T, p *Pool, files nginxFiles) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			res, body, err := do(t.Context(), p, at("GET", "/large.bin"))
			if err != nil || res.ContentLength != int64(len(files.large)) || body != string(files.large) {
				t.Errorf("%d bytes, %v; want the file of %d", len(body), err, len(files.large))
			}
		})
	}
	wg.Wait()
}

func nginxGzip(t *testing.T, p *Pool, files nginxFiles) {
	res, body := mustDo(t, p, at("GET", "/text.txt", field.Field{Name: "Accept-Encoding", Value: "gzip"}))
	if res.ContentLength != -1 || res.Fields.Get("Content-Encoding") != "gzip" || res.Fields.Has("Transfer-Encoding") {
		t.Fatalf("length %d, %s; want unknown, gzip", res.ContentLength, lines(res.Fields))
	}
	zr, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(zr); err != nil || !bytes.Equal(got, files.text) {
		t.Errorf("%d bytes unpacked, %v; want the file of %d", len(got), err, len(files.text))
	}
}

func nginxRanges(t *testing.T, p *Pool, files nginxFiles) {
	res, body := mustDo(t, p, at("GET", "/large.bin", field.Field{Name: "Range", Value: "bytes=1000-1999"}))
	if res.Status != 206 || body != string(files.large[1000:2000]) {
		t.Errorf("%d with %d bytes, want 206 with 1000", res.Status, len(body))
	}
	res, body = mustDo(t, p, at("GET", "/large.bin", field.Field{Name: "Range", Value: "bytes=0-9,100-109"}))
	if res.Status != 206 || !strings.Contains(body, string(files.large[100:110])) || int64(len(body)) != res.ContentLength {
		t.Errorf("%d with %d bytes, want 206 with two parts", res.Status, len(body))
	}
	if res, _ = mustDo(t, p, at("GET", "/small.txt", field.Field{Name: "Range", Value: "bytes=900-"})); res.Status != 416 {
		t.Errorf("%d, want 416", res.Status)
	}
}

func nginxErrors(t *testing.T, p *Pool, _ nginxFiles) {
	for target, want := range map[string]int{"/none": 404, "/moved": 301, "/%2e%2e/x": 400} {
		if res, body := mustDo(t, p, at("GET", target)); res.Status != want || int64(len(body)) != res.ContentLength {
			t.Errorf("%s: %d with %d bytes, want %d", target, res.Status, len(body), want)
		}
	}
}

func nginxUploads(t *testing.T, p *Pool, _ nginxFiles) {
	for _, length := range []int64{-1, 100_000, 1000} {
		r := at("POST", "/put")
		r.Body, r.ContentLength = io.LimitReader(zeros{}, max(length, 100_000)), length
		if res, _ := mustDo(t, p, r); res.Status != 204 {
			t.Errorf("length %d: %d, want 204", length, res.Status)
		}
	}
	r := at("POST", "/put")
	r.Body, r.ContentLength = zeros{}, 64<<20 // which nginx refuses by its length, before it comes
	if res, _ := mustDo(t, p, r); res.Status != 413 {
		t.Errorf("64 MiB: %d, want 413", res.Status)
	}
}
