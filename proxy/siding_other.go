//go:build !linux

package proxy

import "time"

// siding is empty here: who waits for a slow client has a goroutine.
type siding struct {
	resume func(h *h1, err error)
}

// sided is empty here.
type sided struct{}

func (*siding) wait(*h1, bool, time.Time) bool { return false }
func (*siding) rouse(*conn)                    {}
func (*siding) waiting() int                   { return 0 }
func (*siding) close()                         {}
