//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "compare: it needs Linux: CPU time is read from /proc, and the load is an epoll loop")
	os.Exit(1)
}
