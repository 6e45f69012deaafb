//go:build !race

package wal

// stride: every place is tried.
const stride = 1
