package proxy

import (
	"runtime"
	"sync/atomic"
	"time"

	"firstbell/cache"
	"firstbell/proxy/field"
)

// decoders bound what it may cost that stored content is decoded for each client
// who refuses its coding: where there is no decoded variant, as memory never
// holds what is large and on disk.
type decoders struct {
	turns   chan struct{} // places for those that use a processor at this moment
	bytes   atomic.Int64  // what all that are under way may hold
	refused atomic.Int64
}

// decodersBytesMax is room for 2,048 clients who read gzip decoded, the coding
// that origins are asked for.
const decodersBytesMax = 256 << 20

// decoderBytes are what a decoder may hold, by coding: its largest window and
// half as much for what else it keeps.
var decoderBytes = [cache.Codings]int64{cache.Gzip: 128 << 10, cache.Zstd: zstdWindowMax * 3 / 2, cache.Brotli: 16 << 20 * 3 / 2}

// newDecoders has half of the processors decode, one at least: the others are
// for those who take what is stored.
func newDecoders() *decoders {
	return &decoders{turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// decode returns body, which is stored in the coding, decoded; nil when too much
// is being decoded already. The source must be closed.
func (d *decoders) decode(c cache.Coding, body source) source {
	if d.bytes.Add(decoderBytes[c]) > decodersBytesMax {
		d.bytes.Add(-decoderBytes[c])
		d.refused.Add(1)
		return nil
	}
	return &storedDecoded{decodedSource{from: body, coding: c}, d}
}

// storedDecoded is stored content, decoded in turn with others'.
type storedDecoded struct {
	decodedSource
	of *decoders
}

// Next implements source. What is stored is there: nobody has the turn who waits
// for an origin, or for a client.
func (s *storedDecoded) Next() ([]byte, error) {
	s.of.turns <- struct{}{}
	defer func() { <-s.of.turns }()
	return s.decodedSource.Next()
}

// Close implements source.
func (s *storedDecoded) Close() {
	s.decodedSource.Close()
	s.of.bytes.Add(-decoderBytes[s.coding])
}

// sendStoredDecoded answers with a stored response that the client does not take
// as it is stored.
func (p *Proxy) sendStoredDecoded(x *exchange, s *cache.Stored) {
	fields := withAge(cache.CodedFields(s.Fields, cache.Identity), x)
	if x.method == "HEAD" {
		x.out.stream(x, s.Status, fields, -1, &pieceSource{})
		return
	}
	body := x.contentOf(s).part(0, s.Length())
	decoded := p.decoders.decode(s.Coding(), body)
	if decoded == nil {
		body.Close()
		x.outcome = outcomeBusy
		p.problem(x, 503, "too much is being decompressed at this moment; please wait a little, or accept "+s.Coding().String(), field.List{retryAfter(5 * time.Second)})
		return
	}
	x.out.stream(x, s.Status, fields, -1, decoded)
}
