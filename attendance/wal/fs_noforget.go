//go:build (linux && !(amd64 || arm64 || riscv64 || loong64 || ppc64le)) || darwin || freebsd

package wal

func (f osFile) Forget() {}
