package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets are the listening sockets of a process. Those that it inherited are
// used before new ones are opened.
type Sockets struct {
	mu        sync.Mutex // guards all below
	inherited []socket
	inUse     []socket
}

// socket is one listening socket: inherited and not used yet, or in use.
type socket struct {
	Name    string `json:"name"`    // as the file names it, such as http
	Network string `json:"network"` // tcp, unix or udp
	Address string `json:"address"` // as the file gives it; empty: systemd's file says it

	file *os.File     // inherited
	of   syscall.Conn // in use
}

// Listen returns the listener of that name and address: an inherited one, else
// a new one. An address with a slash is the path of a Unix socket.
func (s *Sockets) Listen(name, address string) (net.Listener, error) {
	network := "tcp"
	if strings.Contains(address, "/") {
		network = "unix"
	}
	if f := s.take(name, network, address); f != nil {
		ln, err := net.FileListener(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("taking over the socket %s: %w", name, err)
		}
		return ln, s.use(name, network, address, ln)
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return ln, s.use(name, network, address, ln)
}

// ListenPacket is Listen for UDP. A name may have a listener and a packet
// connection.
func (s *Sockets) ListenPacket(name, address string) (net.PacketConn, error) {
	if f := s.take(name, "udp", address); f != nil {
		pc, err := net.FilePacketConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("taking over the socket %s (UDP): %w", name, err)
		}
		return pc, s.use(name, "udp", address, pc)
	}
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	return pc, s.use(name, "udp", address, pc)
}

// use notes what is handed to the next process. Unix sockets keep their names
// when they are closed here: the next process has them.
func (s *Sockets) use(name, network, address string, of any) error {
	if ln, ok := of.(*net.UnixListener); ok {
		ln.SetUnlinkOnClose(false)
	}
	conn, ok := of.(syscall.Conn)
	if !ok {
		return fmt.Errorf("listening on %s: a %T cannot be handed over", address, of)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse = append(s.inUse, socket{Name: name, Network: network, Address: address, of: conn})
	return nil
}

// take returns an inherited socket, or nil: that of the address, else one of
// systemd's, which have a name, or listen on the same port.
func (s *Sockets) take(name, network, address string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.inherited, func(o socket) bool { return o.Network == network && o.Address != "" && o.Address == address })
	if at < 0 {
		at = slices.IndexFunc(s.inherited, func(o socket) bool { return o.Network == network && o.Address == "" && o.Name == name })
	}
	if at < 0 {
		at = slices.IndexFunc(s.inherited, func(o socket) bool {
			return o.Network == network && o.Address == "" && samePort(o.file, address)
		})
	}
	if at < 0 {
		return nil
	}
	f := s.inherited[at].file
	s.inherited = slices.Delete(s.inherited, at, at+1)
	return f
}

// samePort says whether a socket of systemd's listens where the address says.
func samePort(f *os.File, address string) bool {
	_, want, err := net.SplitHostPort(address)
	if err != nil || want == "0" {
		return false
	}
	bound, err := boundTo(f)
	if err != nil {
		return false
	}
	switch a := bound.(type) {
	case *syscall.SockaddrInet4:
		return strconv.Itoa(a.Port) == want
	case *syscall.SockaddrInet6:
		return strconv.Itoa(a.Port) == want
	}
	return false
}

// boundTo is the address that a socket has, as the system tells it.
func boundTo(f *os.File) (bound syscall.Sockaddr, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if called := raw.Control(func(fd uintptr) { bound, err = syscall.Getsockname(int(fd)) }); called != nil {
		return nil, called
	}
	return bound, err
}

// CloseUnused closes what was inherited and is not used, and names it.
func (s *Sockets) CloseUnused() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.inherited {
		name := o.Name + " (" + o.Network
		if o.Address != "" {
			name += " " + o.Address
		}
		names = append(names, name+")")
		_ = o.file.Close() // nothing was done with it
	}
	s.inherited = nil
	return names
}

// files are the sockets in use, each with a descriptor of its own to be closed
// by the caller.
func (s *Sockets) files() (all []socket, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.inUse {
		if o.file, err = copyOf(o.of, o.Name); err != nil {
			closeAll(all)
			return nil, fmt.Errorf("handing over the socket %s: %w", o.Name, err)
		}
		all = append(all, o)
	}
	return all, nil
}

// copyOf is another descriptor of a socket. File of package net would do, but a
// file from there makes the socket block when it is passed on, ours included: then
// nobody can end an Accept.
func copyOf(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	again := -1
	called := raw.Control(func(fd uintptr) { again, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(called, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(again), name), nil
}

func closeAll(all []socket) {
	for _, o := range all {
		_ = o.file.Close() // a copy of a descriptor
	}
}

// The descriptors that systemd hands over begin here (sd_listen_fds(3)), and so
// do ours.
const firstDescriptor = 3

// fromSystemd are the sockets that systemd handed over, if it did.
func fromSystemd() ([]socket, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // none, or another process's
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("taking sockets from systemd: LISTEN_FDS is %q", count)
	}
	called := strings.Split(names, ":")
	var all []socket
	for i := range n {
		o := socket{Name: "unnamed"}
		if i < len(called) && called[i] != "" {
			o.Name = called[i]
		}
		if o.file, o.Network, err = descriptor(firstDescriptor+i, o.Name); err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// descriptor is an inherited descriptor as a file, and what kind of socket it
// is.
func descriptor(fd int, name string) (f *os.File, network string, err error) {
	syscall.CloseOnExec(fd)
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return nil, "", fmt.Errorf("taking over the socket %s: descriptor %d is no socket: %w", name, fd, err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, "", fmt.Errorf("taking over the socket %s: %w", name, err)
	}
	_, local := bound.(*syscall.SockaddrUnix)
	switch {
	case kind == syscall.SOCK_STREAM && local:
		network = "unix"
	case kind == syscall.SOCK_STREAM:
		network = "tcp"
	case kind == syscall.SOCK_DGRAM && !local:
		network = "udp"
	default:
		return nil, "", fmt.Errorf("taking over the socket %s: it is neither TCP nor UDP nor a stream of Unix", name)
	}
	return os.NewFile(uintptr(fd), name), network, nil
}
