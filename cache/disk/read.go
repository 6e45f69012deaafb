package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Record is an open record. It stays readable when it is evicted or removed
// meanwhile. Its methods may be called at once; nobody changes its bytes.
type Record struct {
	Meta
	Seq    uint64
	Stored time.Time // when
	Length int64     // of the content

	// Attached is the caller's: it lives as long as the record is open.
	Attached atomic.Pointer[any]

	s     *Store
	k     slot
	front front
	file  File
	refs  atomic.Int32

	tableRead sync.Once
	tableErr  error
	table     []byte
	verified  []atomic.Uint64 // a bit for each block
}

// openMin is from which content on a record is kept open for the next reader:
// smaller ones are read whole and go to memory.
const openMin = 1 << 20

// opened holds large records that were read lately, so that their blocks are
// not verified again for each reader. 128 of them are more films than a school
// watches at once, and few of the files that a process may open.
type opened struct {
	mu      sync.Mutex // guards all
	drops   uint64     // counts what a reader may have missed
	records map[uint64]*Record
	order   []*Record // the least lately opened first
}

const openedMax = 128

// Open opens a record that Find named, and counts it as used. The error is
// ErrNotFound when it is gone, or is not what was written: then it is taken
// away. The record must be released.
func (s *Store) Open(key []byte, ref Ref) (*Record, error) {
	if r := s.opened.get(ref.Seq); r != nil {
		if string(r.Key) == string(key) {
			s.touch(&r.k)
			return r, nil
		}
		r.Release()
	}
	k := slot{key: digestOf(key), seq: ref.Seq, variant: ref.Variant, units: units(ref.Bytes)}
	drops := s.opened.dropped()
	r, err := s.read(&k)
	if err == nil && string(r.Key) != string(key) {
		r.Release()
		err = s.alarm(&k, errForeign)
	}
	if err != nil {
		return nil, err
	}
	s.touch(&k)
	if r.Length >= openMin {
		s.opened.add(r, drops)
	}
	return r, nil
}

func (k *slot) touch() {
	k.used = nowSeconds()
	if k.uses < usesMax {
		k.uses++
	}
}

// read opens a record and checks its front.
func (s *Store) read(k *slot) (*Record, error) {
	sh := &s.shards[shardOf(k.key)]
	file, err := s.fs.Open(sh.path(s.dir, k), false)
	if err != nil {
		return nil, s.alarm(k, err)
	}
	r := &Record{s: s, k: *k, file: file}
	r.refs.Store(1)
	if r.front, err = readFront(file); err == nil {
		err = r.front.isNamed(k)
	}
	if err != nil {
		r.Release()
		return nil, s.alarm(k, err)
	}
	r.Meta, r.Seq, r.Length = r.front.meta, r.front.seq, r.front.length
	r.Stored = time.Unix(0, int64(r.Seq))
	r.verified = make([]atomic.Uint64, (r.front.blocks()+63)/64)
	return r, nil
}

// isNamed reports whether the file is the record that its name says.
func (f *front) isNamed(k *slot) error {
	if f.seq != k.seq || digestOf(f.meta.Key) != k.key || VariantHash(f.meta.Variant) != k.variant {
		return errForeign
	}
	return nil
}

// frontGuess is how much is read at first: enough for the front of most.
const frontGuess = 4096

func readFront(file File) (f front, err error) {
	size, err := file.Size()
	if err != nil {
		return f, err
	}
	b := make([]byte, min(size, frontGuess))
	if err := readFull(file, b, 0); err != nil {
		return f, err
	}
	if f, err = parsePreamble(b, size); err != nil {
		return f, err
	}
	if f.content > int64(len(b)) {
		b = make([]byte, f.content)
		if err := readFull(file, b, 0); err != nil {
			return f, err
		}
	}
	return f, f.parseSlots(b)
}

// readFull reads all of b, or says why not.
func readFull(file File, b []byte, at int64) error {
	n, err := file.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		return errTorn
	}
	return err
}

// alarm counts why a record is no answer, takes it away, and returns an error
// that is ErrNotFound. What is only gone is no alarm.
func (s *Store) alarm(k *slot, why error) error {
	c := &s.counts
	switch {
	case errors.Is(why, fs.ErrNotExist):
	case errors.Is(why, errTorn):
		c.torn.Add(1)
	case errors.Is(why, errDamaged):
		c.damaged.Add(1)
	case errors.Is(why, errForeign):
		c.foreign.Add(1)
	default:
		c.failedReads.Add(1)
		if errors.Is(why, syscall.EMFILE) || errors.Is(why, syscall.ENFILE) {
			return fmt.Errorf("%w: %w", ErrNotFound, why) // it is not the record's fault
		}
	}
	s.remove(k.key, func(_ uint32, seq uint64) bool { return seq == k.seq })
	return fmt.Errorf("%w: %s: %w", ErrNotFound, k.fileName(), why)
}

// Blocks returns the number of blocks of the content.
func (r *Record) Blocks() int { return int(r.front.blocks()) }

// blockLen is the length of block i.
func (r *Record) blockLen(i int) int64 {
	return min(BlockBytes, r.Length-int64(i)*BlockBytes)
}

// Bytes returns the content, verified, in memory of its own. It is meant for
// small ones.
func (r *Record) Bytes() ([]byte, error) {
	b := make([]byte, r.Length+r.front.blocks()*digestBytes)
	if err := readFull(r.file, b, r.front.content); err != nil {
		return nil, r.s.alarm(&r.k, err)
	}
	table := b[r.Length:]
	if digestOf(table) != r.front.table {
		return nil, r.s.alarm(&r.k, errDamaged)
	}
	for i := range r.Blocks() {
		at := int64(i) * BlockBytes
		if err := r.check(i, b[at:at+r.blockLen(i)], table); err != nil {
			return nil, err
		}
	}
	return b[:r.Length:r.Length], nil
}

// check compares a block with its digest.
func (r *Record) check(i int, block, table []byte) error {
	d := digestOf(block)
	if string(d[:]) != string(table[i*digestBytes:][:digestBytes]) {
		return r.s.alarm(&r.k, errDamaged)
	}
	r.verified[i/64].Or(1 << (i % 64))
	return nil
}

// Block reads block i into buf, which has room for BlockBytes, verified. After
// an error the record is no more: what was sent of it was true, and what
// follows cannot be had from here.
func (r *Record) Block(i int, buf []byte) ([]byte, error) {
	if i < 0 || i >= r.Blocks() {
		return nil, io.EOF
	}
	block := buf[:r.blockLen(i)]
	if err := readFull(r.file, block, r.front.content+int64(i)*BlockBytes); err != nil {
		return nil, r.s.alarm(&r.k, err)
	}
	if r.isVerified(i) {
		return block, nil
	}
	return block, r.verify(i, block)
}

func (r *Record) isVerified(i int) bool { return r.verified[i/64].Load()&(1<<(i%64)) != 0 }

func (r *Record) verify(i int, block []byte) error {
	r.tableRead.Do(func() {
		r.table = make([]byte, r.front.blocks()*digestBytes)
		r.tableErr = readFull(r.file, r.table, r.front.content+r.Length)
		if r.tableErr == nil && digestOf(r.table) != r.front.table {
			r.tableErr = errDamaged
		}
	})
	if r.tableErr != nil {
		return r.s.alarm(&r.k, r.tableErr)
	}
	return r.check(i, block, r.table)
}

// File returns the file, if it is one of the system's, and where in it content
// of block i begins, once the block is verified: for who can send it without
// reading it. It returns nil when it is no such file.
func (r *Record) File(i int) (file *os.File, at int64, err error) {
	of, ok := r.file.(interface{ SystemFile() *os.File })
	if !ok {
		return nil, 0, nil
	}
	if !r.isVerified(i) {
		buf := verifyBufs.Get().(*[]byte)
		defer verifyBufs.Put(buf)
		if _, err := r.Block(i, *buf); err != nil {
			return nil, 0, err
		}
	}
	return of.SystemFile(), r.front.content + int64(i)*BlockBytes, nil
}

var verifyBufs = sync.Pool{New: func() any { b := make([]byte, BlockBytes); return &b }}

// Retain makes one more Release necessary.
func (r *Record) Retain() { r.refs.Add(1) }

// Release lets go of the record; the last one closes its file.
func (r *Record) Release() {
	if r.refs.Add(-1) == 0 {
		_ = r.file.Close() // it was only read
	}
}

// get returns the open record, retained, or nil.
func (o *opened) get(seq uint64) *Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[seq]
	if r != nil {
		r.Retain()
		for i := range o.order {
			if o.order[i] == r {
				copy(o.order[i:], o.order[i+1:])
				o.order[len(o.order)-1] = r
				break
			}
		}
	}
	return r
}

func (o *opened) dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drops
}

// add keeps r for the next reader, unless another was first, or some record
// was dropped since r was read: it may be this one, with another head by now.
func (o *opened) add(r *Record, drops uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.records[r.Seq] != nil || o.drops != drops {
		return
	}
	if len(o.order) == openedMax {
		o.dropLocked(o.order[0])
	}
	r.Retain()
	o.records[r.Seq] = r
	o.order = append(o.order, r)
}

func (o *opened) drop(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops++
	if r := o.records[seq]; r != nil {
		o.dropLocked(r)
	}
}

func (o *opened) dropLocked(r *Record) {
	delete(o.records, r.Seq)
	for i := range o.order {
		if o.order[i] == r {
			o.order = append(o.order[:i], o.order[i+1:]...)
			break
		}
	}
	r.Release()
}

func (o *opened) closeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.order) > 0 {
		o.dropLocked(o.order[0])
	}
}

// Update puts another head in the place of the record's. It reports false, and
// the record is as it was, when the record is gone or the head has no room:
// then the caller stores it anew or removes it.
func (s *Store) Update(key []byte, ref Ref, head []byte) (bool, error) {
	if s.paused() {
		return false, ErrPaused
	}
	d := digestOf(key)
	sh := &s.shards[shardOf(d)]
	k := slot{key: d, seq: ref.Seq, variant: ref.Variant, units: units(ref.Bytes)}
	sh.mu.Lock()
	there := sh.findLocked(d, ref.Seq) >= 0
	sh.mu.Unlock()
	if !there {
		return false, nil
	}
	sh.updating.Lock()
	defer sh.updating.Unlock()
	file, err := s.fs.Open(sh.path(s.dir, &k), true)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		s.trouble(err)
		return false, fmt.Errorf("updating a record: %w", err)
	}
	defer file.Close()
	f, err := readFront(file)
	if err == nil {
		err = f.isNamed(&k)
	}
	if err == nil && string(f.meta.Key) != string(key) {
		err = errForeign
	}
	if err != nil {
		return false, s.alarm(&k, err)
	}
	f.meta.Head = head
	f.generation++
	b := f.encodeSlot(nil)
	if int64(len(b)) > f.slot {
		return false, nil
	}
	if !s.gate.enter() {
		return false, ErrPaused
	}
	n, err := file.WriteAt(b, preambleBytes+int64(1-f.at)*f.slot)
	s.gate.leave()
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		s.trouble(err)
		return false, fmt.Errorf("updating a record: %w", err)
	}
	s.opened.drop(ref.Seq)
	s.counts.updated.Add(1)
	return true, nil
}
