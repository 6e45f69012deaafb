package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// watchEvery is how often files are looked at: two calls of stat each, so 5,000
// certificates are a thousand of them a second.
const watchEvery = 10 * time.Second

// fileBytesMax bounds a file with a certificate's chain or a key.
const fileBytesMax = 1 << 20

// Pair names the files of one certificate, in PEM: the chain with the leaf
// first, and its key. They may be one file.
type Pair struct{ Cert, Key string }

// file is one Pair as it was last read.
type file struct {
	Pair
	seen    [2]stamp // of both, when they were last read
	now     *certificate
	problem error // why what is in the files is not in use, or not good; nil
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(name string) stamp {
	info, err := os.Stat(name)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

func (p Pair) stamps() [2]stamp { return [2]stamp{stampOf(p.Cert), stampOf(p.Key)} }

// ReadPair reads a certificate for hosts and its key, which must match. Whether
// it is good now is for Untimely to say.
func ReadPair(p Pair) (*tls.Certificate, error) {
	c, err := ReadIdentity(p)
	if err == nil && len(namesOf(c.Leaf)) == 0 {
		return nil, fmt.Errorf("reading the certificate %s: it names no host (subjectAltName)", p.Cert)
	}
	return c, err
}

// ReadIdentity is ReadPair for what is shown to servers, which may name nothing.
func ReadIdentity(p Pair) (*tls.Certificate, error) {
	chain, err := readFile(p.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readFile(p.Key)
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s with the key %s: %w", p.Cert, p.Key, err)
	}
	return &c, nil
}

// Untimely says why a certificate is not good at t; nil when it is.
func Untimely(leaf *x509.Certificate, at time.Time) error {
	switch {
	case at.After(leaf.NotAfter):
		return fmt.Errorf("%s expired on %s", describe(leaf), leaf.NotAfter.Format(time.DateOnly))
	case at.Before(leaf.NotBefore):
		return fmt.Errorf("%s is good from %s on only", describe(leaf), leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && info.Size() > fileBytesMax {
		err = fmt.Errorf("%d bytes are more than a certificate has", info.Size())
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, reason(err))
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, reason(err))
	}
	return text, nil
}

// reason is an error of a file without the file's name in it.
func reason(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// Load puts the pairs into force, in their order, and nothing else any more.
// Those that were there before and cannot be read now keep what was read last;
// if a new one cannot be, nothing changes and the error says what is wrong with
// each.
func (s *Store) Load(pairs []Pair) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := map[Pair]*file{}
	for _, f := range s.files {
		before[f.Pair] = f
	}
	files := make([]*file, 0, len(pairs))
	var problems []error
	for _, p := range pairs {
		f := &file{Pair: p}
		if old := before[p]; old != nil {
			*f = *old
		}
		s.read(f)
		if f.now == nil {
			problems = append(problems, f.problem)
		}
		files = append(files, f)
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	s.files = files
	s.tabulateLocked()
	return nil
}

// read reads f's files. What cannot be used leaves f as it was, with the
// problem; so does what has expired or is not good yet, where the one before is
// better. It reports whether another certificate is in use.
func (s *Store) read(f *file) (changed bool) {
	f.seen = f.stamps() // before: a change meanwhile is seen the next time
	c, err := ReadPair(f.Pair)
	usable := err == nil
	if usable {
		if err = Untimely(c.Leaf, time.Now()); err != nil {
			err = fmt.Errorf("the certificate %s: %w", f.Cert, err)
			usable = f.now == nil || Untimely(f.now.Leaf, time.Now()) != nil && f.now.Leaf.NotAfter.Before(c.Leaf.NotAfter)
		}
	}
	if err != nil && f.now != nil && (f.problem == nil || f.problem.Error() != err.Error()) {
		s.log.Error("a certificate is not good", "error", err, "in_use", usable, "expires", f.now.Leaf.NotAfter)
	}
	if f.problem = err; !usable {
		return false
	}
	if f.now != nil && bytes.Equal(f.now.Leaf.Raw, c.Leaf.Raw) {
		return false
	}
	if f.now != nil {
		s.log.Info("a certificate has been renewed", "cert", f.Cert, "names", len(namesOf(c.Leaf)), "expires", c.Leaf.NotAfter)
	}
	f.now = &certificate{c, f.Cert}
	return true
}

// Run watches files, changes the keys of session tickets, and gets certificates,
// until ctx ends. It is called once.
func (s *Store) Run(ctx context.Context) error {
	var ordering sync.WaitGroup
	defer ordering.Wait()
	if s.queue != nil {
		ordering.Go(func() { s.queue.run(ctx) })
	}
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			s.look()
		}
	}
}

// look reads what has changed.
func (s *Store) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, f := range s.files {
		if f.problem != nil || f.stamps() != f.seen {
			changed = s.read(f) || changed
		}
	}
	if changed {
		s.tabulateLocked()
	}
	s.renewTicketsLocked()
}
