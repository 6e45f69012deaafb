package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestASurveyChangesNothingButTheTimeItTakes opens journals with a survey made
// while they were written, and copies of them without one.
func TestASurveyChangesNothingButTheTimeItTakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(t *testing.T, sealed []string) // the survey
		close  bool                                // in good order, or as kill -9 leaves it
		least  int                                 // segments that need not be read again
	}{
		{"closed in good order", nil, true, 5},
		{"killed", nil, false, 5},
		{"damaged before", func(t *testing.T, sealed []string) { flip(t, sealed[1]) }, true, 3},
		{"the oldest segment gone since", nil, true, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := Options{Dir: t.TempDir(), SegmentBytes: segmentBytesMin}
			for run := range 2 { // the second begins with what the first left
				l, err := Open(opt)
				if err != nil {
					t.Fatal(err)
				}
				appendSome(t, l, run*100000, 40)
				if run == 0 {
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if c.before != nil {
					c.before(t, pathsOf(l))
				}
				if opt.Survey, err = MakeSurvey(opt.Dir, ""); err != nil {
					t.Fatal(err)
				}
				appendSome(t, l, 500000, 20)
				if c.name == "the oldest segment gone since" {
					if err := os.Remove(pathsOf(l)[0]); err != nil {
						t.Fatal(err)
					}
				}
				if c.close {
					err = l.Close()
				} else {
					close(l.stop)
					<-l.stopped
					l.unlock()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if n := opt.Survey.Segments(); n < c.least {
				t.Errorf("%d segments need not be read again, want %d or more", n, c.least)
			}
			plain := opt
			plain.Survey, plain.Dir = nil, filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(plain.Dir, os.DirFS(opt.Dir)); err != nil {
				t.Fatal(err)
			}
			if got, want := opened(t, opt), opened(t, plain); got != want {
				t.Errorf("with a survey:\n%s\nwithout:\n%s", got, want)
			}
		})
	}
}

func appendSome(t *testing.T, l *Log, from, times int) {
	t.Helper()
	for i := range times {
		if _, err := l.Append(batch(from+i*50, 50)); err != nil {
			t.Fatal(err)
		}
	}
}

// pathsOf are the segments that are over, the oldest first.
func pathsOf(l *Log) (paths []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sealed {
		paths = append(paths, s.path)
	}
	return paths
}

// flip changes a byte in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, fileMode); err != nil {
		t.Fatal(err)
	}
}

// opened opens a journal and tells all that was found, but for where it lies.
func opened(t *testing.T, opt Options) (text string) {
	t.Helper()
	l, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Sprintf("next %d\n", l.Next())
	for _, d := range l.Damage() {
		d.Segment, d.SetAside = filepath.Base(d.Segment), ""
		text += fmt.Sprintf("%+v\n", d)
	}
	l.mu.Lock()
	for _, s := range l.sealed {
		text += fmt.Sprintf("%d: %d to %d, %d records, %d bytes of %d, closed %v, damaged %v\n", s.number, s.first, s.last, s.records, s.dataEnd, s.size, s.closed, s.damaged)
	}
	l.mu.Unlock()
	r, err := OpenReader(opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	text += fmt.Sprintf("%d records are read\n", len(readAll(t, r)))
	r.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return text
}
