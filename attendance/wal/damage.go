package wal

import (
	"fmt"
	"path/filepath"
)

// DamageKind says what became of a stretch of the journal.
type DamageKind int

const (
	// Torn: the end of the last Append before a crash. It was not acknowledged;
	// it is cut. Nothing to do.
	Torn DamageKind = iota + 1
	// Unknown: an Append failed here. Its caller was told so; what reached the
	// disk belongs to nobody and is not read.
	Unknown
	// Damaged: bytes that had been acknowledged cannot be read. They were set
	// aside, the numbers From to To are missing.
	Damaged
	// Gone: a later segment says that numbers From to To were acknowledged, and
	// the file that held them is not there, or is shorter.
	Gone
	// Overlap: a segment holds numbers that another one also holds, as when a
	// spare directory was away for a while. Both are read.
	Overlap
	// Unreadable: the file of a segment is there and cannot be opened, or not be
	// read at all, as when its mode or the disk forbids it. The numbers From to To
	// are missing as long as that is so. The file is never removed: it may be
	// readable another day.
	Unreadable
)

func (k DamageKind) String() string {
	switch k {
	case Torn:
		return "torn tail"
	case Unknown:
		return "unknown tail"
	case Damaged:
		return "damaged"
	case Gone:
		return "gone"
	case Overlap:
		return "overlap"
	case Unreadable:
		return "unreadable"
	}
	return fmt.Sprintf("DamageKind(%d)", int(k))
}

// Damage is one stretch of the journal that is not as it was written.
type Damage struct {
	Kind          DamageKind
	Segment       string // path of the file
	Offset, Bytes int64  // where in the file
	// From and To are the first and the last sequence number that is missing.
	// Both 0: none, or none that can be named.
	From, To uint64
	SetAside string // the file that holds a copy of the bytes, if there is one
	Detail   string // why, in words
}

// Alarm says whether acknowledged records may be missing.
func (d Damage) Alarm() bool { return d.Kind >= Damaged }

func (d Damage) String() string {
	s := fmt.Sprintf("%s: %s: %d bytes at %d", filepath.Base(d.Segment), d.Kind, d.Bytes, d.Offset)
	if d.From != 0 {
		s += fmt.Sprintf(", records %d to %d", d.From, d.To)
	}
	if d.Detail != "" {
		s += " (" + d.Detail + ")"
	}
	return s
}

// Range is sequence numbers, both ends included.
type Range struct{ From, To uint64 }

// missing gives the numbers that may have been acknowledged and cannot be read.
func missing(damages []Damage) []Range {
	var out []Range
	for _, d := range damages {
		if d.Alarm() && d.From != 0 && d.Kind != Overlap {
			out = append(out, Range{d.From, d.To})
		}
	}
	return out
}
