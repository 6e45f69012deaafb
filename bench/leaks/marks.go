package leaks

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
)

// A content is made of cells of 16 bytes: whose it is, and which cell of it.
//
//	R0000abcd.00012;
const (
	cellBytes = 16
	hexDigits = "0123456789abcdef"
)

// appendCells appends the bytes from and up to (exclusive) of the content of a
// representation.
func appendCells(dst []byte, rep uint32, from, to int) []byte {
	var cell [cellBytes]byte
	fillCell(&cell, rep)
	number(&cell, from/cellBytes)
	for at := from; at < to; {
		begin := at % cellBytes
		end := min(cellBytes, begin+to-at)
		dst = append(dst, cell[begin:end]...)
		at += end - begin
		next(&cell)
	}
	return dst
}

// number writes which cell it is.
func number(cell *[cellBytes]byte, n int) {
	for i := 14; i >= 10; i-- {
		cell[i] = hexDigits[n&15]
		n >>= 4
	}
}

// next makes it the cell behind.
func next(cell *[cellBytes]byte) {
	for i := 14; i >= 10; i-- {
		switch cell[i]++; cell[i] {
		case '9' + 1:
			cell[i] = 'a'
			return
		case 'f' + 1:
			cell[i] = '0'
		default:
			return
		}
	}
}

func fillCell(cell *[cellBytes]byte, rep uint32) {
	cell[0], cell[9], cell[15] = 'R', '.', ';'
	for i := 8; i >= 1; i-- {
		cell[i] = hexDigits[rep&15]
		rep >>= 4
	}
}

// repsIn lists the representations of which a content holds cells, in the order
// of their first appearance, at most a few.
func repsIn(content []byte) (reps []uint32) {
	for at := 0; len(reps) < 4; {
		i := bytes.IndexByte(content[at:], 'R')
		if i < 0 || at+i+9 > len(content) {
			return reps
		}
		at += i + 1
		n, err := strconv.ParseUint(string(content[at:at+8]), 16, 32)
		if err != nil {
			continue
		}
		known := false
		for _, r := range reps {
			known = known || r == uint32(n)
		}
		if !known {
			reps = append(reps, uint32(n))
		}
	}
	return reps
}

// appendGzip appends content in the gzip coding, not made any smaller: the
// same content has the same coded bytes, at next to no cost.
func appendGzip(dst, content []byte) []byte {
	dst = append(dst, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255)
	sum, size := crc32.ChecksumIEEE(content), uint32(len(content))
	for {
		n := min(len(content), 1<<16-1)
		last := byte(0)
		if n == len(content) {
			last = 1
		}
		dst = append(dst, last, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		dst = append(dst, content[:n]...)
		if content = content[n:]; last == 1 {
			break
		}
	}
	return append(dst, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24),
		byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
}

// gzipBytes is the length of appendGzip's work.
func gzipBytes(size int) int { return size + 18 + 5*max(1, (size+1<<16-2)/(1<<16-1)) }

// mark is the number of a served response as a field's value.
func mark(serial uint32) string { return fmt.Sprintf("%08x", serial) }

func readMark(s string) (serial uint32, ok bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err == nil && len(s) == 8
}
