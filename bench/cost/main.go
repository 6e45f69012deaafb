package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	bare := flag.String("bare", "", "answer with the bytes of this file (used by cost itself)")
	binary := flag.String("firstbell", "", "the firstbell to measure (default: built from this module)")
	requests := flag.Int("requests", 100_000, "requests in a round")
	connections := flag.Int("connections", 64, "connections at once")
	rounds := flag.Int("rounds", 5, "rounds of each server; the median counts")
	cases := flag.String("case", "", "measure only the cases that this regular expression matches")
	flag.Parse()
	var err error
	if *bare != "" {
		err = serveBare(*bare)
	} else {
		var which *regexp.Regexp
		if which, err = regexp.Compile(*cases); err == nil {
			err = compare(load{requests: *requests, connections: *connections}, *rounds, *binary, which)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

// load is how much one round asks for.
type load struct{ requests, connections int }

// page returns what the origin has at /lessons/SIZE: text that shrinks to about
// a third, as lessons do, and at /media/SIZE what does not shrink.
func page(size int, media bool) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	b := make([]byte, 0, size+16)
	for len(b) < size {
		if media {
			b = append(b, byte(rng.Uint32()))
		} else {
			b = fmt.Appendf(b, "<p>%d</p> lesson ", rng.IntN(1e6))
		}
	}
	return b[:size]
}

// hits are the pages that are asked for again and again. The 20 KiB are coded
// once and kept, so that every answer of the round is the coded one.
var hits = []struct {
	name, target string
	share        int // one of so many requests of the round, as they are larger
}{
	{"hit 1 KiB", "/lessons/1024", 1},
	{"hit 20 KiB, coded", "/lessons/20480", 1},
	{"hit 1 MiB", "/media/1048576", 20},
}

func compare(l load, rounds int, binary string, which *regexp.Regexp) error {
	dir, err := os.MkdirTemp("", "firstbell-cost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "firstbell")
		if out, err := exec.Command("go", "build", "-o", binary, "firstbell/cmd/firstbell").CombinedOutput(); err != nil {
			return fmt.Errorf("building firstbell: %w\n%s", err, out)
		}
	}
	originAddr, stop, err := serveOrigin()
	if err != nil {
		return err
	}
	defer stop()
	gate, err := startFirstbell(binary, dir, originAddr)
	if err != nil {
		return err
	}
	defer gate.stop()
	nginx, err := startNginx(dir, originAddr)
	if err != nil {
		return err
	}
	if nginx != nil {
		defer nginx.stop()
	}
	fmt.Printf("%d requests a round over %d connections, %d rounds; CPU per request\n", l.requests, l.connections, rounds)
	for _, h := range hits {
		if !which.MatchString(h.name) {
			continue
		}
		request := fmt.Appendf(nil, hit, h.target)
		share := load{max(l.requests/h.share, l.connections), l.connections}
		if err := measure(h.name, share, rounds, dir, gate, nginx, func() []byte { return request }); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	if !which.MatchString("check-in") {
		return nil
	}
	// What a receipt costs and what delivery costs are told apart by locking
	// the store: receipts go on, and delivery begins when it is let go.
	release, err := lockStore(dir)
	if err != nil {
		return err
	}
	err = measure("check-in", l, rounds, dir, gate, nginx, checkIn)
	if err := errors.Join(err, release()); err != nil {
		return fmt.Errorf("check-ins: %w", err)
	}
	return delivery(gate)
}

// delivery prints what it costs to carry the check-ins into the store.
func delivery(gate *process) error {
	before, err := gate.cpu()
	if err != nil {
		return err
	}
	var st status
	for range 300 {
		if st, err = gate.status(); err != nil {
			return err
		}
		if st.Attendance.Store.Delivery.Next == st.Attendance.Journal.Next {
			break
		}
		time.Sleep(time.Second)
	}
	after, err := gate.cpu()
	if err != nil {
		return err
	}
	rows := st.Attendance.Store.Delivery.Rows
	fmt.Printf("delivery   of %d check-ins into SQLite: %.2f us of CPU each, %d statements\n",
		rows, float64((after-before).Nanoseconds())/1e3/float64(rows), st.Attendance.Store.Statements)
	return nil
}

const hit = "GET %s HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"

var pressed atomic.Int64 // every check-in of the run is another student's

func checkIn() []byte {
	body := fmt.Sprintf(`{"student_id":"s%08d","class_id":"c%04d"}`, pressed.Add(1), pressed.Load()%1000)
	return fmt.Appendf(nil, "POST /attendance/check-in HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nContent-Type: application/json\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// measure plays rounds against the servers in turn and prints the medians.
// nginx, which may be nil, forwards a check-in to the origin, which answers it
// without a thought.
func measure(name string, l load, rounds int, dir string, gate, nginx *process, request func() []byte) error {
	sample, err := settled(gate.addr, request())
	if err != nil {
		return err
	}
	// The bare server answers with the very bytes that firstbell answered.
	file := filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(name))
	if err := os.WriteFile(file, sample, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bare, err := start(exec.Command(self, "-bare", file), "")
	if err != nil {
		return err
	}
	defer bare.stop()
	servers := []*process{bare, gate}
	if nginx != nil {
		servers = append(servers, nginx)
	}
	costs := make([][]float64, len(servers))
	for range rounds {
		for i, p := range servers {
			cost, err := round(p, l, request)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], cost)
		}
	}
	b, f := median(costs[0]), median(costs[1])
	fmt.Printf("%-18s firstbell %7.2f us; bare fasthttp %7.2f us, ratio %.2f", name, f, b, f/b)
	if nginx != nil {
		n := median(costs[2])
		fmt.Printf("; nginx %7.2f us, ratio %.2f", n, f/n)
	}
	fmt.Println()
	return nil
}

// settled asks until the answer has been the same for a while: by then it is
// stored, and coded.
func settled(addr string, request []byte) (answer []byte, err error) {
	same := 0
	for range 100 {
		next, err := ask(addr, request)
		if err != nil {
			return nil, err
		}
		if same++; len(next) != len(answer) {
			same = 0
		}
		if answer = next; same == 10 || bytes.HasPrefix(request, []byte("POST")) {
			return answer, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return answer, nil
}

func median(v []float64) float64 {
	slices.SortFunc(v, cmp.Compare)
	return v[len(v)/2]
}

// round sends the load and returns the server's CPU time per request, in us.
func round(p *process, l load, request func() []byte) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	errs := make([]error, l.connections)
	each := l.requests / l.connections
	for i := range l.connections {
		wg.Go(func() { errs[i] = converse(p.addr, each, request) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return float64((after - before).Nanoseconds()) / 1e3 / float64(each*l.connections), err
}

// converse sends n requests over one connection, each after the last answer.
func converse(addr string, n int, request func() []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	r := bufio.NewReader(c)
	for range n {
		if _, err := c.Write(request()); err != nil {
			return err
		}
		if _, err := readAnswer(r); err != nil {
			return err
		}
	}
	return nil
}

// readAnswer reads one answer, which has to be a 200. Of a chunked one it
// returns only the head.
func readAnswer(r *bufio.Reader) (answer []byte, err error) {
	length, chunked := 0, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if answer == nil && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return nil, fmt.Errorf("answered %q", line)
		}
		answer = append(answer, line...)
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
		chunked = chunked || bytes.HasPrefix(line, []byte("Transfer-Encoding: chunked"))
		if len(line) == 2 {
			break
		}
	}
	for chunked {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return nil, err
		}
		if _, err := r.Discard(int(size) + 2); err != nil || size == 0 {
			return answer, err
		}
	}
	head := len(answer)
	answer = append(answer, make([]byte, length)...)
	_, err = io.ReadFull(r, answer[head:])
	return answer, err
}

// ask sends one request twice and returns the second answer, a hit by then.
func ask(addr string, request []byte) (answer []byte, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	for range 2 {
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		if answer, err = readAnswer(r); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// serveOrigin answers every GET with the page it names, fresh for an hour, and
// takes every POST.
func serveOrigin() (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.Copy(io.Discard, r.Body)
			w.Write([]byte("{}"))
			return
		}
		size, _ := strconv.Atoi(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
		media := strings.HasPrefix(r.URL.Path, "/media/")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if media {
			w.Header().Set("Content-Type", "video/mp4")
		}
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("ETag", `"v1"`)
		w.Write(page(size, media))
	})}
	go srv.Serve(ln)
	return ln.Addr().String(), func() { srv.Shutdown(context.Background()) }, nil
}
