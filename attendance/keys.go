package attendance

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"firstbell/attendance/seal"
)

// The keys that seal batches lie in a directory of their own, each in two files
// named by the moment it was made and its id:
//
//	20260504T085912Z-1f0c2d3e4b5a6978.pub   PEM, SubjectPublicKeyInfo (RFC 8410), for everybody
//	20260504T085912Z-1f0c2d3e4b5a6978.key   PEM, PKCS #8 (RFC 8410), readable by its owner alone
//
// The newest .key seals. When another takes its place it is removed; no .pub
// ever is: what was sealed is checked with it for ever.
const (
	publicSuffix  = ".pub"
	privateSuffix = ".key"
	madeFormat    = "20060102T150405Z"
)

// PublicKey is a key that batches were sealed with, as everybody may have it.
type PublicKey struct {
	ID   seal.KeyID
	Made time.Time // when it came into use; zero when that is not known
	Key  ed25519.PublicKey
}

// Keys is the directory of keys of one journal. Its methods may be called from
// any number of goroutines; one process uses the directory.
type Keys struct {
	dir string

	mu      sync.Mutex // guards what follows
	current *seal.Key
	made    time.Time // of the current one
	public  []PublicKey
}

// OpenKeys reads the keys in dir, and makes the first one where there is none
// to seal with. On return it is on disk.
func OpenKeys(dir string) (*Keys, error) {
	k, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	if k.current == nil {
		if err := k.Rotate(); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// ReadPublicKeys reads the public keys in dir, oldest first, and changes nothing.
func ReadPublicKeys(dir string) ([]PublicKey, error) {
	k := &Keys{dir: dir}
	err := k.readFiles(publicSuffix, k.readPublic)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	return k.public, nil
}

func readKeys(dir string) (*Keys, error) {
	k := &Keys{dir: dir}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = SyncDir(filepath.Dir(dir))
	}
	if err == nil {
		err = k.readFiles(publicSuffix, k.readPublic)
	}
	if err == nil {
		err = k.readFiles(privateSuffix, k.readPrivate)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signing keys: %w", err)
	}
	return k, nil
}

// readFiles calls read with each file of the kind, oldest first.
func (k *Keys) readFiles(suffix string, read func(path string, made time.Time, block []byte) error) error {
	paths, err := filepath.Glob(filepath.Join(k.dir, "*"+suffix))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return fmt.Errorf("%s is damaged; put it back from a backup, or move it aside: without its .key a new key is made, without its .pub what it sealed cannot be checked", path)
		}
		stamp, _, _ := strings.Cut(filepath.Base(path), "-")
		made, err := time.Parse(madeFormat, stamp)
		if err != nil {
			made = time.Time{}
		}
		if err := read(path, made, block.Bytes); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

var errNotEd25519 = errors.New("it is no Ed25519 key")

func (k *Keys) readPublic(_ string, made time.Time, der []byte) error {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return err
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return errNotEd25519
	}
	k.public = append(k.public, PublicKey{ID: seal.IDOf(key), Made: made, Key: key})
	return nil
}

func (k *Keys) readPrivate(_ string, made time.Time, der []byte) error {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return errNotEd25519
	}
	key := seal.NewKey(private)
	if !slices.ContainsFunc(k.public, func(p PublicKey) bool { return p.ID == key.ID }) {
		return errors.New("its .pub is missing; put it back from a backup, or move the .key aside")
	}
	k.current, k.made = key, made
	return nil
}

// Current returns the key that seals now, and when it was made.
func (k *Keys) Current() (key *seal.Key, made time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current, k.made
}

// Public returns all keys, oldest first.
func (k *Keys) Public() []PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.public)
}

// Rotate makes another key and removes the private half of the one before. On
// return the new one is on disk. After an error the one before is still the
// current one.
func (k *Keys) Rotate() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making a signing key: %w", err)
	}
	made := time.Now().UTC().Truncate(time.Second)
	if !made.After(k.made) {
		made = k.made.Add(time.Second) // the newest name is the one in use, whatever the clock says
	}
	key := seal.NewKey(private)
	name := filepath.Join(k.dir, made.Format(madeFormat)+"-"+key.ID.String())
	if err := writeKey(name, public, private); err != nil {
		return fmt.Errorf("making a signing key: %w", err)
	}
	k.current, k.made = key, made
	k.public = append(k.public, PublicKey{ID: key.ID, Made: made, Key: public})
	return k.removeOld(name + privateSuffix)
}

// writeKey writes the public half first: a key that seals can always be checked.
func writeKey(name string, public ed25519.PublicKey, private ed25519.PrivateKey) error {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := WriteFileSynced(name+publicSuffix, text, 0o644); err != nil {
		return err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return WriteFileSynced(name+privateSuffix, text, 0o600)
}

// removeOld removes the private halves that are not in use any more.
func (k *Keys) removeOld(current string) error {
	paths, err := filepath.Glob(filepath.Join(k.dir, "*"+privateSuffix))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if path == current {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing the private half of a key that was replaced: %w", err)
		}
	}
	return SyncDir(k.dir)
}

// jwk is an Ed25519 key as RFC 7517 and RFC 8037 write it. iat is when it came
// into use, in seconds since 1970.
type jwk struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	Algorithm string `json:"alg,omitempty"`
	Use       string `json:"use,omitempty"`
	ID        string `json:"kid"`
	X         string `json:"x"`
	Made      int64  `json:"iat,omitempty"`
}

// MarshalKeys writes public keys as a JWK Set (RFC 7517 section 5).
func MarshalKeys(keys []PublicKey) []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, k := range keys {
		j := jwk{KeyType: "OKP", Curve: "Ed25519", Algorithm: "EdDSA", Use: "sig", ID: k.ID.String(), X: base64.RawURLEncoding.EncodeToString(k.Key)}
		if !k.Made.IsZero() {
			j.Made = k.Made.Unix()
		}
		set.Keys = append(set.Keys, j)
	}
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always are JSON
	}
	return append(text, '\n')
}

// ParseKeys reads a JWK Set as MarshalKeys writes it, or PEM with one public
// key or several. Keys of other kinds are passed over.
func ParseKeys(data []byte) ([]PublicKey, error) {
	var keys []PublicKey
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.Contains(block.Type, "PRIVATE") {
			return nil, errors.New("reading public keys: this is a private key; keep it where it was, and take the .pub beside it")
		}
		if parsed, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if key, ok := parsed.(ed25519.PublicKey); ok {
				keys = append(keys, PublicKey{ID: seal.IDOf(key), Key: key})
			}
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("reading public keys: neither PEM nor a JWK Set; take a .pub file, or what /.well-known/firstbell/keys answers")
	}
	for _, j := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(j.X)
		if err != nil || j.KeyType != "OKP" || j.Curve != "Ed25519" || len(x) != ed25519.PublicKeySize {
			continue
		}
		k := PublicKey{ID: seal.IDOf(x), Key: x}
		if j.Made != 0 {
			k.Made = time.Unix(j.Made, 0).UTC()
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("reading public keys: there is no Ed25519 key in it")
	}
	return keys, nil
}
