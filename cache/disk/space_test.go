//go:build linux

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestAFullFileSystemEndsStoringAndNothingElse fills a real file system of
// 8 MiB.
func TestAFullFileSystemEndsStoringAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mounting a small file system: %v; run as root to test with one", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	s := open(t, dir, Options{Bytes: 1 << 30})
	defer closed(t, s)
	stored := 0
	for i := range 200 {
		if _, err := s.Put(metaOf(fmt.Sprint(i)), bytesOf(uint64(i), 100_000)); err == nil {
			stored++
			s.spaceRead.Store(0) // as if a second had gone by
		} else if !errors.Is(err, ErrPaused) && !errors.Is(err, errFull) {
			t.Fatalf("Put %d: %v", i, err)
		}
	}
	if stored < 60 || stored > 82 || !s.Stats().Paused {
		t.Errorf("stored %d records of 100 kB in 8 MiB, %+v", stored, s.Stats())
	}
	// Another program takes the rest.
	if err := os.WriteFile(dir+"/other", make([]byte, 8<<20), 0o600); !errors.Is(err, errFull) {
		t.Fatalf("filling the rest: %v", err)
	}
	s.short.Store(false)
	if _, err := s.Put(metaOf("more"), bytesOf(1, 100_000)); err == nil {
		t.Error("stored on a full file system")
	}
	for i := range stored {
		if _, content, err := get(s, fmt.Sprint(i)); err != nil || !bytes.Equal(content, bytesOf(uint64(i), 100_000)) {
			t.Errorf("record %d: %v", i, err)
		}
	}
	if tmp, _ := os.ReadDir(dir + "/tmp"); len(tmp) != 0 {
		t.Errorf("%d half-written files left", len(tmp))
	}
	os.Remove(dir + "/other")
	s.pausedUntil.Store(0) // half a minute later
	s.spaceRead.Store(0)
	for i := range 10 {
		s.Remove([]byte(fmt.Sprint(i)))
	}
	if _, err := s.Put(metaOf("again"), bytesOf(1, 100_000)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
