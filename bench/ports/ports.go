package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports that are given out: beyond those of the demo, and below 32768, from
// which on Linux takes its own, as others do from 49152.
const (
	first = 20000
	span  = 12000
)

var (
	mu    sync.Mutex // guards given
	given = make(map[int]bool)
)

// Free returns a free port of the loopback.
func Free() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	var last error
	for range 1000 {
		port := first + rand.N(span)
		if given[port] {
			continue
		}
		if last = try(port); last == nil {
			given[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("finding a free port from %d to %d: %w", first, first+span-1, last)
}

// FreeAddress is Free with the loopback's address before it.
func FreeAddress() (string, error) {
	port, err := Free()
	return At(port), err
}

// At is the loopback's address with the port.
func At(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// try listens on the port for a moment.
func try(port int) error {
	tcp, err := net.Listen("tcp", At(port))
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", At(port))
	if err == nil {
		err = udp.Close()
	}
	if cerr := tcp.Close(); err == nil {
		err = cerr
	}
	return err
}
