package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen is where a person or a log reads along. On a terminal the progress is
// one block that is drawn anew; elsewhere it is a line every two seconds.
type screen struct {
	w      io.Writer
	width  int // of the terminal; 0 when there is none
	height int // lines of the block that is on the terminal

	mu sync.Mutex // guards w and height
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.width, _, _ = term.GetSize(int(f.Fd()))
		s.width = min(max(s.width, 40), 110)
	}
	return s
}

// print writes lines that stay. What cannot be written has nobody to read it.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipeLocked()
	fmt.Fprintln(s.w, text)
}

func (s *screen) wipeLocked() {
	if s.height > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.height)
		s.height = 0
	}
}

// draw replaces the block.
func (s *screen) draw(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipeLocked()
	for _, l := range lines {
		fmt.Fprintln(s.w, l)
	}
	s.height = len(lines)
}

// follow shows the progress of the morning until the returned function is
// called.
func (s *screen) follow(d *demo) (stop func()) {
	every := 2 * time.Second
	if s.width > 0 {
		every = 200 * time.Millisecond
	} else if d.duration > 5*time.Minute {
		every = 30 * time.Second
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var before reading
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			now := d.read()
			if s.width > 0 {
				s.draw(now.block(&before, s.width))
			} else if !now.at.Before(d.stage.morning.First) {
				s.print(now.line(&before))
			}
			before = now
		}
	})
	return func() {
		close(done)
		wg.Wait()
		if s.width > 0 {
			now := d.read()
			s.draw(now.block(&now, s.width))
			s.mu.Lock()
			s.height = 0 // the last block stays
			s.mu.Unlock()
		}
	}
}

// reading is how things stand at a moment.
type reading struct {
	at       time.Time
	arrived  int64
	receipts int64
	sent     int64
	failed   int64
	origin   int64
	falls    int
	students int
	state    string
}

func (d *demo) read() reading {
	p := d.player.Progress()
	r := reading{
		at: time.Now().In(d.stage.zone), arrived: p.Arrived, receipts: p.Receipts, sent: p.Sent, failed: p.Failed,
		origin: d.stage.lms.Requests(), falls: d.stage.lms.Falls(), students: d.students,
	}
	m := &d.stage.morning
	switch {
	case r.at.Before(m.Opens):
		r.state = "before the lesson"
	case r.at.Before(m.Starts):
		r.state = "the period is open"
	case r.at.Before(m.LateAfter):
		r.state = "the bell has rung"
	case r.at.Before(m.Ends):
		r.state = "who comes now is late"
	default:
		r.state = "the lesson is over"
	}
	for _, o := range d.outages() {
		switch {
		case o.Ready.IsZero():
			r.state = "kill -9: firstbell is dead"
		case time.Since(o.Ready) < 2*time.Second:
			r.state = fmt.Sprintf("firstbell is back after %s", short(o.Ready.Sub(o.Killed)))
		}
	}
	if r.falls > 0 {
		r.state += fmt.Sprintf(", the origin fell %s", times(r.falls))
	}
	return r
}

// perSecond is the rate between two readings.
func (r *reading) perSecond(now, then int64, before *reading) int64 {
	d := r.at.Sub(before.at).Seconds()
	if before.at.IsZero() || d <= 0 {
		return 0
	}
	return int64(float64(now-then) / d)
}

// line is the progress for a log.
func (r *reading) line(before *reading) string {
	return fmt.Sprintf("%s  %s here, %s receipts, %s requests/s, %s/s at the origin, %s tries failed · %s",
		r.at.Format("15:04:05"), thousands(r.arrived), thousands(r.receipts),
		thousands(r.perSecond(r.sent, before.sent, before)), thousands(r.perSecond(r.origin, before.origin, before)),
		thousands(r.failed), r.state)
}

// block is the progress for a terminal.
func (r *reading) block(before *reading, width int) []string {
	bar := func(n int64) string {
		room := width - 40
		full := int(int64(room) * n / int64(max(1, r.students)))
		return strings.Repeat("█", min(full, room)) + strings.Repeat("·", max(0, room-full))
	}
	return []string{
		fmt.Sprintf("  %s  %s", r.at.Format("15:04:05"), r.state),
		fmt.Sprintf("  students here  %s %11s", bar(r.arrived), thousands(r.arrived)),
		fmt.Sprintf("  receipts       %s %11s", bar(r.receipts), thousands(r.receipts)),
		fmt.Sprintf("  requests       %s/s from students, %s/s reach the origin; %s tries failed",
			thousands(r.perSecond(r.sent, before.sent, before)), thousands(r.perSecond(r.origin, before.origin, before)), thousands(r.failed)),
	}
}
