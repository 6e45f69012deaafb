package attendance

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// Secret is what receipts, first-seen tokens and attempts are computed with.
// It never shows in text.
type Secret struct{ key [32]byte }

// String hides the secret.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret.
func (Secret) GoString() string { return "attendance.Secret{}" }

// SecretFile is the secret's name within the journal directory. The file is
// one line: "firstbell-secret-1", 64 hexadecimal digits, and the CRC-32 (IEEE)
// of the bytes they stand for.
const SecretFile = "secret"

const secretMagic = "firstbell-secret-1"

// OpenSecret reads the secret from the journal directory. Where there is none
// and the journal is empty, it makes one and returns once that is on disk,
// readable by its owner alone. A journal that has records but no secret, or
// one that cannot be read, is an error: with another secret every key would
// get a new receipt, and count twice.
func OpenSecret(dir string, journalEmpty bool) (Secret, error) {
	path := filepath.Join(dir, SecretFile)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		return parseSecret(path, data)
	case !errors.Is(err, fs.ErrNotExist):
		return Secret{}, fmt.Errorf("reading the site secret: %w", err)
	case !journalEmpty:
		return Secret{}, fmt.Errorf("reading the site secret: %s is missing, but the journal has check-ins; put the file back from a backup, or move the journal aside to begin a new one", path)
	}
	var s Secret
	rand.Read(s.key[:]) // never fails, by its own promise
	line := fmt.Sprintf("%s %x %08x\n", secretMagic, s.key, crc32.ChecksumIEEE(s.key[:]))
	if err := WriteFileSynced(path, []byte(line), 0o600); err != nil {
		return Secret{}, fmt.Errorf("making the site secret: %w", err)
	}
	return s, nil
}

func parseSecret(path string, data []byte) (Secret, error) {
	var s Secret
	broken := fmt.Errorf("reading the site secret: %s is damaged; put the file back from a backup", path)
	parts := bytes.Fields(data)
	if len(data) > 256 || len(parts) != 3 || string(parts[0]) != secretMagic || len(parts[1]) != 2*len(s.key) {
		return Secret{}, broken
	}
	if _, err := hex.Decode(s.key[:], parts[1]); err != nil {
		return Secret{}, broken
	}
	if fmt.Sprintf("%08x", crc32.ChecksumIEEE(s.key[:])) != string(parts[2]) {
		return Secret{}, broken
	}
	return s, nil
}

// WriteFileSynced replaces the file at path as a whole: after a crash at any
// moment it holds the old bytes or the new ones. On return the new ones are on
// disk. An error leaves the old file in place.
func WriteFileSynced(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already once renamed
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes what was created, renamed or deleted in a directory last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
