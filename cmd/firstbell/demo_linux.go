package main

import "syscall"

// childAttributes put firstbell into a process group of its own, so that Ctrl-C
// comes to the demo alone, and let it die with the demo however that ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
