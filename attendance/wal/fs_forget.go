//go:build linux && (amd64 || arm64 || riscv64 || loong64 || ppc64le)

package wal

import "syscall"

const fadvDontNeed = 4 // POSIX_FADV_DONTNEED

func (f osFile) Forget() {
	syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, fadvDontNeed, 0, 0)
}
