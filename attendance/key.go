package attendance

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"sync"

	"firstbell/attendance/timetable"
)

// What is hashed, always with HMAC-SHA256 and the site secret. A text is its
// length as an unsigned varint, then its bytes, so that no two inputs look
// alike; the first byte keeps the uses apart. Numbers are little-endian.
//
//	key       1 | school text | day, 4 bytes | period text | student text | 0
//	key       1 | school text | day, 4 bytes | period text | student text | 1 | class text
//	token     2 | first arrival, ms, 8 bytes | digest of the key, 8 bytes
//	attempt   3 | school text | student text | attempt text
//	collected 4 | school text | path text | key text
//	session   5 | credential text
//	contradiction 6 | day, 4 bytes | school text | student text | field text | claimed text
//
// Of a key's 32 bytes, the first 16 become the receipt (with version 8 and the
// variant of RFC 9562 set; so with what is collected or contradicted), the next 8 the digest by which refused presses are
// remembered. Of a token's, the first 16 sign it; of an attempt's, the first 8
// stand for it.
const (
	domainKey     = 1
	domainToken   = 2
	domainAttempt = 3
	domainCollect = 4
	domainSession = 5

	domainContradiction = 6
)

// A token is base64url, without padding, of:
//
//	0             8             16                  32
//	+-------------+-------------+-------------------+
//	| ms          | digest of   | first 16 bytes    |
//	|             | key/session | of the HMAC       |
//	+-------------+-------------+-------------------+
const (
	tokenBytes     = 32
	tokenTextBytes = (tokenBytes*8 + 5) / 6
)

// hasher owns one HMAC state. Its Reset restores the state that the secret
// leaves, so the secret is hashed once per hasher.
type hasher struct {
	mac hash.Hash
	in  []byte
	sum [sha256.Size]byte
}

// hashers hands out hashers for one secret.
type hashers struct{ pool sync.Pool }

func newHashers(s Secret) *hashers {
	return &hashers{pool: sync.Pool{New: func() any {
		return &hasher{mac: hmac.New(sha256.New, s.key[:]), in: make([]byte, 0, 256)}
	}}}
}

func (hs *hashers) get() *hasher  { return hs.pool.Get().(*hasher) }
func (hs *hashers) put(h *hasher) { hs.pool.Put(h) }

func (h *hasher) text(s string) {
	h.in = binary.AppendUvarint(h.in, uint64(len(s)))
	h.in = append(h.in, s...)
}

// digest hashes h.in into h.sum.
func (h *hasher) digest() {
	h.mac.Reset()
	h.mac.Write(h.in)
	h.mac.Sum(h.sum[:0])
}

// key returns the receipt and the digest of a key. class is the class where it
// belongs to the key, else classIsKey is false.
func (h *hasher) key(school string, date timetable.Date, period, student string, classIsKey bool, class string) (id ReceiptID, digest uint64) {
	h.in = append(h.in[:0], domainKey)
	h.text(school)
	h.in = binary.LittleEndian.AppendUint32(h.in, uint32(dayNumber(date)))
	h.text(period)
	h.text(student)
	if classIsKey {
		h.in = append(h.in, 1)
		h.text(class)
	} else {
		h.in = append(h.in, 0)
	}
	h.digest()
	return h.receipt(), binary.LittleEndian.Uint64(h.sum[16:])
}

// receipt is the id that the digest makes.
func (h *hasher) receipt() ReceiptID {
	id := ReceiptID(h.sum[:16])
	id[6] = id[6]&0x0f | 0x80 // version 8
	id[8] = id[8]&0x3f | 0x80 // variant 10
	return id
}

// collected returns the receipt of what was collected under a key.
func (h *hasher) collected(school, path, key string) ReceiptID {
	h.in = append(h.in[:0], domainCollect)
	h.text(school)
	h.text(path)
	h.text(key)
	h.digest()
	return h.receipt()
}

// attempt returns the digest of an attempt, never 0. It holds for one student
// of one school, so that nobody comes upon another's.
func (h *hasher) attempt(school, student, attempt string) uint64 {
	h.in = append(h.in[:0], domainAttempt)
	h.text(school)
	h.text(student)
	h.text(attempt)
	h.digest()
	return max(1, binary.LittleEndian.Uint64(h.sum[:]))
}

// session returns the digest of a credential.
func (h *hasher) session(credential []byte) uint64 {
	h.in = append(append(h.in[:0], domainSession), credential...)
	h.digest()
	return binary.LittleEndian.Uint64(h.sum[:])
}

func (h *hasher) signToken(ms int64, digest uint64) {
	h.in = append(h.in[:0], domainToken)
	h.in = binary.LittleEndian.AppendUint64(h.in, uint64(ms))
	h.in = binary.LittleEndian.AppendUint64(h.in, digest)
	h.digest()
}

// token makes the proof that a press of the key, or with the session, arrived at
// ms.
func (h *hasher) token(ms int64, digest uint64) string {
	h.signToken(ms, digest)
	var b [tokenBytes]byte
	copy(b[:], h.in[1:])
	copy(b[16:], h.sum[:16])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// openToken reads a token; ok is false when it was not made with this secret.
func (h *hasher) openToken(s string) (ms int64, digest uint64, ok bool) {
	var b [tokenBytes]byte
	if len(s) != tokenTextBytes {
		return 0, 0, false
	}
	var text [tokenTextBytes]byte
	copy(text[:], s)
	if n, err := base64.RawURLEncoding.Decode(b[:], text[:]); err != nil || n != tokenBytes {
		return 0, 0, false
	}
	ms = int64(binary.LittleEndian.Uint64(b[0:]))
	digest = binary.LittleEndian.Uint64(b[8:])
	h.signToken(ms, digest)
	return ms, digest, hmac.Equal(h.sum[:16], b[16:])
}
