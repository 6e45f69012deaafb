//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a durable receipt may cost beside a bare fasthttp answer of the same
// bytes to the same POST, which keeps nothing.
const (
	receiptsRate  = 0.6 // of its answers a second, at least
	receiptsSyncs = 10  // fdatasyncs of the disk beyond its p99, at most
)

// receipts compares durable check-ins with a bare answer to the same POST: how
// many a second, and how long they take; at full speed, where who is quicker has
// fewer to wait for, and at one rate for both, half of what the slower can do.
func (a *arena) receipts(ctx context.Context) error {
	gate := a.servers[0]
	request := []byte(numbered(checkIn))
	sample, err := exchange(ctx, gate.site.Listen, request)
	if err != nil {
		return fmt.Errorf("taking a sample from firstbell: %w", err)
	}
	file := filepath.Join(a.dir, "receipt")
	if err := os.WriteFile(file, sample, 0o600); err != nil {
		return err
	}
	floor, err := startFloor(a.halves, "fasthttp", file)
	if err != nil {
		return err
	}
	defer floor.stop()
	release, err := a.lock()
	if err != nil {
		return fmt.Errorf("locking firstbell's store: %w", err)
	}
	defer release()
	disk, err := newSyncer(gate.site.Dir)
	if err != nil {
		return err
	}
	defer disk.close()
	for _, conns := range []int{64, 1000} {
		if err := a.receiptsWith(ctx, conns, []*server{gate, floor}, disk); err != nil {
			return err
		}
	}
	sync := spreadOf(disk.took)
	a.note(syncMedian, gate, sync.Median, lasting(seconds(sync.Median)))
	return nil
}

// receiptsWith lets the two take turns over so many connections.
func (a *arena) receiptsWith(ctx context.Context, conns int, servers []*server, disk *syncer) error {
	crowds := make([]*crowd, len(servers))
	for i, s := range servers {
		c, err := newCrowd(s.site.Listen, conns)
		if err != nil {
			return err
		}
		defer c.close()
		crowds[i] = c
		warm := c.burst(checkIns(), 200, func(sent int) bool { return sent >= 4*conns })
		if err := warm.bad(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, pace := range []string{"full speed", "half of the slower's rate"} {
		rate := 0.0
		if pace != "full speed" {
			rate = a.slower(servers, conns) / 2
		}
		rates, middles, tails := make([][]float64, 2), make([][]float64, 2), make([][]float64, 2)
		for round := range a.rounds {
			for i := range servers {
				i = (i + round) % 2 // another one begins each round
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := disk.measure(10); err != nil {
					return err
				}
				t, took := crowds[i].timed(checkIns(), rate, a.burst)
				if err := t.bad(); err != nil {
					return fmt.Errorf("%s, %d connections: %w", servers[i].name, conns, err)
				}
				rates[i] = append(rates[i], float64(t.answers)/t.wall.Seconds())
				middles[i] = append(middles[i], took[len(took)/2].Seconds())
				tails[i] = append(tails[i], took[len(took)*99/100].Seconds())
			}
		}
		for i, s := range servers {
			at := fmt.Sprintf("%d connections, %s", conns, pace)
			r, m, p := spreadOf(rates[i]).Median, spreadOf(middles[i]).Median, spreadOf(tails[i]).Median
			a.note(receiptsAnswers+at, s, r, fmt.Sprintf("%.0f", r))
			a.note("p50, "+at, s, m, lasting(seconds(m)))
			a.note(receiptsTail+at, s, p, lasting(seconds(p)))
		}
	}
	return nil
}

const (
	receiptsAnswers = "answers a second, "
	receiptsTail    = "p99, "
	fullSpeed       = " connections, full speed"
	syncMedian      = "an fdatasync of 4 KiB in the journal's directory, median"
)

// slower is the lower of the rates at full speed.
func (a *arena) slower(servers []*server, conns int) float64 {
	f := a.fact(receiptsAnswers + fmt.Sprint(conns) + fullSpeed)
	return min(f.Number[servers[0].name], f.Number[servers[1].name])
}

// fact is what was noted in this trial under the name; nil when nothing was.
func (a *arena) fact(what string) *fact {
	i := slices.IndexFunc(a.facts, func(f *fact) bool { return f.Case == a.trial && f.What == what })
	if i < 0 {
		return nil
	}
	return a.facts[i]
}

// judgeReceipts sets the bars of the trial. A turn lasts a quarter of a second:
// its p99 is that of a thousand answers at least.
func (a *arena) judgeReceipts() {
	for _, f := range a.facts {
		was, bare := f.Number[ours], f.Number["fasthttp"]
		if bare == 0 {
			continue
		}
		switch {
		case strings.HasPrefix(f.What, receiptsAnswers) && strings.HasSuffix(f.What, fullSpeed):
			f.Bars = append(f.Bars, verdict{fmt.Sprintf("≥ %.1fx of a bare answer's", receiptsRate), fmt.Sprintf("%.2fx", was/bare), was >= receiptsRate*bare})
		case strings.HasPrefix(f.What, receiptsTail):
			sync := 0.0
			for _, o := range a.facts {
				if o.Case == f.Case && o.What == syncMedian {
					sync = o.Number[ours]
				}
			}
			most := bare + receiptsSyncs*sync
			f.Bars = append(f.Bars, verdict{"≤ a bare answer's and 10 fdatasyncs, " + lasting(seconds(most)), f.Value[ours], was <= most})
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func checkIns() requester {
	d := duel{talk: []string{checkIn}}
	return d.requester()
}

// timed is a burst for so long that keeps how long each answer took, in order
// from the shortest. With a rate, requests have their moments: one that finds no
// connection free waits, and that counts.
func (c *crowd) timed(next requester, rate float64, lasts time.Duration) (tally, []time.Duration) {
	c.times = make([]time.Duration, 0, 1<<16)
	defer func() { c.times = nil }()
	var t tally
	if rate > 0 {
		t = c.paced(next, 200, rate, max(100, int(rate*lasts.Seconds())))
	} else {
		end := time.Now().Add(lasts)
		t = c.burst(next, 200, func(int) bool { return !time.Now().Before(end) })
	}
	slices.Sort(c.times)
	if len(c.times) == 0 {
		c.times = append(c.times, 0) // the tally says why
	}
	return t, c.times
}

// paced sends n requests at a rate, each over a connection that is free.
func (c *crowd) paced(next requester, want int, rate float64, n int) tally {
	var t tally
	t.again = c.sweep()
	free := make([]int, 0, len(c.lines))
	for i := range c.lines {
		if c.lines[i].fd >= 0 || c.connect(i) == nil {
			free = append(free, i)
		}
	}
	began, sent, out := time.Now(), 0, 0
	moment := func(i int) time.Time { return began.Add(seconds(float64(i) / rate)) }
	due := make([]time.Time, len(c.lines)) // of the request that is out
	for deadline := moment(n).Add(answerMax); (sent < n || out > 0) && time.Now().Before(deadline); {
		for sent < n && len(free) > 0 && !time.Now().Before(moment(sent)) {
			i := free[len(free)-1]
			free = free[:len(free)-1]
			due[i] = moment(sent)
			sent++
			if err := c.send(i, next); err != nil {
				t.failed++
				t.because(err)
				continue
			}
			out++
		}
		got, err := unix.EpollWait(c.epoll, c.events, 0) // a millisecond would be too coarse
		if err != nil && err != unix.EINTR {
			t.because(err)
			break
		}
		for _, e := range c.events[:max(got, 0)] {
			i := int(e.Pad)
			if c.lines[i].fd != int(e.Fd) {
				continue
			}
			busy := c.lines[i].busy
			done, err := c.read(i)
			switch {
			case err != nil:
				c.drop(i)
				if busy {
					out--
					t.failed++
					t.because(err)
				}
			case done:
				out--
				t.count(c.lines[i].status, want)
				c.times = append(c.times, time.Since(due[i]))
				free = append(free, i)
			}
		}
	}
	if out > 0 || sent < n {
		t.failed += out + n - sent
		t.because(fmt.Errorf("of %d requests %d were sent and %d not answered within %v", n, sent, out, answerMax))
	}
	t.wall = time.Since(began)
	return t
}

// A syncer measures what an fdatasync costs where the journal is.
type syncer struct {
	fd   int
	took []float64 // seconds
}

func newSyncer(dir string) (*syncer, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Fallocate(fd, 0, 0, 1<<20)
	}
	if err != nil {
		return nil, fmt.Errorf("making a file to sync in %s: %w", dir, err)
	}
	return &syncer{fd: fd}, nil
}

func (s *syncer) close() { unix.Close(s.fd) }

func (s *syncer) measure(n int) error {
	block := make([]byte, 4096)
	for i := range n {
		block[0] = byte(len(s.took))
		began := time.Now()
		_, err := unix.Pwrite(s.fd, block, int64(i%256)*4096)
		if err = errors.Join(err, unix.Fdatasync(s.fd)); err != nil {
			return fmt.Errorf("syncing: %w", err)
		}
		s.took = append(s.took, time.Since(began).Seconds())
	}
	return nil
}

// A million is how many check-ins the trial of that name has.
const aMillion = 1_000_000

// million has a firstbell of its own take a million check-ins and deliver them:
// what each costs as the roll grows, how long all take, and what they leave.
func (a *arena) million(ctx context.Context) error {
	gate, err := a.startOne(ctx, peers[0], a.binary, "firstbell-million")
	if err != nil {
		return err
	}
	defer gate.stop()
	release, err := lockStore(gate.site.Dir)()
	if err != nil {
		return fmt.Errorf("locking firstbell's store: %w", err)
	}
	locked := true
	defer func() {
		if locked {
			release()
		}
	}()
	c, err := newCrowd(gate.site.Listen, 1000)
	if err != nil {
		return err
	}
	defer c.close()
	began, taken := time.Now(), 0
	press := func(n int) error {
		for n > 0 {
			part := min(n, 20_000)
			t := c.burst(checkIns(), 200, func(sent int) bool { return sent >= part })
			if err := t.bad(); err != nil {
				return fmt.Errorf("after %d check-ins: %w", taken, err)
			}
			taken, n = taken+t.answers, n-part
		}
		return ctx.Err()
	}
	costs := map[int]float64{}
	for _, size := range []int{1000, 10_000, 100_000, aMillion} {
		const probes, probe = 5, 2000 // they are of the size, but for the first
		if err := press(size - taken - min(probes*probe, size-taken-1)); err != nil {
			return err
		}
		var each []float64
		for range probes {
			before, err := gate.usage()
			if err != nil {
				return err
			}
			n := taken
			if err := press(min(probe, max(200, size-taken))); err != nil {
				return err
			}
			after, err := gate.usage()
			if err != nil {
				return err
			}
			each = append(each, float64(after.since(before).cpu.Microseconds())/float64(taken-n))
		}
		costs[size] = spreadOf(each).Median
		a.note(fmt.Sprintf("CPU us for a check-in, %d on the roll", size), gate, costs[size], figure(costs[size]))
		a.note(fmt.Sprintf("MiB of memory, %d on the roll", size), gate, float64(gate.memory())/(1<<20), fmt.Sprintf("%.0f", float64(gate.memory())/(1<<20)))
	}
	all := time.Since(began)
	a.note("seconds for all receipts", gate, all.Seconds(), lasting(all))
	flat := a.fact(fmt.Sprintf("CPU us for a check-in, %d on the roll", aMillion))
	flat.Bars = append(flat.Bars, verdict{"≤ 1.25x of 1,000 on the roll", fmt.Sprintf("%.2fx", costs[aMillion]/costs[1000]), costs[aMillion] <= 1.25*costs[1000]})
	bytes, err := bytesPerRecord(ctx, a.binary, gate.site.Dir)
	if err != nil {
		return err
	}
	a.note("bytes of the journal for a check-in, seals and frames included", gate, bytes, fmt.Sprintf("%.0f", bytes))
	f := a.fact("bytes of the journal for a check-in, seals and frames included")
	f.Bars = append(f.Bars, verdict{"≤ 160", f.Value[ours], bytes <= 160})
	release()
	locked = false
	began = time.Now()
	if err := delivered(ctx, gate, 5*time.Minute); err != nil {
		return err
	}
	a.note("seconds until all are in SQLite, after an outage", gate, time.Since(began).Seconds(), lasting(time.Since(began)))
	a.note("MiB of memory then", gate, float64(gate.memory())/(1<<20), fmt.Sprintf("%.0f", float64(gate.memory())/(1<<20)))
	return nil
}

// bytesPerRecord asks firstbell itself what its journal holds.
func bytesPerRecord(ctx context.Context, binary, dir string) (float64, error) {
	out, err := exec.CommandContext(ctx, binary, "inspect", "-json", filepath.Join(dir, "journal")).Output()
	if err != nil {
		return 0, fmt.Errorf("inspecting the journal: %w", err)
	}
	var report struct {
		Segments []struct{ Records, Used int64 }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, fmt.Errorf("inspecting the journal: %w", err)
	}
	var used, records int64
	for _, s := range report.Segments {
		used, records = used+s.Used, records+s.Records
	}
	return float64(used) / float64(max(records, 1)), nil
}
