//go:build !linux

package spool

import "os"

// nameless opens a file that is gone with its descriptor.
func nameless(dir string) (*os.File, error) { return named(dir) }
