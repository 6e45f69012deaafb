//go:build unix && !linux

package main

import "syscall"

// childAttributes put firstbell into a process group of its own, so that Ctrl-C
// comes to the demo alone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
