//go:build darwin || freebsd

package wal

import "errors"

func (f osFile) Allocate(int64) error { return errors.ErrUnsupported }

// Sync is the system's fsync; on darwin Go asks for F_FULLFSYNC.
func (f osFile) Sync() error { return f.File.Sync() }
