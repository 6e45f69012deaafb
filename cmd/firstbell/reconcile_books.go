package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"firstbell/attendance"
	"firstbell/attendance/seal"
	"firstbell/attendance/timetable"
	"firstbell/attendance/wal"
)

// A book is one place where a day's check-ins are written.
type book int

const (
	bookJournal book = iota
	bookReceipts
	bookStore
	bookExport
	books
)

var bookNames = [books]string{"journal", "receipts", "store", "export"}

// An account is what each book says of one key. It takes 144 bytes, and some 40
// with its place in the ledger: a million check-ins are 200 MB.
type account struct {
	journal attendance.Number // what the journal's row adds to the sum
	in      [books]brief
	has     [books]bool
	group   int32    // of the journal's row, else of the one met first; -1: of none yet
	stored  uint64   // of the record that decides the store's row
	before  *brief   // what the journal's row was when the store was asked; nil: as now
	late    bool     // the journal had no row yet when the store was asked
	proved  bool     // the deciding record lies under a genuine seal
	decides deciding // the record that decides the journal's row
}

// brief is half of a row's number: enough to tell rows of one key apart.
type brief [16]byte

func briefOf(n *attendance.Number) brief { return brief(n[:16]) }

// groupKey is what counts are kept apart by.
type groupKey struct{ school, class, period string }

// ledger holds the books of one day against each other.
type ledger struct {
	date   timetable.Date
	school string // "": all
	asked  uint64 // the store's position when it was asked

	accounts map[attendance.ReceiptID]*account
	groups   []groupKey
	index    map[groupKey]int
	sums     [books]map[int]*attendance.Sum // by group

	first, last uint64 // positions that the journal has
	missing     []wal.Range
	unsealed    int // records of a version that did not seal
	torn        int // records of an append that a crash cut: nobody was told
	digest      *attendance.Event

	differences []difference
}

// difference is one thing that does not agree.
type difference struct {
	Book   string `json:"book"`
	What   string `json:"what"` // missing, extra, altered, doubled, parked, seal, digest, damage, unreadable
	Key    string `json:"key,omitempty"`
	Detail string `json:"detail,omitempty"`

	id attendance.ReceiptID // whose key is still to be found
}

func (d difference) String() string {
	s := d.Book + ": " + d.What
	if d.Key != "" {
		s += " " + d.Key
	}
	if d.Detail != "" {
		s += " (" + d.Detail + ")"
	}
	return s
}

func newLedger(date timetable.Date, school string) *ledger {
	l := &ledger{date: date, school: school, accounts: map[attendance.ReceiptID]*account{}, index: map[groupKey]int{}}
	for b := range l.sums {
		l.sums[b] = map[int]*attendance.Sum{}
	}
	return l
}

func (l *ledger) differ(b book, what, detail string) {
	l.differences = append(l.differences, difference{Book: bookNames[b], What: what, Detail: detail})
}

func (l *ledger) groupOf(r *attendance.Receipt) int32 {
	k := groupKey{r.School, r.Class, r.Period}
	n, ok := l.index[k]
	if !ok {
		n = len(l.groups)
		k = groupKey{strings.Clone(k.school), strings.Clone(k.class), strings.Clone(k.period)}
		l.groups = append(l.groups, k)
		l.index[k] = n
	}
	return int32(n)
}

func (l *ledger) account(id attendance.ReceiptID) *account {
	a := l.accounts[id]
	if a == nil {
		a = &account{group: -1}
		l.accounts[id] = a
	}
	return a
}

func (l *ledger) sum(b book, group int32, n attendance.Number) {
	s := l.sums[b][int(group)]
	if s == nil {
		s = new(attendance.Sum)
		l.sums[b][int(group)] = s
	}
	s.Add(n)
}

// enter writes a row of the store or the export into its book; seq is the
// position of its record, 0 when it does not say.
func (l *ledger) enter(b book, r *attendance.Receipt, key string, seq uint64) {
	a, n, g := l.account(r.ID), r.Number(), l.groupOf(r)
	l.sum(b, g, n)
	if a.has[b] {
		l.differences = append(l.differences, difference{Book: bookNames[b], What: "doubled", Key: key, Detail: "receipt " + r.ID.String() + " is there twice"})
		return
	}
	a.in[b], a.has[b] = briefOf(&n), true
	a.stored = max(a.stored, seq)
	if a.group < 0 {
		a.group = g
	}
}

// readJournal writes the journal's rows of the day into their book, and those
// that lie under a genuine seal into that of receipts.
func (l *ledger) readJournal(r *wal.Reader, keys []attendance.PublicKey) error {
	l.first = r.First()
	s := sealCheck{l: l, keys: keys}
	for rec, err := range r.Records(0) {
		if err != nil {
			return err
		}
		l.last = rec.Seq
		var id attendance.ReceiptID
		if attendance.OfDay(rec.Data, l.date) {
			id = l.record(rec)
		}
		s.record(rec, id)
	}
	s.end()
	l.missing = r.Missing()
	l.closeJournal()
	return nil
}

// record enters one record of the day and returns whose it is.
func (l *ledger) record(rec wal.Record) (id attendance.ReceiptID) {
	e, err := attendance.DecodeEvent(rec.Data)
	if err != nil {
		l.differ(bookJournal, "unreadable", fmt.Sprintf("record %d was written by a newer firstbell: %v", rec.Seq, err))
		return id
	}
	e.Seq = rec.Seq
	row, ok := attendance.RowOf(&e)
	if !ok || l.school != "" && row.School != l.school {
		return id
	}
	a := l.account(row.ID)
	if a.has[bookJournal] && !row.Better(a.decides.row()) {
		return row.ID
	}
	if rec.Seq >= l.asked {
		if !a.has[bookJournal] {
			a.late = true
		} else if a.before == nil {
			was := a.in[bookJournal]
			a.before = &was
		}
	}
	a.journal = row.Receipt.Number()
	a.in[bookJournal], a.has[bookJournal] = briefOf(&a.journal), true
	a.group, a.decides, a.proved = l.groupOf(&row.Receipt), decidingOf(&row), false
	return row.ID
}

func (l *ledger) closeJournal() {
	for _, a := range l.accounts {
		if !a.has[bookJournal] {
			continue
		}
		l.sum(bookJournal, a.group, a.journal)
		if a.proved {
			a.in[bookReceipts], a.has[bookReceipts] = a.in[bookJournal], true
			l.sum(bookReceipts, a.group, a.journal)
		}
	}
}

// sealCheck goes along the journal and checks each seal that covers a record of
// the day.
type sealCheck struct {
	l    *ledger
	keys []attendance.PublicKey

	tree   seal.Tree
	first  uint64 // position of the tree's first leaf
	ours   []owned
	began  uint64 // where numbers went on last after a gap
	sealed bool   // a seal was met: from then on all check-ins lie under one
}

type owned struct {
	id  attendance.ReceiptID
	seq uint64
}

func (s *sealCheck) record(rec wal.Record, id attendance.ReceiptID) {
	if len(rec.Data) > 0 && attendance.Kind(rec.Data[0]) == attendance.KindSeal {
		s.seal(rec)
		s.tree.Reset()
		s.ours = s.ours[:0]
		return
	}
	if s.tree.Len() == 0 || rec.Seq != s.first+uint64(s.tree.Len()) {
		if s.tree.Len() > 0 {
			s.began = rec.Seq
		}
		s.tree.Reset()
		s.first = rec.Seq
	}
	s.tree.Add(rec.Data)
	if id != (attendance.ReceiptID{}) {
		s.ours = append(s.ours, owned{id, rec.Seq})
	}
}

// seal checks one seal and notes whose records it proves.
func (s *sealCheck) seal(rec wal.Record) {
	e, err := attendance.DecodeEvent(rec.Data)
	if err != nil {
		s.l.differ(bookReceipts, "seal", fmt.Sprintf("record %d: %v", rec.Seq, err))
		return
	}
	begin := rec.Seq - uint64(e.Seal.Leaves)
	s.uncovered(begin)
	s.sealed = true
	if len(s.ours) == 0 {
		return // of other days
	}
	switch {
	case s.first > begin || s.first+uint64(s.tree.Len()) != rec.Seq:
		s.l.differ(bookReceipts, "seal", fmt.Sprintf("the seal %d covers records %d to %d, and not all of them can be read", rec.Seq, begin, rec.Seq-1))
		return
	case begin > s.first:
		s.tree.DropFirst(int(begin - s.first))
	}
	i := slices.IndexFunc(s.keys, func(k attendance.PublicKey) bool { return k.ID == e.Seal.Key })
	switch {
	case i < 0:
		s.l.differ(bookReceipts, "seal", fmt.Sprintf("the seal %d was made with key %s, whose public half is not there", rec.Seq, e.Seal.Key))
	case !e.Seal.Genuine(s.keys[i].Key):
		s.l.differ(bookReceipts, "seal", fmt.Sprintf("the seal %d is forged: its signature is not that of key %s", rec.Seq, e.Seal.Key))
	case s.tree.Root() != e.Seal.Root:
		s.l.differ(bookReceipts, "seal", fmt.Sprintf("records %d to %d are not what was sealed: one of them was altered", begin, rec.Seq-1))
	default:
		for _, o := range s.ours {
			if a := s.l.accounts[o.id]; o.seq >= begin && a.decides.seq == o.seq {
				a.proved = true
			}
		}
	}
}

// uncovered judges records of the day below a position that no seal covers. What
// a crash cut off had no seal yet, and numbers skip behind it.
func (s *sealCheck) uncovered(begin uint64) {
	for _, o := range s.ours {
		if o.seq >= begin {
			break
		}
		if !s.sealed {
			s.l.unsealed++
			continue
		}
		if o.seq < s.began {
			s.l.torn++
			continue
		}
		s.l.differences = append(s.l.differences, difference{Book: bookNames[bookReceipts], What: "extra", id: o.id, Detail: fmt.Sprintf("record %d lies under no seal: firstbell did not write it", o.seq)})
	}
}

// end judges what lies behind the last seal: a version that does not seal, or an
// append that is under way.
func (s *sealCheck) end() {
	if !s.sealed {
		s.uncovered(s.l.last + 1)
	}
}

// compare finds what does not agree between journal and a book that is filled
// from it. reaches says that the journal goes back to the day's beginning.
func (l *ledger) compare(b book, reaches bool) (waiting int) {
	for id, a := range l.accounts {
		d := difference{Book: bookNames[b], id: id}
		late := a.late || a.before != nil
		switch {
		case a.has[b] && !a.has[bookJournal]:
			lost := slices.ContainsFunc(l.missing, func(m wal.Range) bool { return m.From <= a.stored && a.stored <= m.To })
			switch {
			case lost && b == bookStore:
				d.Book, d.What, d.Detail = bookNames[bookJournal], "missing", fmt.Sprintf("record %d cannot be read; the store has it", a.stored)
			case lost || !reaches:
				continue
			default:
				d.What, d.Detail = "extra", "the journal has no such check-in"
			}
		case !a.has[b] && a.has[bookJournal]:
			if a.late {
				waiting++
				continue
			}
			d.What = "missing"
			d.Detail = fmt.Sprintf("record %d of the journal", a.decides.seq)
		case !a.has[b] || a.in[b] == a.in[bookJournal]:
			continue
		case late && (a.before == nil || a.in[b] == *a.before):
			waiting++
			continue
		default:
			d.What = "altered"
		}
		l.differences = append(l.differences, d)
	}
	return waiting
}

// total is what a book comes to.
func (l *ledger) total(b book) attendance.Sum {
	var all attendance.Sum
	for _, s := range l.sums[b] {
		all.AddSum(*s)
	}
	return all
}

// groupLine is what the books say of one school's class in one period.
type groupLine struct {
	School string              `json:"school"`
	Class  string              `json:"class_id"`
	Period string              `json:"period"`
	Agree  bool                `json:"agree"`
	Sums   map[string]sumShown `json:"books"`
}

type sumShown struct {
	Rows   uint64 `json:"rows"`
	Digest string `json:"digest"`
}

func shown(s attendance.Sum) sumShown { return sumShown{s.Rows, fmt.Sprintf("%x", s.Digest)} }

// lines are the groups, ordered by school, class and period. filled are the
// books that could be read.
func (l *ledger) lines(filled []book) []groupLine {
	lines := []groupLine{}
	for _, k := range slices.SortedFunc(maps.Keys(l.index), func(a, b groupKey) int {
		return cmp.Or(strings.Compare(a.school, b.school), strings.Compare(a.class, b.class), strings.Compare(a.period, b.period))
	}) {
		line := groupLine{School: k.school, Class: k.class, Period: k.period, Agree: true, Sums: map[string]sumShown{}}
		var first attendance.Sum
		for i, b := range filled {
			var s attendance.Sum
			if p := l.sums[b][l.index[k]]; p != nil {
				s = *p
			}
			if i == 0 {
				first = s
			}
			line.Agree = line.Agree && s == first
			line.Sums[bookNames[b]] = shown(s)
		}
		lines = append(lines, line)
	}
	return lines
}
