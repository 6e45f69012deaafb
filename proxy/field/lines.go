package field

import "iter"

// Lines are field lines as they were received, in order. They implement Fields.
// The zero Lines hold none and are ready for use.
type Lines struct {
	lines []line
	seen  uint64 // which marks the names have
	all   [][]byte
}

type line struct{ name, value []byte }

// Reset takes all lines out.
func (l *Lines) Reset() { l.lines, l.seen, l.all = l.lines[:0], 0, l.all[:0] }

// Add adds a line, whose name is not empty. Nothing is copied.
func (l *Lines) Add(name, value []byte) {
	l.lines = append(l.lines, line{name, value})
	l.seen |= mark(name)
}

// Peek returns the value of the first line with the name, nil when there is
// none or it is empty.
func (l *Lines) Peek(name string) []byte {
	if l.seen&mark(name) == 0 {
		return nil
	}
	for i := range l.lines {
		if l := &l.lines[i]; EqualName(l.name, name) {
			if len(l.value) == 0 {
				return nil
			}
			return l.value
		}
	}
	return nil
}

// PeekAll returns the value of every line with the name, valid until the next
// call.
func (l *Lines) PeekAll(name string) [][]byte {
	l.all = l.all[:0]
	if l.seen&mark(name) == 0 {
		return l.all
	}
	for i := range l.lines {
		if at := &l.lines[i]; EqualName(at.name, name) {
			l.all = append(l.all, at.value)
		}
	}
	return l.all
}

// All yields every line in order, as received.
func (l *Lines) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for _, l := range l.lines {
			if !yield(l.name, l.value) {
				return
			}
		}
	}
}

// Len is how many lines there are, and Line one of them: All without a closure.
func (l *Lines) Len() int { return len(l.lines) }

// Line returns line i of 0 to Len()-1.
func (l *Lines) Line(i int) (name, value []byte) { return l.lines[i].name, l.lines[i].value }

// mark is a bit for a name, so that asking for one that is not there costs
// nearly nothing: most of what a proxy asks for is not there.
func mark[T string | []byte](name T) uint64 {
	return 1 << ((uint(len(name))*7 + uint(name[0]|0x20) + uint(name[len(name)-1]|0x20)*3) & 63)
}
