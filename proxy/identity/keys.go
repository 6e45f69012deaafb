package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

const (
	keySetBytesMax = 256 << 10 // a set of 64 RSA keys with their certificates has 200 kB
	keysMax        = 64
	rsaBitsMin     = 2048 // RFC 7518 section 3.3
	rsaBitsMax     = 8192 // one verification with more is a millisecond and up
	keyIDBytesMax  = 256
)

// The algorithms that a token may be signed with.
const (
	hs256 = "HS256"
	rs256 = "RS256"
	es256 = "ES256"
	edDSA = "EdDSA"
)

// Algorithms are those of a key set, by the names of RFC 7518 and RFC 8037.
var Algorithms = []string{rs256, es256, edDSA}

// key is a public key and the one algorithm that it is used with.
type key struct {
	id     string // may be empty
	alg    string
	public any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	print  digest // of the key itself
}

// keys are a key set that is good. It never changes.
type keys struct {
	all     []key
	ignored int    // entries of the set that are for something else
	epoch   uint32 // changes when a key that was there is not any more
}

// named returns the keys that a token with this algorithm and key id may be
// signed with: those of the id, or all that fit when it names none.
func (k *keys) named(alg, id string) (fit []key) {
	for _, c := range k.all {
		if c.alg == alg && (id == "" || c.id == id) {
			fit = append(fit, c)
		}
	}
	return fit
}

// knows reports whether there is a key of this id, of whatever algorithm.
func (k *keys) knows(id string) bool {
	for _, c := range k.all {
		if c.id == id {
			return true
		}
	}
	return false
}

// keepsAll reports whether every key of old is in k as it was.
func (k *keys) keepsAll(old *keys) bool {
	for _, o := range old.all {
		same := false
		for _, c := range k.all {
			same = same || c.id == o.id && c.print == o.print
		}
		if !same {
			return false
		}
	}
	return true
}

// jwk is one key as RFC 7517 section 4 writes it.
type jwk struct {
	Kty string   `json:"kty"`
	Use string   `json:"use"`
	Ops []string `json:"key_ops"`
	Alg string   `json:"alg"`
	Kid string   `json:"kid"`

	N   *string `json:"n"`
	E   *string `json:"e"`
	Crv string  `json:"crv"`
	X   *string `json:"x"`
	Y   *string `json:"y"`

	// Of a private or shared key.
	D *string `json:"d"`
	P *string `json:"p"`
	Q *string `json:"q"`
	K *string `json:"k"`
}

// ParseKeySet reports how many keys of a JWK Set (RFC 7517 section 5) can
// verify tokens, or why the set as a whole is refused.
func ParseKeySet(text []byte) (usable int, err error) {
	set, err := parseKeySet(text)
	if err != nil {
		return 0, err
	}
	return len(set.all), nil
}

// parseKeySet reads a JWK Set. Keys for other uses and of kinds that it does
// not know are left out, as RFC 7517 section 5 says; anything that contradicts
// itself, that is weak or that should be nobody's to see makes the whole set
// worthless: who wrote it did not mean it.
func parseKeySet(text []byte) (*keys, error) {
	text = bytes.TrimSpace(text)
	if len(text) > keySetBytesMax {
		return nil, fmt.Errorf("it has more than %d bytes", keySetBytesMax)
	}
	if bytes.HasPrefix(text, []byte("<")) {
		return nil, errors.New("it is a page, not a key set")
	}
	if err := checkJSON(text); err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New(`it has no list "keys"`)
	}
	if len(doc.Keys) > keysMax {
		return nil, fmt.Errorf("it has %d keys, more than %d", len(doc.Keys), keysMax)
	}
	set := &keys{}
	for i, raw := range doc.Keys {
		k, err := parseKey(raw)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		if k.public == nil {
			set.ignored++
			continue
		}
		if k.id != "" && set.knows(k.id) {
			return nil, fmt.Errorf("keys[%d]: its kid is there twice", i)
		}
		set.all = append(set.all, k)
	}
	if len(set.all) == 0 {
		return nil, errors.New("none of its keys can verify a token (RS256, ES256 or EdDSA)")
	}
	return set, nil
}

// parseKey reads one key; without a public one it is for something else.
func parseKey(raw []byte) (key, error) {
	var j jwk
	if err := json.Unmarshal(raw, &j); err != nil {
		return key{}, errors.New("a member has the wrong type")
	}
	if j.D != nil || j.P != nil || j.Q != nil {
		return key{}, errors.New("it is a private key; who published it must replace it")
	}
	if j.K != nil || j.Kty == "oct" {
		return key{}, errors.New("it is a shared secret, which belongs into secret_file and into no key set")
	}
	k := key{id: j.Kid}
	if reason := unfit(j.Kid); reason != "" {
		return key{}, errors.New("its kid " + reason)
	}
	if !j.forSignatures() {
		return k, nil
	}
	var err error
	switch j.Kty {
	case "RSA":
		k.alg = rs256
		if j.other(k.alg, "RS384", "RS512", "PS256", "PS384", "PS512") {
			return k, nil
		}
		k.public, k.print, err = j.rsa()
	case "EC":
		k.alg = es256
		if j.Crv != "P-256" || j.other(k.alg) {
			return k, j.mustFit("ES384", "ES512", "ES256K")
		}
		k.public, k.print, err = j.p256()
	case "OKP":
		k.alg = edDSA
		if j.Crv != "Ed25519" {
			return k, nil
		}
		k.public, k.print, err = j.ed25519()
	case "":
		return k, errors.New("it has no kty")
	default:
		return k, nil
	}
	if err == nil && j.Alg != "" && j.Alg != k.alg && !(k.alg == edDSA && j.Alg == "Ed25519") {
		err = fmt.Errorf("its kty %s and its alg do not go together", j.Kty)
	}
	return k, err
}

func (j *jwk) forSignatures() bool {
	if j.Use != "" && j.Use != "sig" {
		return false
	}
	if len(j.Ops) == 0 {
		return true
	}
	for _, op := range j.Ops {
		if op == "verify" {
			return true
		}
	}
	return false
}

// other reports whether the key is for another algorithm of its kind.
func (j *jwk) other(ours string, others ...string) bool {
	if j.Alg == "" || j.Alg == ours {
		return false
	}
	for _, o := range others {
		if j.Alg == o {
			return true
		}
	}
	return false
}

// mustFit is why an EC key that we do not use contradicts itself, if it does.
func (j *jwk) mustFit(others ...string) error {
	if j.Crv == "P-256" && j.other(es256, others...) || j.Crv == "" || j.Crv != "P-256" && j.Alg == es256 {
		return errors.New("its crv and its alg do not go together")
	}
	return nil
}

// number reads a base64url member.
func number(s *string) ([]byte, error) {
	if s == nil {
		return nil, errors.New("a member of the key is missing")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(*s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("a member of the key is not base64url without padding")
	}
	return b, nil
}

func (j *jwk) rsa() (any, digest, error) {
	n, err := number(j.N)
	if err != nil {
		return nil, digest{}, err
	}
	e, err := number(j.E)
	if err != nil {
		return nil, digest{}, err
	}
	if j.X != nil || j.Crv != "" {
		return nil, digest{}, errors.New("it has members of two kinds of keys")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch bits := modulus.BitLen(); {
	case bits < rsaBitsMin:
		return nil, digest{}, fmt.Errorf("its RSA modulus has %d bits, fewer than %d", bits, rsaBitsMin)
	case bits > rsaBitsMax:
		return nil, digest{}, fmt.Errorf("its RSA modulus has %d bits, more than %d", bits, rsaBitsMax)
	case modulus.Bit(0) == 0:
		return nil, digest{}, errors.New("its RSA modulus is even")
	case exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Int64() < 3:
		return nil, digest{}, errors.New("its RSA exponent is none")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, printOf(rs256, n, e), nil
}

func (j *jwk) p256() (any, digest, error) {
	x, err := number(j.X)
	if err != nil {
		return nil, digest{}, err
	}
	y, err := number(j.Y)
	if err != nil {
		return nil, digest{}, err
	}
	if j.N != nil || j.E != nil {
		return nil, digest{}, errors.New("it has members of two kinds of keys")
	}
	if len(x) != 32 || len(y) != 32 {
		return nil, digest{}, errors.New("its coordinates do not have 32 bytes")
	}
	point := append(append([]byte{4}, x...), y...) // SEC 1 section 2.3.3
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, digest{}, errors.New("its point is not on the curve")
	}
	return public, printOf(es256, x, y), nil
}

func (j *jwk) ed25519() (any, digest, error) {
	x, err := number(j.X)
	if err != nil {
		return nil, digest{}, err
	}
	if j.N != nil || j.E != nil || j.Y != nil {
		return nil, digest{}, errors.New("it has members of two kinds of keys")
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, digest{}, fmt.Errorf("its key has %d bytes, not %d", len(x), ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(x), printOf(edDSA, x), nil
}

// printOf tells keys apart.
func printOf(alg string, parts ...[]byte) digest {
	h := sha256.New()
	h.Write([]byte(alg))
	for _, p := range parts {
		h.Write([]byte{byte(len(p) >> 8), byte(len(p))})
		h.Write(p)
	}
	return digest(h.Sum(nil))
}
