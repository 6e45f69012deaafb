package wal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// More files are synced at once than there are syncers: the others do it
// themselves, and nobody gets another's outcome.
func TestSyncsAtOnceEachGetTheirOwnOutcome(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		f, err := os.Create(filepath.Join(dir, string(rune('a'+i))))
		if err != nil {
			t.Fatal(err)
		}
		broken := i%2 == 1
		if broken { // a pipe has nothing to be synced to
			f.Close()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			f = r
		}
		defer f.Close()
		wg.Go(func() {
			for range 50 {
				if _, err := f.Write([]byte("x")); err != nil && !broken {
					t.Error(err)
				}
				err := osFile{f}.Sync()
				if broken != errors.Is(err, syscall.EINVAL) || !broken && err != nil {
					t.Errorf("file %d (a pipe: %t): sync said %v", i, broken, err)
				}
			}
		})
	}
	wg.Wait()
}

// What fdatasync says of a file that is gone, Sync says.
func TestSyncOfAClosedFileIsAnError(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var path *os.PathError
	if err := (osFile{f}).Sync(); !errors.As(err, &path) || path.Op != "fdatasync" {
		t.Errorf("sync of a closed file said %v, want a path error of fdatasync", err)
	}
}
