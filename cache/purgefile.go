package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// purgeFile keeps the rules across restarts, a line each:
//
//	firstbell purges 1 FLOOR LATEST
//	1763800000000000 hard "tlesson-17" 5d2c9a01
//	|                |    |            CRC-32C of what stands before it
//	|                |    selector, as a Go string
//	generation       hard or soft
//
// A torn last line was never answered for and counts for nothing. Where
// another line cannot be read, everything stored by now is taken for purged: a
// lost rule must not bring a page back. Methods do
// nothing on a nil file.
type purgeFile struct {
	path string
	f    *os.File // at its end; nil after an error, until rewrite
}

const purgeMagic = "firstbell purges 1 "

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openPurgeFile reads the rules at path, which need not be there, into p, and
// has p write its rules there.
func openPurgeFile(path string, p *purges) error {
	if err := p.readFile(path); err != nil {
		return err
	}
	p.file = &purgeFile{path: path}
	return p.file.rewrite(p.floor, p.latest.Load(), p.rules)
}

// readFile reads the rules at path, which need not be there.
func (p *purges) readFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading what was purged: %w", err)
	}
	if len(text) > 0 {
		p.parse(text)
	}
	return nil
}

// parse takes in the rules of a file.
func (p *purges) parse(text []byte) {
	head, rest, _ := bytes.Cut(text, []byte("\n"))
	latest, damaged := uint64(0), false
	if n, err := fmt.Sscanf(string(head), purgeMagic+"%d %d", &p.floor, &latest); n != 2 || err != nil {
		damaged = true
	}
	for len(rest) > 0 {
		var line []byte
		var whole bool
		line, rest, whole = bytes.Cut(rest, []byte("\n"))
		generation, hard, id, ok := readRule(line)
		if !ok {
			damaged = damaged || whole
			continue
		}
		p.setLocked(id, hard, generation)
		latest = max(latest, generation)
	}
	if damaged {
		p.floor = max(latest+1, uint64(max(0, time.Now().UnixMicro())))
		p.rules = nil
	}
	p.latest.Store(max(latest, p.floor))
}

func readRule(line []byte) (generation uint64, hard bool, id string, ok bool) {
	i := bytes.LastIndexByte(line, ' ')
	if i < 0 {
		return 0, false, "", false
	}
	sum, err := strconv.ParseUint(string(line[i+1:]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[:i], castagnoli) {
		return 0, false, "", false
	}
	number, rest, _ := strings.Cut(string(line[:i]), " ")
	kind, quoted, _ := strings.Cut(rest, " ")
	generation, err = strconv.ParseUint(number, 10, 64)
	id, err2 := strconv.Unquote(quoted)
	return generation, kind == "hard", id, err == nil && err2 == nil && id != "" && (kind == "hard" || kind == "soft")
}

func appendRule(b []byte, generation uint64, hard bool, id string) []byte {
	start := len(b)
	b = strconv.AppendUint(b, generation, 10)
	if hard {
		b = append(b, " hard "...)
	} else {
		b = append(b, " soft "...)
	}
	b = strconv.AppendQuoteToASCII(b, id)
	return fmt.Appendf(b, " %08x\n", crc32.Checksum(b[start:], castagnoli))
}

// append writes rules down and syncs. After an error, the file takes no more
// until rewrite: what follows a torn line would look like damage.
func (f *purgeFile) append(generation uint64, hard bool, ids []string) error {
	if f == nil {
		return nil
	}
	if f.f == nil {
		return fmt.Errorf("writing down what was purged: %s could not be written before", f.path)
	}
	var b []byte
	for _, id := range ids {
		b = appendRule(b, generation, hard, id)
	}
	_, err := f.f.Write(b)
	if err == nil {
		err = f.f.Sync()
	}
	if err != nil {
		_ = f.f.Close() // what matters went wrong before
		f.f = nil
		return fmt.Errorf("writing down what was purged: %w", err)
	}
	return nil
}

// rewrite puts a file with exactly these rules in the place of the old one.
func (f *purgeFile) rewrite(floor, latest uint64, rules map[string]rule) (err error) {
	if f == nil {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing down what was purged: %w", err)
		}
	}()
	if f.f != nil {
		_ = f.f.Close() // every write was synced
		f.f = nil
	}
	to, err := os.OpenFile(f.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "%s%d %d\n", purgeMagic, floor, latest)
	var b []byte
	for id, r := range rules {
		if b = b[:0]; r.hard > 0 {
			b = appendRule(b, r.hard, true, id)
		}
		if r.soft > 0 {
			b = appendRule(b, r.soft, false, id)
		}
		_, _ = w.Write(b) // Flush tells
	}
	if err := errors.Join(w.Flush(), to.Sync(), os.Rename(f.path+".new", f.path), syncDir(filepath.Dir(f.path))); err != nil {
		return errors.Join(err, to.Close())
	}
	f.f = to
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *purgeFile) close() error {
	if f == nil || f.f == nil {
		return nil
	}
	return f.f.Close()
}
