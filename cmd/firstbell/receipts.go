package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/store"
	"firstbell/attendance/wal"
	"firstbell/proxy"
)

// keysPath is where everybody finds the keys that receipts are checked with.
const keysPath = "/.well-known/firstbell/keys"

// receiptsUnder is what follows a check-in's path in front of a receipt's id.
const receiptsUnder = "/receipts/"

// A receiptDesk hands out receipts with their proofs. A receipt is found by the
// store's row or, before it got there, by the roll; its proof is read from the
// journal, for as long as that holds the record.
type receiptDesk struct {
	a *attendant

	moved atomic.Pointer[func(ctx context.Context, host, path string) (proxy.LocalAnswer, error)] // where the journal is now, if not here

	busy chan struct{} // held by who reads the journal: one at a time
	line chan struct{} // held by who waits for that, too

	mu     sync.Mutex // guards what follows
	recent map[string]handedOut
}

// handedOut is an answer that was given a moment ago.
type handedOut struct {
	answer proxy.LocalAnswer
	until  time.Time
}

const (
	// A receipt costs a look into the store and up to a segment of the journal:
	// 64 MiB, a tenth of a second. Whoever asks for the same again meanwhile is
	// answered from memory.
	deskLine     = 64
	deskRemember = 10 * time.Second
	deskRecent   = 256
)

func newReceiptDesk(a *attendant) *receiptDesk {
	return &receiptDesk{a: a, busy: make(chan struct{}, 1), line: make(chan struct{}, deskLine), recent: map[string]handedOut{}}
}

// noReceipt is the one answer to every id that is not a receipt of that school,
// well formed or not: nothing is to be learnt by asking.
func noReceipt() proxy.LocalAnswer {
	return proxy.LocalAnswer{Status: http.StatusNotFound, Detail: "there is no such receipt here, or the journal does not reach back to it any more"}
}

func deskBusy() proxy.LocalAnswer {
	return proxy.LocalAnswer{Status: http.StatusServiceUnavailable, Detail: "receipts cannot be looked up right now; they are safe, come back in a moment", RetryAfter: 5 * time.Second}
}

// answer is a proxy.Local.
func (d *receiptDesk) answer(ctx context.Context, host, path string) proxy.LocalAnswer {
	if elsewhere := d.moved.Load(); elsewhere != nil {
		if a, err := (*elsewhere)(ctx, host, path); err == nil {
			return a
		}
		return deskBusy()
	}
	text := path[strings.LastIndexByte(path, '/')+1:]
	id, err := attendance.ParseReceiptID(text)
	if err != nil || !strings.HasSuffix(path, receiptsUnder+text) {
		return noReceipt()
	}
	school := d.a.recorder.SchoolOf(host)
	known := school + "/" + id.String()
	if a, ok := d.again(known); ok {
		return a
	}
	select {
	case d.line <- struct{}{}:
		defer func() { <-d.line }()
	default:
		return deskBusy()
	}
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	case <-ctx.Done():
		return deskBusy()
	}
	a, err := d.find(ctx, school, id)
	if err != nil {
		d.a.log.Warn("a receipt could not be looked up", "error", err)
		return deskBusy()
	}
	d.remember(known, a)
	return a
}

func (d *receiptDesk) again(known string) (proxy.LocalAnswer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.recent[known]
	return h.answer, ok && time.Now().Before(h.until)
}

func (d *receiptDesk) remember(known string, a proxy.LocalAnswer) {
	if a.Status != http.StatusOK {
		return // whoever guesses ids fills nothing
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.recent) >= deskRecent {
		clear(d.recent)
	}
	d.recent[known] = handedOut{a, time.Now().Add(deskRemember)}
}

// find looks a receipt up and proves it.
func (d *receiptDesk) find(ctx context.Context, school string, id attendance.ReceiptID) (proxy.LocalAnswer, error) {
	position, err := d.position(ctx, school, id)
	if err != nil || position == 0 {
		return noReceipt(), err
	}
	r, err := wal.OpenReader(d.a.dirs...)
	if err != nil {
		return noReceipt(), err
	}
	defer r.Close()
	proof, err := attendance.Prove(attendance.ReadJournal(r), position)
	if errors.Is(err, attendance.ErrNoProof) {
		return noReceipt(), nil
	}
	if err != nil {
		return noReceipt(), err
	}
	text, err := json.MarshalIndent(proof, "", "  ")
	return proxy.LocalAnswer{Status: http.StatusOK, ContentType: "application/json", CacheControl: "no-store", Body: append(text, '\n')}, err
}

// position is where the record lies that decides the receipt's row; 0 when
// there is no such receipt of that school.
func (d *receiptDesk) position(ctx context.Context, school string, id attendance.ReceiptID) (uint64, error) {
	delivered := d.a.toStore.Stats().Next
	var best attendance.Row
	for row, err := range d.a.store.Rows(ctx, store.Filter{School: school, Receipt: id.String()}) {
		if err != nil {
			if !d.a.recorder.Knows(id) {
				return 0, err
			}
			delivered = d.a.recorder.KeepFrom() // the store is down: today's are in the journal
			break
		}
		best = row
	}
	if best.Seq == 0 && !d.a.recorder.Knows(id) {
		return 0, nil
	}
	return d.undelivered(school, id, delivered, best)
}

// undelivered looks in the journal, from a position on, for what takes the place
// of a row.
func (d *receiptDesk) undelivered(school string, id attendance.ReceiptID, from uint64, best attendance.Row) (uint64, error) {
	end := d.a.journal.Next()
	if from >= end {
		return best.Seq, nil
	}
	r, err := wal.OpenReader(d.a.dirs...)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for rec, err := range r.Records(from) {
		if err != nil {
			return 0, err
		}
		if rec.Seq >= end {
			break
		}
		if !attendance.IsOf(rec.Data, id) {
			continue
		}
		e, err := attendance.DecodeEvent(rec.Data)
		if err != nil {
			continue
		}
		e.Seq = rec.Seq
		if row, ok := attendance.RowOf(&e); ok && row.School == school && (best.Seq == 0 || row.Better(&best)) {
			best = row
		}
	}
	return best.Seq, nil
}

// keysAnswer is a proxy.Local: the public keys, for everybody.
func (a *attendant) keysAnswer(context.Context, string, string) proxy.LocalAnswer {
	return proxy.LocalAnswer{
		Status: http.StatusOK, ContentType: "application/jwk-set+json", CacheControl: "public, max-age=300",
		Body: attendance.MarshalKeys(a.keys.Public()),
	}
}

// localRoutes are the routes that come with one that takes check-ins.
func (a *attendant) localRoutes(checkIn *proxy.Route) []*proxy.Route {
	return []*proxy.Route{
		{Hosts: checkIn.Hosts, Methods: []string{"GET"}, Path: checkIn.Path + receiptsUnder + "*", Local: a.desk.answer, Access: checkIn.Access},
		{Hosts: checkIn.Hosts, Methods: []string{"GET"}, Path: keysPath, Local: a.keysAnswer},
	}
}
