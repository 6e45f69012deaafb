package attendance

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// What rows come to is a count and a sum that do not depend on their order, so
// that journal, store and export can be held against each other, whole or in
// parts, and by anybody: the sums of parts add up to the sum of all.
//
// A row's line is these nine texts, joined by tabs, in UTF-8, without a line end:
//
//	receipt  student_id  school  class_id  date  period  first_arrival  status  verified
//
// as the receipt and the export write them: date 2006-01-02, first_arrival
// 2006-01-02T15:04:05.000+09:00, verified true or false. A row's number is
// SHA-256 of its line, read as 256 bits with the most significant first. The
// digest is the sum of the numbers modulo 2^256, as 64 hexadecimal digits. So,
// with an export as JSON Lines:
//
//	import hashlib, json, sys
//	names = "receipt student_id school class_id date period first_arrival status".split()
//	total = rows = 0
//	for text in sys.stdin:
//	    r = json.loads(text)
//	    if r["receipt"]:  # absent students have none
//	        line = "\t".join([r[n] for n in names] + [str(r["verified"]).lower()])
//	        total += int(hashlib.sha256(line.encode()).hexdigest(), 16)
//	        rows += 1
//	print(rows, "%064x" % (total % 2**256))

// Sum is what some rows come to.
type Sum struct {
	Rows   uint64
	Digest [sha256.Size]byte
}

// String returns the count and the digest in text.
func (s Sum) String() string { return fmt.Sprintf("%d %s", s.Rows, hex.EncodeToString(s.Digest[:])) }

// Number is what one row adds to a Sum.
type Number [sha256.Size]byte

// AppendLine appends the row's line as it is hashed.
func (r *Receipt) AppendLine(dst []byte) []byte {
	dst = append(r.ID.append(dst), '\t')
	for _, s := range [...]string{r.Student, r.School, r.Class} {
		dst = append(append(dst, s...), '\t')
	}
	dst = append(appendDate(dst, r.Date), '\t')
	dst = append(append(dst, r.Period...), '\t')
	dst = append(appendTime(dst, r.FirstArrival), '\t')
	dst = append(append(dst, r.Status...), '\t')
	if r.Verified {
		return append(dst, "true"...)
	}
	return append(dst, "false"...)
}

// Number returns what the receipt's row adds to a Sum.
func (r *Receipt) Number() Number {
	var room [512]byte
	return sha256.Sum256(r.AppendLine(room[:0]))
}

// Add counts one row.
func (s *Sum) Add(n Number) {
	s.Rows++
	s.add(&n)
}

// AddSum counts the rows of another Sum.
func (s *Sum) AddSum(o Sum) {
	s.Rows += o.Rows
	s.add((*Number)(&o.Digest))
}

func (s *Sum) add(n *Number) {
	be, carry := binary.BigEndian, uint64(0)
	for at := sha256.Size - 8; at >= 0; at -= 8 {
		var word uint64
		word, carry = bits.Add64(be.Uint64(s.Digest[at:]), be.Uint64(n[at:]), carry)
		be.PutUint64(s.Digest[at:], word)
	}
}
