package main

import (
	"strings"
	"testing"
	"time"

	"firstbell/attendance/wal"
)

func TestTheJournalSaysHowLongItsRoomLasts(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name  string
		h     wal.Health
		share float64
		says  []string
	}{
		{"plenty", wal.Health{Bytes: 2 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.1, nil},
		{"half of max", wal.Health{Bytes: 10 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.5, []string{"50 % of the journal's room", "10.0 hours are left"}},
		{"four fifths of max", wal.Health{Bytes: 16 * gib, Max: 20 * gib, Free: 100 * gib, Reserve: gib}, 0.8, []string{"80 %", "4.0 hours", "go before their time"}},
		{"a disk that somebody else fills", wal.Health{Bytes: 3 * gib, Max: 20 * gib, Free: 2 * gib, Reserve: gib}, 0.75, []string{"75 %", "1.0 hours"}},
		{"reserve passed", wal.Health{Bytes: 0, Max: 20 * gib, Free: gib / 2, Reserve: gib}, 1, []string{"100 %"}},
		{"a file system that does not say", wal.Health{Bytes: 10 * gib, Max: 20 * gib, Free: -1, Reserve: gib}, 0.5, []string{"50 %"}},
		{"no bound at all", wal.Health{Bytes: 10 * gib, Free: -1}, 0, nil},
	} {
		var w roomWatch
		began := time.Unix(1e9, 0)
		w.see(&c.h, began)
		c.h.Stats.Bytes = gib // in an hour
		got := w.see(&c.h, began.Add(time.Hour))
		if got.Share != c.share {
			t.Errorf("%s: got share %v, want %v", c.name, got.Share, c.share)
		}
		for _, want := range c.says {
			if !strings.Contains(got.warning(), want) {
				t.Errorf("%s: got %q, want %q in it", c.name, got.warning(), want)
			}
		}
		if c.says == nil && got.warning() != "" {
			t.Errorf("%s: got %q, want no warning", c.name, got.warning())
		}
	}
}

func TestTheRateIsThatOfTheLastHour(t *testing.T) {
	var w roomWatch
	h := wal.Health{Bytes: 1 << 30, Max: 2 << 30, Free: -1}
	at := time.Unix(1e9, 0)
	for range 600 { // ten hours: a rush, then quiet
		h.Stats.Bytes += 1 << 20
		w.see(&h, at)
		at = at.Add(time.Minute)
	}
	if len(w.samples) > 62 {
		t.Errorf("%d samples are kept, want an hour's", len(w.samples))
	}
	for range 120 {
		w.see(&h, at)
		at = at.Add(time.Minute)
	}
	if r := w.see(&h, at); r.Left != 0 || !strings.Contains(r.warning(), "does not grow") {
		t.Errorf("after two quiet hours: got %v left, %q", r.Left, r.warning())
	}
}
