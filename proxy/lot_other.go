//go:build !linux

package proxy

import (
	"errors"
	"net"
)

// canPark is for Linux: elsewhere idle connections wait as they are.
const canPark = false

// lot is empty here.
type lot struct {
	resume func(c *conn, fd int)
	end    func(c *conn)
}

func (*lot) park(*conn) bool { return false }
func (*lot) drop(*conn) bool { return false }
func (*lot) waiting() int    { return 0 }
func (*lot) close()          {}

func unparked(int) (*net.TCPConn, error) { return nil, errors.ErrUnsupported }
