package disk

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
)

func TestAReleasedDirectoryIsReadAndNotChanged(t *testing.T) {
	dir := t.TempDir()
	old := open(t, dir, Options{})
	before := bytesOf(1, 3*BlockBytes)
	ref := put(t, old, metaOf("a"), before)
	under, err := old.Begin(metaOf("under way"))
	if err != nil {
		t.Fatal(err)
	}
	first := bytesOf(2, 2*BlockBytes)
	if _, err := under.Write(first); err != nil {
		t.Fatal(err)
	}
	if err := old.Release(); err != nil {
		t.Fatal(err)
	}
	next := open(t, dir, Options{})
	lies := files(t, dir)
	if _, content, err := get(old, "a"); err != nil || !bytes.Equal(content, before) {
		t.Errorf("the old process reads %d bytes, %v; want all", len(content), err)
	}
	if _, err := old.Put(metaOf("b"), before); !errors.Is(err, ErrPaused) {
		t.Errorf("storing: got %v, want ErrPaused", err)
	}
	if done, err := old.Update([]byte("a"), ref, []byte("another head")); done || !errors.Is(err, ErrPaused) {
		t.Errorf("updating: got %v, %v; want ErrPaused", done, err)
	}
	if !old.Remove([]byte("a")) || len(old.Find([]byte("a"))) != 0 {
		t.Error("the old process still finds what it removed")
	}
	if _, err := under.Write(first); err != nil {
		t.Errorf("going on with what was under way: %v; its readers follow it", err)
	}
	got := make([]byte, BlockBytes)
	if _, err := under.ReadAt(got, 0); err != nil || !bytes.Equal(got, first[:BlockBytes]) {
		t.Errorf("following what was under way: %v", err)
	}
	if _, err := under.Commit(); err == nil {
		t.Error("what was under way was stored")
	}
	if now := files(t, dir); !slices.Equal(now, lies) {
		t.Errorf("the directory holds %v, was %v", now, lies)
	}
	if head, content, err := get(next, "a"); err != nil || head != "head of a" || !bytes.Equal(content, before) {
		t.Errorf("the new process reads %q, %d bytes, %v; want all", head, len(content), err)
	}
	if st := old.Stats(); st.FailedWrites != 0 || st.Paused {
		t.Errorf("the old process alarms: %+v", st)
	}
	closed(t, next)
	closed(t, old)
}

func TestAReleasedDirectoryCanBeTakenBack(t *testing.T) {
	dir := t.TempDir()
	old := open(t, dir, Options{})
	put(t, old, metaOf("a"), bytesOf(1, 100))
	if err := old.Release(); err != nil {
		t.Fatal(err)
	}
	next := open(t, dir, Options{})
	var locked *LockedError
	if err := old.Retake(); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("while the new process has it: got %v, want a *LockedError", err)
	}
	closed(t, next)
	if err := old.Retake(); err != nil {
		t.Fatal(err)
	}
	put(t, old, metaOf("b"), bytesOf(2, 100))
	for _, key := range []string{"a", "b"} {
		if _, _, err := get(old, key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := Open(Options{Dir: dir, Bytes: 1 << 20}); !errors.As(err, &locked) {
		t.Errorf("opened by another meanwhile: %v", err)
	}
	closed(t, old)
}
