package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func nowSeconds() uint32 { return uint32(time.Now().Unix()) }

// A Writer writes one record. Write and Commit belong to one goroutine; ReadAt
// may be called by many at once. Either Commit or Discard must be called. What
// was written can be read as long as somebody retains the writer, whatever
// becomes of the record.
type Writer struct {
	s       *Store
	sh      *shard
	key     digest
	variant uint32

	removed bool          // guarded by sh.mu: the key was removed meanwhile
	landing chan struct{} // guarded by sh.mu: set while Commit gives the record its name

	front front
	tmp   string
	units int64 // reserved of the budget
	table []byte
	refs  atomic.Int32

	mu   sync.Mutex // guards what follows, but for its one writer, against ReadAt
	file File
	buf  []byte // the front, until it is written, and the block that fills
	head int    // bytes of buf that are the front
	done int64  // content bytes in the file
	err  error
}

// blockBufs are the buffers of writers.
var blockBufs = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// Begin begins a record. From here on Remove of its key reaches it. m belongs
// to the store afterwards. No file is made before a block is full.
func (s *Store) Begin(m Meta) (*Writer, error) {
	if s.paused() || s.gate.isShut() {
		s.counts.refused.Add(1)
		return nil, ErrPaused
	}
	slot, content, err := sizes(&m)
	if err != nil {
		s.counts.refused.Add(1)
		return nil, fmt.Errorf("storing on disk: %w", err)
	}
	w := &Writer{s: s, key: digestOf(m.Key), variant: VariantHash(m.Variant), head: int(content)}
	w.front = front{content: content, slot: slot, meta: m}
	w.buf = append((*blockBufs.Get().(*[]byte))[:0], make([]byte, content)...)
	w.sh = &s.shards[shardOf(w.key)]
	w.refs.Store(1)
	s.load(w.sh)
	w.sh.mu.Lock()
	w.sh.writers = append(w.sh.writers, w)
	w.sh.mu.Unlock()
	return w, nil
}

// Write appends to the content. After an error the writer can only be
// discarded.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) && w.err == nil {
		room := BlockBytes - (len(w.buf) - w.head)
		piece := p[n:min(len(p), n+room)]
		w.mu.Lock()
		w.buf = append(w.buf, piece...)
		w.mu.Unlock()
		n += len(piece)
		if len(piece) == room {
			w.err = w.flush()
		}
	}
	return n, w.err
}

// Size returns how many bytes of content were written.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done + int64(len(w.buf)-w.head)
}

// flush writes the block in the buffer, which is full, or the last.
func (w *Writer) flush() error {
	block := w.buf[w.head:]
	if len(block) == 0 {
		return nil
	}
	if w.done/BlockBytes >= blocksMax {
		return fmt.Errorf("a content of more than %d bytes", w.done)
	}
	if err := w.open(w.front.content + w.done + int64(len(block)) + int64(len(w.table)) + 2*digestBytes); err != nil {
		return err
	}
	d := digestOf(block)
	w.table = append(w.table, d[:]...)
	at := w.front.content + w.done
	if w.head > 0 {
		at = 0
	}
	if err := w.writeAt(w.buf, at); err != nil {
		return err
	}
	w.mu.Lock()
	w.done += int64(len(block))
	w.buf, w.head = w.buf[:0], 0
	w.mu.Unlock()
	return nil
}

// open makes the file, and room for bytes of it in all.
func (w *Writer) open(bytes int64) error {
	need := int64(units(bytes))
	if w.file != nil && w.s.paused() {
		return ErrPaused // the file system ran short while this one was streamed
	}
	if need > w.units {
		if w.units > 0 {
			need += 15 // a MiB at a time
		}
		if need > w.s.budget/4 {
			w.s.counts.refused.Add(1)
			return fmt.Errorf("a record of %d bytes: at most a quarter of the %d on disk", bytes, w.s.budget*unitBytes)
		}
		w.s.units.Add(need - w.units)
		w.units = need
		if !w.s.makeRoom() {
			w.s.counts.refused.Add(1)
			return errors.New("no room can be made")
		}
	}
	if w.file != nil {
		return nil
	}
	w.tmp = filepath.Join(w.s.dir, "tmp", strconv.FormatUint(w.s.temps.Add(1), 16))
	f, err := w.s.fs.Create(w.tmp)
	if err != nil {
		w.tmp = ""
		w.s.trouble(err)
		return err
	}
	w.mu.Lock()
	w.file = f
	w.mu.Unlock()
	return nil
}

// writeAt writes all of p, or says why not.
func (w *Writer) writeAt(p []byte, at int64) error {
	n, err := w.file.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.s.trouble(err)
	}
	return err
}

// ReadAt reads content that was written, for those who follow while it is
// written. io.EOF means that there is no more yet. The caller retains the
// writer.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	if off >= w.done {
		defer w.mu.Unlock()
		block := w.buf[w.head:]
		if off-w.done >= int64(len(block)) {
			return 0, io.EOF
		}
		return copy(p, block[off-w.done:]), nil
	}
	n, file := min(int64(len(p)), w.done-off), w.file
	w.mu.Unlock()
	return file.ReadAt(p[:n], w.front.content+off)
}

// Retain keeps what was written readable until Release is called once more.
func (w *Writer) Retain() { w.refs.Add(1) }

// Release takes a Retain back.
func (w *Writer) Release() {
	if w.refs.Add(-1) > 0 {
		return
	}
	w.mu.Lock()
	buf, file := w.buf[:0], w.file
	w.buf, w.head, w.done = nil, 0, 0
	w.mu.Unlock()
	if file != nil {
		_ = file.Close() // nothing hangs on it any more: a record is read through a file of its own
	}
	if cap(buf) > 0 && cap(buf) <= 2*BlockBytes {
		blockBufs.Put(&buf)
	}
}

// Discard gives the record up.
func (w *Writer) Discard() {
	w.sh.mu.Lock()
	w.sh.forgetLocked(w)
	w.sh.mu.Unlock()
	_ = w.clear(nil)
}

// clear removes the file, gives back what was reserved, and returns err.
func (w *Writer) clear(err error) error {
	if w.tmp != "" {
		if err := w.s.fs.Remove(w.tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.s.counts.failedWrites.Add(1) // Open removes it
		}
	}
	w.s.units.Add(-w.units)
	w.units = 0
	w.Release()
	return err
}

// Commit makes the content a record: from here on Find finds it, in the place
// of the one of the same key and variant. After an error there is no record of
// it, and the one before is as it was.
func (w *Writer) Commit() (Ref, error) {
	err := w.err
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		w.Discard()
		return Ref{}, fmt.Errorf("storing on disk: %w", err)
	}
	return w.land()
}

// finish brings all of the record into its file.
func (w *Writer) finish() error {
	f := &w.front
	f.length = w.Size()
	whole := w.head > 0 // all of it is in the buffer: it is written at once
	if last := w.buf[w.head:]; len(last) > 0 {
		d := digestOf(last)
		w.table = append(w.table, d[:]...)
	}
	f.table, f.seq = digestOf(w.table), w.s.nextSeq()
	if err := w.open(f.fileBytes()); err != nil {
		return err
	}
	at := f.content + w.done
	if whole {
		at = 0
		f.encode(w.buf[:w.head])
	}
	content := len(w.buf) - w.head
	out := append(w.buf, w.table...)
	if err := w.writeAt(out, at); err != nil {
		return err
	}
	if !whole {
		b := make([]byte, f.content)
		f.encode(b)
		if err := w.writeAt(b, 0); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.done += int64(content)
	w.buf, w.head = out[:0], 0
	w.mu.Unlock()
	return nil
}

// land gives the record its name. The index takes it when it has it, and
// Remove waits for the two.
func (w *Writer) land() (Ref, error) {
	s, sh := w.s, w.sh
	k := slot{key: w.key, seq: w.front.seq, variant: w.variant, units: units(w.front.fileBytes()), used: nowSeconds()}
	sh.mu.Lock()
	if w.removed {
		sh.forgetLocked(w)
		sh.mu.Unlock()
		return Ref{}, w.clear(errRemoved)
	}
	w.landing = make(chan struct{})
	sh.mu.Unlock()
	defer close(w.landing)

	err := s.fs.Rename(w.tmp, sh.path(s.dir, &k))
	if errors.Is(err, fs.ErrNotExist) { // the first of its directory
		if err = s.fs.MkdirAll(sh.dir(s.dir)); err == nil {
			err = s.fs.Rename(w.tmp, sh.path(s.dir, &k))
		}
	}
	var old []slot
	sh.mu.Lock()
	sh.forgetLocked(w)
	removed := w.removed
	if err == nil && !removed {
		old = sh.displaceLocked(&k)
		sh.insertLocked(k)
	}
	sh.mu.Unlock()
	switch {
	case err != nil:
		s.trouble(err)
		return Ref{}, w.clear(fmt.Errorf("storing on disk: %w", err))
	case removed:
		w.tmp = ""
		s.unlink(sh, &k)
		return Ref{}, w.clear(errRemoved)
	}
	s.units.Add(int64(k.units) - w.units)
	s.objects.Add(1)
	for i := range old {
		s.account(&old[i])
		if old[i].seq != k.seq {
			s.opened.drop(old[i].seq)
			s.unlink(sh, &old[i])
		}
	}
	w.Release()
	s.why.Store(nil)
	s.counts.stored.Add(1)
	s.counts.storedBytes.Add(uint64(w.front.fileBytes()))
	return k.ref(), nil
}

// displaceLocked takes out the record that k takes the place of. It is k itself
// where a directory was listed at last while k got its name.
func (sh *shard) displaceLocked(k *slot) (old []slot) {
	sh.eachLocked(k.key, func(_ int, other *slot) bool {
		if other.variant == k.variant {
			old = append(old, *other)
		}
		return true
	})
	for i := range old {
		sh.deleteLocked(sh.findLocked(k.key, old[i].seq))
		k.uses = max(k.uses, old[i].uses)
	}
	return old
}

// Put stores a record whose content is there.
func (s *Store) Put(m Meta, content []byte) (Ref, error) {
	w, err := s.Begin(m)
	if err != nil {
		return Ref{}, err
	}
	_, _ = w.Write(content) // Commit says what became of it
	return w.Commit()
}
