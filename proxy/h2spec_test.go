package proxy

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fatih/color"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"firstbell/cache"
)

// TestEveryCaseOfH2SpecPasses has h2spec try its cases on HTTP/2 over TLS, the
// strict ones included: 146 of RFC 7540 and 7541. RFC 9113 took nothing back
// that they ask for.
func TestEveryCaseOfH2SpecPasses(t *testing.T) {
	g := newTLSGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "a lesson")
	}, cached(cache.Policy{}), "school.example")
	host, port, _ := net.SplitHostPort(g.address)
	number, _ := strconv.Atoi(port)
	c := &config.Config{Host: host, Port: number, Path: "/", Timeout: 10 * time.Second, MaxHeaderLen: 4000, Strict: true, TLS: true, Insecure: true}
	groups := []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()}
	said := said(t, func() {
		for _, s := range groups {
			s.Test(c)
		}
	})
	passed, other := 0, 0
	for _, s := range groups {
		passed += s.PassedCount
		other += s.FailedCount + s.SkippedCount
	}
	if passed != 146 || other != 0 {
		t.Errorf("%d cases passed, %d did not; want 146 and 0\n%s", passed, other, said)
	}
}

// said is what f writes to standard output.
func said(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	var copied sync.WaitGroup
	copied.Go(func() { io.Copy(&all, r) })
	before, colored := os.Stdout, color.Output
	os.Stdout, color.Output = w, w
	defer func() { os.Stdout, color.Output = before, colored }()
	f()
	w.Close()
	copied.Wait()
	r.Close()
	return all.String()
}
