//go:build !linux

package proxy

import "errors"

// lane is empty here: each connection has a goroutine of its own.
type lane struct{}

func newLanes(*door) []*lane          { return nil }
func (*lane) enter(*conn) bool        { return false }
func (*lane) close()                  {}
func (*lane) waiting() int            { return 0 }
func (*lane) answer(*h1)              {}
func (*conn) endInLane() bool         { return false }
func (*conn) tryRead(fd uintptr) bool { return true }
func (c *conn) aside()                { c.turn = nil }

func writev(int, [][]byte) (int, error) { return 0, errors.ErrUnsupported }
