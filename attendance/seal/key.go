package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// KeyID names a public key.
type KeyID [8]byte

// String returns 16 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID reads what String writes.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("reading key id %.40q: want 16 hexadecimal digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("reading key id %.40q: %w", s, err)
	}
	return id, nil
}

// IDOf returns the id of a public key.
func IDOf(public ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(public)
	return KeyID(sum[:8])
}

// Key seals batches. It never changes, and never shows in text.
type Key struct {
	ID      KeyID
	private ed25519.PrivateKey
}

// NewKey makes a Key of a private one.
func NewKey(private ed25519.PrivateKey) *Key {
	return &Key{ID: IDOf(private.Public().(ed25519.PublicKey)), private: private}
}

// String hides the private half.
func (k *Key) String() string { return "key " + k.ID.String() }

// GoString hides the private half.
func (k *Key) GoString() string { return k.String() }

// SignatureBytes is the length of a signature.
const SignatureBytes = ed25519.SignatureSize

// Seal is what is kept with a batch.
type Seal struct {
	Leaves    uint32 // how many records it covers
	Key       KeyID
	Root      Hash
	Signature [SignatureBytes]byte
}

const domain = "firstbell batch 1\n"

// message returns what is signed.
func message(dst []byte, leaves uint64, root *Hash) []byte {
	dst = append(dst, domain...)
	dst = binary.LittleEndian.AppendUint64(dst, leaves)
	return append(dst, root[:]...)
}

// Seal signs what the tree holds. There must be one leaf at least.
func (k *Key) Seal(t *Tree) Seal {
	s := Seal{Leaves: uint32(t.Len()), Key: k.ID, Root: t.Root()}
	var room [len(domain) + 8 + sha256.Size]byte
	copy(s.Signature[:], ed25519.Sign(k.private, message(room[:0], uint64(s.Leaves), &s.Root)))
	return s
}

// Genuine says whether the holder of the key's private half made the seal.
func (s *Seal) Genuine(public ed25519.PublicKey) bool {
	return len(public) == ed25519.PublicKeySize && s.Leaves > 0 &&
		ed25519.Verify(public, message(nil, uint64(s.Leaves), &s.Root), s.Signature[:])
}

// Verify says whether the record is the one at index in the batch that the
// seal covers, and the seal genuine.
func (s *Seal) Verify(public ed25519.PublicKey, record []byte, index uint64, path []Hash) bool {
	root, ok := RootOf(Leaf(record), index, uint64(s.Leaves), path)
	return ok && root == s.Root && s.Genuine(public)
}
