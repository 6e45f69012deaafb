//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// floors are what an answer costs at least on this machine: each is a program
// that answers everything with the bytes of one file.
var floors = map[string]func(answer []byte) error{
	"epoll":    serveEpoll,
	"fasthttp": serveFasthttp,
}

// serveFloor answers with the bytes of the file until it is killed. It prints
// the address it listens on.
func serveFloor(name, file string) error {
	serve, ok := floors[name]
	if !ok {
		return fmt.Errorf("there is no floor %q", name)
	}
	answer, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	signal.Reset() // it has nothing to put in order
	return serve(answer)
}

// serveFasthttp is a bare fasthttp server.
func serveFasthttp(answer []byte) error {
	head, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	var fields [][2]string
	lines := strings.Split(string(head), "\r\n")
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ": "); ok && name != "Content-Length" {
			fields = append(fields, [2]string{name, value})
		}
	}
	status, err := strconv.Atoi(lines[0][9:12])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	srv := &fasthttp.Server{NoDefaultDate: true, NoDefaultServerHeader: true, NoDefaultContentType: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.SetStatusCode(status)
			for _, f := range fields {
				ctx.Response.Header.Set(f[0], f[1])
			}
			ctx.Response.SetBodyRaw(body)
		}}
	return srv.Serve(ln)
}

// An epollServer is the least that a server can do: one thread, one read and
// one write for a request, no parsing beyond finding a request's end. It expects
// requests that come in one piece.
type epollServer struct {
	epoll, listener int
	answer          []byte
	unsent          map[int][]byte // by connection
	in              []byte
}

// serveEpoll is a bare epoll loop.
func serveEpoll(answer []byte) error {
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(ln, 4096)); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	name, err := unix.Getsockname(ln)
	if err != nil {
		return err
	}
	e := &epollServer{listener: ln, answer: answer, unsent: make(map[int][]byte), in: make([]byte, 64<<10)}
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, ln, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(ln)}); err != nil {
		return err
	}
	fmt.Printf("127.0.0.1:%d\n", name.(*unix.SockaddrInet4).Port)
	return e.run()
}

func (e *epollServer) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(e.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			switch {
			case fd == e.listener:
				e.accept()
			case ev.Events&unix.EPOLLOUT != 0:
				e.send(fd, e.unsent[fd])
			default:
				e.read(fd)
			}
		}
	}
}

func (e *epollServer) accept() {
	for {
		fd, _, err := unix.Accept4(e.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // slower without
		if unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}) != nil {
			unix.Close(fd)
		}
	}
}

func (e *epollServer) read(fd int) {
	n, err := unix.Read(fd, e.in)
	if err == unix.EAGAIN {
		return
	}
	if err != nil || n == 0 {
		e.drop(fd)
		return
	}
	if end := bytes.Index(e.in[:n], []byte("\r\n\r\n")); end >= 0 {
		e.send(fd, e.answer)
	}
}

func (e *epollServer) drop(fd int) {
	delete(e.unsent, fd)
	unix.Close(fd)
}

// send writes what the socket takes, and has the loop come back for the rest.
func (e *epollServer) send(fd int, b []byte) {
	n, err := unix.Write(fd, b)
	if err != nil && err != unix.EAGAIN {
		e.drop(fd)
		return
	}
	b = b[max(n, 0):]
	_, waiting := e.unsent[fd]
	switch {
	case len(b) > 0:
		e.unsent[fd] = b
		if !waiting {
			_ = unix.EpollCtl(e.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)}) // fd is in the set
		}
	case waiting:
		delete(e.unsent, fd)
		_ = unix.EpollCtl(e.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
}

// startFloor starts a floor that answers with these bytes.
func startFloor(h halves, name, file string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	s, err := launch(h, self, []string{"-floor", name, "-answer", file}, nil, w)
	w.Close()
	if err != nil {
		return nil, err
	}
	s.peer = &peer{name: name}
	line := make([]byte, 64)
	n, err := r.Read(line)
	if err != nil && err != io.EOF || n == 0 {
		s.stop()
		return nil, fmt.Errorf("waiting for the floor %s: %w; it said:\n%s", name, err, s.said)
	}
	s.site = &site{Listen: strings.TrimSpace(string(line[:n]))}
	return s, nil
}
