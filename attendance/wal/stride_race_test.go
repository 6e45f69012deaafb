//go:build race

package wal

// stride is how many of the places are passed over between two that are tried:
// the race detector makes each ten times as slow. Without it every one is.
const stride = 5
