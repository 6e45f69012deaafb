package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	quichttp3 "github.com/quic-go/quic-go/http3"
)

// runHTTP3 has clients ask over HTTP/3, three with a connection that they keep
// as long as they may, and one with a new one each time.
func (l *upgradeLoad) runHTTP3(ctx context.Context, address string, ca *testCA) (wait func()) {
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			tr := l.overHTTP3To(address, ca)
			defer func() { tr.Close() }()
			for i := 0; ctx.Err() == nil && !l.t.Failed(); i++ {
				if n == 0 {
					tr.Close()
					tr = l.overHTTP3To(address, ca)
				}
				path := fmt.Sprintf("/lessons/quic-%d", rand.IntN(50))
				if n == 1 {
					path = fmt.Sprintf("/page/quic-%d", i)
				}
				l.onceHTTP3(tr, path)
			}
		})
	}
	return wg.Wait
}

func (l *upgradeLoad) overHTTP3To(address string, ca *testCA) *quichttp3.Transport {
	return &quichttp3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool},
		Dial: func(ctx context.Context, _ string, conf *tls.Config, q *quic.Config) (*quic.Conn, error) {
			l.dialled.Add(1)
			return quic.DialAddr(ctx, address, conf, q)
		},
	}
}

func (l *upgradeLoad) onceHTTP3(tr *quichttp3.Transport, path string) {
	client := &http.Client{Transport: tr, Timeout: time.Minute}
	l.overHTTP3.Add(1)
	res, err := client.Get("https://hangang.school.example" + path)
	if err != nil {
		l.t.Errorf("over HTTP/3 %s: %v", path, err)
		return
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.HasPrefix(string(text), "this is "+path+"\n") {
		l.t.Errorf("over HTTP/3 %s: got %d %.100q, %v", path, res.StatusCode, text, err)
	}
}

// TestConnectionsOfHTTP3EndInTheOldProcess has a download and an upload be half
// done when another process takes over: both go on, although the new one reads
// the socket, and who comes then is served by the new one at once.
func TestConnectionsOfHTTP3EndInTheOldProcess(t *testing.T) {
	t.Setenv(demoChild, "1")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	piece := strings.Repeat("a lesson that is long ", 50<<10)
	lms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
			<-goOn
			_, _ = io.WriteString(w, piece)
		case "/upload":
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, " ", err)
		default:
			fmt.Fprintf(w, "this is %s\n", r.URL.Path)
		}
	}))
	t.Cleanup(lms.Close)
	file, ca := writeHTTP3File(t, lms.URL, "hangang.school.example")
	s := startServing(t, program, file)
	l := &upgradeLoad{killed: &killed{t: t}}
	old := l.overHTTP3To(s.http3, ca)
	defer old.Close()
	client := &http.Client{Transport: old, Timeout: time.Minute}
	long, err := client.Get("https://hangang.school.example/long")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Body.Close()
	if _, err := io.ReadFull(long.Body, make([]byte, len(piece))); err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	uploaded := make(chan string, 1)
	go func() {
		res, err := client.Post("https://hangang.school.example/upload", "text/plain", out)
		if err != nil {
			uploaded <- err.Error()
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		uploaded <- fmt.Sprint(string(text), " ", err)
	}()
	if _, err := io.WriteString(in, piece); err != nil {
		t.Fatal(err)
	}

	var u upgraded
	_, text := ask(t, "POST", "http://"+s.ops+"/upgrade", "")
	if err := json.Unmarshal([]byte(text), &u); err != nil || !u.OK {
		t.Fatalf("upgrade: %v, %s\n%s", err, text, s.said)
	}
	s.waitSaid(t, "msg=\"reading the socket of HTTP/3\"")
	fresh := l.overHTTP3To(s.http3, ca)
	defer fresh.Close()
	l.onceHTTP3(fresh, "/lessons/new")
	var r statusReport
	if _, text = ask(t, "GET", "http://"+s.ops+"/status", ""); json.Unmarshal([]byte(text), &r) != nil || r.HTTP3 == nil || r.HTTP3.Connections != 1 {
		t.Errorf("the new process has %+v, want the one connection that came to it", r.HTTP3)
	}
	if _, err := io.WriteString(in, piece); err != nil { // twice what may be sent ahead
		t.Error(err)
	}
	in.Close()
	if got, want := <-uploaded, fmt.Sprint(2*len(piece), " <nil> <nil>"); got != want {
		t.Errorf("the upload: got %q, want %q", got, want)
	}
	close(goOn)
	if rest, err := io.ReadAll(long.Body); err != nil || string(rest) != piece {
		t.Errorf("the rest of the download: %d bytes, %v; want %d", len(rest), err, len(piece))
	}
	_, text = ask(t, "GET", "http://"+s.ops+"/metrics", "")
	if strings.Contains(text, "firstbell_http3_packets_passed_total 0") || !strings.Contains(text, "firstbell_http3_packets_passed_total ") {
		t.Error("no packet went from the new process to the old one")
	}
	s.waitSaid(t, "the process before this one has ended")
	l.onceHTTP3(old, "/lessons/again")
	l.onceHTTP3(fresh, "/lessons/new")
	s.endLast(t, 2)
}
