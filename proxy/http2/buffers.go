package http2

import "sync"

const (
	inSmall = 4 << 10
	inLarge = frameMax + inSmall

	// outMax is how much is gathered before who writes more has to wait: four
	// TLS records.
	outMax = 64 << 10
	outCap = outMax + frameMax + 4<<10
	// outLimit is how much there may be with what the connection itself has to
	// say; beyond, nothing is read until some is written.
	outLimit = 2 * outMax

	// dataMax is what a frame carries of content: with its head it fills one
	// TLS record.
	dataMax = frameMax - frameHeadBytes

	pieceBytes = 16 << 10
	pieceSmall = 512
)

// The buffers of connections, held only while something is in them.
var (
	smallIns = sync.Pool{New: func() any { return new([inSmall]byte) }}
	largeIns = sync.Pool{New: func() any { return new([inLarge]byte) }}
	outs     = sync.Pool{New: func() any { return new([outCap]byte) }}
	pieces   = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

	smallPieces = sync.Pool{New: func() any { return new([pieceSmall]byte) }}
)

// takeIn returns a buffer for n bytes at least, inLarge at most.
func takeIn(n int) []byte {
	if n <= inSmall {
		return smallIns.Get().(*[inSmall]byte)[:]
	}
	return largeIns.Get().(*[inLarge]byte)[:]
}

func dropIn(b []byte) {
	switch cap(b) {
	case inSmall:
		smallIns.Put((*[inSmall]byte)(b[:inSmall]))
	case inLarge:
		largeIns.Put((*[inLarge]byte)(b[:inLarge]))
	}
}

func dropOut(b []byte) {
	if cap(b) == outCap { // one that grew for a large header block is left to the collector
		outs.Put((*[outCap]byte)(b[:outCap]))
	}
}

// inbox is content that was received and not read yet.
type inbox struct {
	pieces [][]byte // each of pieceBytes, but for a first one of pieceSmall
	r, w   int      // of the first piece read, of the last one written
	n      int      // bytes in all
}

func (b *inbox) put(p []byte) {
	b.n += len(p)
	for len(p) > 0 {
		last := len(b.pieces) - 1
		if last < 0 || b.w == len(b.pieces[last]) {
			b.pieces = append(b.pieces, takePiece(len(p), last < 0))
			b.w, last = 0, last+1
		}
		n := copy(b.pieces[last][b.w:], p)
		b.w += n
		p = p[n:]
	}
}

func (b *inbox) take(p []byte) (n int) {
	for b.n > 0 && n < len(p) {
		end := len(b.pieces[0])
		if len(b.pieces) == 1 {
			end = b.w
		}
		m := copy(p[n:], b.pieces[0][b.r:end])
		n += m
		b.n -= m
		if b.r += m; b.r == end {
			dropPiece(b.pieces[0])
			b.pieces[0] = nil
			b.pieces = b.pieces[1:]
			b.r = 0
		}
	}
	if b.n == 0 {
		b.w = 0
	}
	return n
}

// drop lets go of all that was not read, and returns how much that was.
func (b *inbox) drop() int {
	n := b.n
	for _, p := range b.pieces {
		dropPiece(p)
	}
	*b = inbox{}
	return n
}

// takePiece returns room for content: little for n bytes that come alone, as
// they do from who trickles.
func takePiece(n int, alone bool) []byte {
	if alone && n <= pieceSmall {
		return smallPieces.Get().(*[pieceSmall]byte)[:]
	}
	return pieces.Get().(*[pieceBytes]byte)[:]
}

func dropPiece(p []byte) {
	if len(p) == pieceSmall {
		smallPieces.Put((*[pieceSmall]byte)(p))
		return
	}
	pieces.Put((*[pieceBytes]byte)(p))
}
