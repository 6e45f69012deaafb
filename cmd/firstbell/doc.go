// Command firstbell stands in front of e-learning origins: it asks them once
// for what thousands want at the bell, and takes attendance whether they are
// up or not.
//
// It promises: a command either does what it says and exits with 0, or says in
// one line why not and exits with 1 (2 when it was called wrongly). serve starts
// whole or not at all, and ends without losing a request; a reload changes all
// or nothing.
//
// This package holds flags, wiring and words for people. What the file means is
// in the package config, what happens to a request in proxy, what happens to a
// check-in in attendance.
//
// Start reading at run in main.go; serve.go wires everything on one screen.
package main
