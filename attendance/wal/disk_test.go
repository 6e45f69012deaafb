package wal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The tests and benchmarks in this file use a real disk.

const childEnv = "WAL_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child appends without end and says which records were acknowledged.
func child(dir string) {
	l, err := Open(Options{Dir: dir, SegmentBytes: 256 << 10})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i += 7 {
		first, err := l.Append(batch(i, 7))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%d %d\n", first, i)
	}
}

func TestKillNineLosesNothing(t *testing.T) {
	dir := t.TempDir()
	acked := map[uint64]string{}
	for round := range 8 {
		for seq, want := range runAndKill(t, dir, 50+200*round) {
			if was, ok := acked[seq]; ok {
				t.Fatalf("round %d: number %d was given out twice, for %q and %q", round, seq, was, want)
			}
			acked[seq] = want
		}
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := readAll(t, r)
		for seq, want := range acked {
			if got[seq] != want {
				t.Errorf("round %d: record %d: got %q, want %q", round, seq, got[seq], want)
			}
		}
		for seq, rec := range got {
			if !strings.HasPrefix(rec, "record ") || !strings.HasSuffix(rec, " of the day") {
				t.Errorf("round %d: record %d is invented: %q", round, seq, rec)
			}
		}
		if m := r.Missing(); len(m) > 0 {
			t.Errorf("round %d: a kill was taken for damage: %v", round, r.Damage())
		}
		r.Close()
	}
	t.Logf("%d records", len(acked))
}

// runAndKill kills a child after so many lines, and gives what it acknowledged.
func runAndKill(t *testing.T, dir string, lines int) map[uint64]string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[uint64]string{}
	sc := bufio.NewScanner(out)
	for n := 0; sc.Scan(); n++ {
		a, b, _ := strings.Cut(sc.Text(), " ")
		first, err1 := strconv.ParseUint(a, 10, 64)
		i, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil {
			break // the line was cut by the kill
		}
		for j, r := range batch(i, 7) {
			acked[first+uint64(j)] = string(r)
		}
		if n == lines {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(acked) == 0 {
		t.Fatalf("the child acknowledged nothing: %s", stderr.String())
	}
	return acked
}

func TestASecondWriterIsToldWhoHoldsTheJournal(t *testing.T) {
	dir, spare := t.TempDir(), t.TempDir()
	l, err := Open(Options{Dir: dir, Spare: spare})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, opt := range []Options{{Dir: dir}, {Dir: spare}, {Dir: t.TempDir(), Spare: spare}} {
		_, err = Open(opt)
		var locked *LockedError
		if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) || locked.PID != os.Getpid() {
			t.Errorf("%+v: got %v, want ErrLocked by process %d", opt, err, os.Getpid())
		}
	}
}

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file in the directory's place: got %v, want an error that names it", err)
	}
	l, err := Open(Options{Dir: file, Spare: t.TempDir()})
	if err != nil {
		t.Fatalf("with a spare: %v", err)
	}
	defer l.Close()
	if _, err := l.Append(batch(0, 1)); err != nil {
		t.Errorf("with a spare: %v", err)
	}
	if h := l.Health(); len(h.Amber) == 0 {
		t.Error("with a spare: want amber")
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	recs := batch(0, 1000)
	for range 3 {
		if _, err := l.Append(recs); err != nil {
			t.Fatal(err)
		}
	}
	for l.Health().Bytes < 2*segmentBytesDefault { // the keeper is still making a segment
		time.Sleep(time.Millisecond)
	}
	if n := testing.AllocsPerRun(20, func() { l.Append(recs) }); n > 0 {
		t.Errorf("an Append of %d records allocates %v times, want 0", len(recs), n)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("%d records of 150 B", n), func(b *testing.B) {
			l, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			recs := make([][]byte, n)
			for i := range recs {
				recs[i] = bytes.Repeat([]byte{byte('a' + i%26)}, 150)
			}
			b.ReportAllocs()
			b.SetBytes(int64(n) * 150)
			for b.Loop() {
				if _, err := l.Append(recs); err != nil {
					b.Fatal(err)
				}
			}
			s := l.Health().Stats
			b.ReportMetric(float64(s.Records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(s.SyncSlowest.Microseconds())/1000, "slowest-ms")
			b.ReportMetric(float64(s.Waited), "waited")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	opt := Options{Dir: b.TempDir()}
	l, err := Open(opt)
	if err != nil {
		b.Fatal(err)
	}
	recs := make([][]byte, 10_000)
	for i := range recs {
		recs[i] = bytes.Repeat([]byte{byte('a' + i%26)}, 150)
	}
	for range 20 {
		if _, err := l.Append(recs); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	b.ReportAllocs()
	b.SetBytes(200_000 * 174)
	for b.Loop() {
		r, err := OpenReader(opt.Dir)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for range r.Records(0) {
			n++
		}
		if n != 200_000 {
			b.Fatalf("read %d records, want 200000", n)
		}
		r.Close()
	}
}
