package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"firstbell/proxy/identity"
)

const cookieUsage = `cookie -key-file FILE -student ID [-school ID] [-class ID] [-for 1h]
cookie -key-file FILE -show COOKIE

Makes a signed session cookie as a learning platform would, to try an identity
with, or shows what is in one and whether a key of the file signed it. How a
platform makes them is described in the README.`

func runCookie(_ context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("cookie", cookieUsage, stderr)
	file := f.String("key-file", "", "`FILE` with one key a line, the newest first")
	var p identity.Person
	f.StringVar(&p.Student, "student", "", "the student's `ID`")
	f.StringVar(&p.School, "school", "", "the school's `ID`")
	f.StringVar(&p.Class, "class", "", "the class's `ID`")
	lasts := f.Duration("for", time.Hour, "how long the session `LASTS`")
	shown := f.String("show", "", "the `COOKIE` to look into")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if *file == "" || (*shown == "") == (p.Student == "") {
		return usageError("firstbell cookie: give -key-file FILE, and -student ID or -show COOKIE")
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return fmt.Errorf("reading the keys: %w", err)
	}
	var keys [][]byte
	for line := range bytes.Lines(text) {
		if key := bytes.TrimSpace(line); len(key) > 0 && key[0] != '#' {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return fmt.Errorf("reading the keys: %s holds none; make one with: openssl rand -hex 32", *file)
	}
	if *shown != "" {
		return showCookie(stdout, *shown, keys)
	}
	p.Expires = time.Now().Add(*lasts)
	cookie, err := identity.SignCookie(&p, keys[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, cookie)
	return err
}

func showCookie(w io.Writer, cookie string, keys [][]byte) error {
	p, err := identity.OpenCookie([]byte(cookie), keys)
	if err != nil {
		return fmt.Errorf("the cookie %w", err)
	}
	state := "ends " + p.Expires.Format(time.RFC3339)
	if !time.Now().Before(p.Expires) {
		state = "ended " + p.Expires.Format(time.RFC3339)
	}
	fmt.Fprintf(w, "student %s\nschool  %s\nclass   %s\n%s\n", p.Student, p.School, p.Class, state)
	return nil
}
