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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	flag.Parse()
	var err error
	if *bare != "" {
		err = serveBare(*bare)
	} else {
		err = compare(load{requests: *requests, connections: *connections}, *rounds, *binary)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

// load is how much one round asks for.
type load struct{ requests, connections int }

// page is what a hit answers with: 1 KiB.
var page = bytes.Repeat([]byte("firstbell "), 103)[:1024]

func compare(l load, rounds int, binary string) error {
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
	fmt.Printf("%d requests a round over %d connections, %d rounds\n", l.requests, l.connections, rounds)
	if err := measure("hit 1 KiB", l, rounds, dir, gate, func() []byte { return []byte(hit) }); err != nil {
		return fmt.Errorf("hits: %w", err)
	}
	// What a receipt costs and what delivery costs are told apart by locking
	// the store: receipts go on, and delivery begins when it is let go.
	release, err := lockStore(dir)
	if err != nil {
		return err
	}
	err = measure("check-in", l, rounds, dir, gate, checkIn)
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

const hit = "GET /lessons/1 HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"

var pressed atomic.Int64 // every check-in of the run is another student's

func checkIn() []byte {
	body := fmt.Sprintf(`{"student_id":"s%08d","class_id":"c%04d"}`, pressed.Add(1), pressed.Load()%1000)
	return fmt.Appendf(nil, "POST /attendance/check-in HTTP/1.1\r\nHost: s01.school.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nContent-Type: application/json\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// measure plays rounds against both servers in turn and prints the medians.
func measure(name string, l load, rounds int, dir string, gate *process, request func() []byte) error {
	sample, err := ask(gate.addr, request())
	if err != nil {
		return err
	}
	// The bare server answers with the very bytes that firstbell answered.
	file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
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
	var costs [2][]float64
	for range rounds {
		for i, p := range []*process{bare, gate} {
			cost, err := round(p, l, request)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], cost)
		}
	}
	b, f := median(costs[0]), median(costs[1])
	fmt.Printf("%-10s bare fasthttp %6.2f us, firstbell %6.2f us of CPU per request: ratio %.2f\n", name, b, f, f/b)
	return nil
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

// readAnswer reads one answer with a Content-Length, which has to be a 200.
func readAnswer(r *bufio.Reader) (answer []byte, err error) {
	length := 0
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
		if len(line) == 2 {
			break
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

// serveOrigin answers every GET with the page, fresh for an hour.
func serveOrigin() (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("ETag", `"v1"`)
		w.Write(page)
	})}
	go srv.Serve(ln)
	return ln.Addr().String(), func() { srv.Shutdown(context.Background()) }, nil
}
