package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"
)

// TestCurlSeeksInAFilmOfNginx has curl ask for parts of a film that nobody has
// had the whole of.
func TestCurlSeeksInAFilmOfNginx(t *testing.T) {
	curl := need(t, "curl", "apt-get install curl")
	o := newNginx(t)
	const mib = 1 << 20
	film := make([]byte, 40*mib+4321)
	rand.NewChaCha8([32]byte{7}).Read(film)
	o.put(t, "media/film.mp4", film)
	r := serve(t, writeFile(t, o.url, "path: /lessons/*", "path: /media/*", "routes:\n", fmt.Sprintf("cache: {disk: {path: %q, size: 1GiB}}\nroutes:\n", t.TempDir())))
	seek := func(spec string, from, to int) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), curl, "-sSf", "--noproxy", "*", "-r", spec, "http://"+r.web+"/media/film.mp4").Output()
		if err != nil || string(out) != string(film[from:to]) {
			t.Errorf("curl -r %s: %d bytes, %v; want those from %d to %d", spec, len(out), err, from, to)
		}
	}
	for range 2 { // from nginx, then from disk
		seek("0-0", 0, 1)
		seek("1048570-1048580", 1048570, 1048581)
		seek("20000000-24000000", 20000000, 24000001)
		seek("39999999-", 39999999, len(film))
		seek("-5000", len(film)-5000, len(film))
	}
	// Blocks 0, 1, 19 to 22, and 38 to the last.
	if n := o.asked(t, "/media/film.mp4"); n != 9 {
		t.Errorf("nginx was asked %d times, want 9: for each block once", n)
	}
}
