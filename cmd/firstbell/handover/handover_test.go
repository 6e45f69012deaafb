package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// role, in the environment, makes this test binary another process.
const role = "HANDOVER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "heir":
		os.Exit(beHeir())
	case "activated":
		os.Exit(beActivated())
	}
}

type heirService struct{}

// Echo says what it is told.
func (heirService) Echo(text string, said *string) error {
	*said = "new: " + text
	return nil
}

// beHeir answers on every socket that the test has, says that it is ready, and
// ends when the old process has.
func beHeir() int {
	s, p, err := Inherit()
	if err == nil {
		err = p.Talk(heirService{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	addresses := os.Args[len(os.Args)-4:]
	http, err1 := s.Listen("http", addresses[0])
	ops, err2 := s.Listen("ops", addresses[1])
	pc, err3 := s.ListenPacket("https", addresses[2])
	local, err4 := s.Listen("local", addresses[3])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, ln := range []net.Listener{http, ops, local} {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "new, generation %d", p.Generation)
				c.Close()
			}
		}()
	}
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte("new: "+string(b[:n])), from)
		}
	}()
	var said string
	left := strings.Join(s.CloseUnused(), ", ")
	if err := p.Call(context.Background(), "Old.Ready", left+os.Getenv(inheritance), &said); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-p.Gone()
	return 0
}

type oldService struct{ ready chan string }

// Ready hears what the heir has left over.
func (o *oldService) Ready(text string, said *string) error {
	o.ready <- text
	*said = "old: " + text
	return nil
}

// Wrong says no.
func (o *oldService) Wrong(int, *string) error { return errors.New("not so") }

func TestSocketsGoToTheNewProcessByTheirAddress(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(role, "heir")
	s := &Sockets{}
	dir, err := os.MkdirTemp("", "bell") // t.TempDir's name may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	unix := filepath.Join(dir, "socket")
	listen := func(name, address string) net.Listener {
		t.Helper()
		ln, err := s.Listen(name, address)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	http, ops, local := listen("http", "127.0.0.1:0"), listen("ops", "localhost:0"), listen("local", unix)
	other := listen("other", "127.0.0.2:0")
	pc, err := s.ListenPacket("https", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &oldService{ready: make(chan string, 1)}
	args := []string{"127.0.0.1:0", "localhost:0", "127.0.0.1:0", unix}
	n, err := Start(Program{Path: path, Dir: t.TempDir(), Args: args}, 7, s, os.Stderr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	select {
	case left := <-o.ready:
		if left != "other (tcp 127.0.0.2:0)" {
			t.Errorf("left over: got %q, want the one listener that it does not have", left)
		}
	case <-n.Ended():
		t.Fatalf("it ended: %s", n.How())
	}
	// Ours can be closed at once although they are shared: nobody hangs in Accept.
	for _, ln := range []net.Listener{http, ops, local, other} {
		accepting := make(chan error, 1)
		go func() { _, err := ln.Accept(); accepting <- err }()
		if err := ln.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		<-accepting
	}
	pc.Close()
	for _, a := range []net.Addr{http.Addr(), ops.Addr(), local.Addr()} {
		c, err := net.Dial(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(c); err != nil || string(text) != "new, generation 7" {
			t.Errorf("at %s: got %q, %v", a, text, err)
		}
	}
	if c, err := net.Dial("tcp", other.Addr().String()); err == nil {
		c.Close()
		t.Error("somebody still listens where nobody is to")
	}
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	fmt.Fprint(c, "hello")
	if got, err := c.Read(b); err != nil || string(b[:got]) != "new: hello" {
		t.Errorf("over UDP: got %q, %v", b[:got], err)
	}
	var said string
	if err := n.Call(t.Context(), "New.Echo", "hello", &said); err != nil || said != "new: hello" {
		t.Errorf("calling the new process: got %q, %v", said, err)
	}
	if err := n.Call(t.Context(), "New.Nothing", 0, &said); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("calling what is not there: got %v", err)
	}
	n.Kill()
	if err := n.Call(t.Context(), "New.Echo", "hello", &said); !errors.Is(err, ErrGone) {
		t.Errorf("calling who is gone: got %v, want ErrGone", err)
	}
	<-n.Gone()
}

// beActivated says which sockets it got from systemd.
func beActivated() int {
	// As systemd does: the number of the process that is to take them.
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	s, p, err := Inherit()
	if err != nil || p != nil {
		fmt.Println(p, err)
		return 1
	}
	args := os.Args[len(os.Args)-2:]
	byName, err1 := s.Listen("http", args[0])
	byPort, err2 := s.Listen("ops", args[1])
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(byName.Addr(), byPort.Addr(), s.CloseUnused(), os.Getenv("LISTEN_FDS"))
	return 0
}

func TestSocketsOfSystemdAreTakenByNameOrPort(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	var at []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, at = append(files, f), append(at, ln.Addr().String())
	}
	_, port, _ := net.SplitHostPort(at[1])
	cmd := exec.Command(path, ":1", ":"+port)
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), role+"=activated", "LISTEN_FDS=3", "LISTEN_FDNAMES=http:firstbell.socket:more")
	said, err := cmd.CombinedOutput()
	want := fmt.Sprintf("%s %s [more (tcp)] \n", at[0], at[1])
	if err != nil || string(said) != want {
		t.Errorf("got %q, %v; want %q", said, err, want)
	}
}

func TestOthersSocketsAreLeftAlone(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "3")
	s, p, err := Inherit()
	if err != nil || p != nil || len(s.inherited) != 0 {
		t.Errorf("got %v, %v, %v; want none: they are another process's", s, p, err)
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := (&Sockets{}).Listen("http", ln.Addr().String()); err == nil {
		t.Error("it listens where somebody else does")
	}
}

func TestSystemdIsTold(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@firstbell-test-" + strconv.Itoa(os.Getpid())} {
		at := name
		if at[0] == '@' {
			at = "\x00" + at[1:]
		}
		systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer systemd.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		if err := Notify("READY=1\nMAINPID=7"); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		b := make([]byte, 100)
		_ = systemd.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := systemd.Read(b); err != nil || string(b[:n]) != "READY=1\nMAINPID=7" {
			t.Errorf("%q: systemd heard %q, %v", name, b[:n], err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nothing"))
	if err := Notify("READY=1"); err == nil {
		t.Error("nobody hears, and it is no error")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}

func TestTheProgramIsTheNameThatItWasCalledBy(t *testing.T) {
	was := os.Args[0]
	defer func() { os.Args[0] = was }()
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	for _, c := range []struct{ called, want string }{
		{"/usr/local/bin/firstbell", "/usr/local/bin/firstbell"},
		{"./firstbell", filepath.Join(dir, "firstbell")},
		{"bin/../firstbell", filepath.Join(dir, "firstbell")},
		{"firstbell", filepath.Join(dir, "bin", "firstbell")},
	} {
		if err := errors.Join(os.MkdirAll("bin", 0o755), os.WriteFile("bin/firstbell", []byte("#!/bin/sh\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
		os.Args[0] = c.called
		p, err := ThisProgram([]string{"serve"})
		if err != nil || p.Path != c.want || p.Dir != dir || !slices.Equal(p.Args, []string{"serve"}) {
			t.Errorf("called as %s: got %+v, %v; want %s", c.called, p, err, c.want)
		}
	}
}
