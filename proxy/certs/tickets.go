package certs

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

const (
	// ticketsEvery is how long a key seals new tickets. Who steals it can read
	// sessions resumed with it under TLS 1.2; so it is short.
	ticketsEvery = 6 * time.Hour
	// ticketKeysMax is how many keys are taken: a session lives for a day.
	ticketKeysMax = 4
)

// tickets are the keys that session tickets are sealed with: the first makes
// new ones, all are taken. It is guarded by the Store's lock.
type tickets struct {
	file    string // empty: they are made here
	seen    stamp  // of file
	keys    [][32]byte
	made    time.Time // the first of keys, where it was made here
	problem error     // why the file is not in use; nil
}

// renew makes the next key, or reads the file when it has changed, and reports
// whether the keys are others now. After an error they are as before.
func (t *tickets) renew() (changed bool, err error) {
	if t.file == "" {
		if now := time.Now(); t.keys == nil || now.Sub(t.made) >= ticketsEvery {
			t.made = now
			t.keys = slices.Insert(t.keys, 0, newTicketKey())
			t.keys = t.keys[:min(len(t.keys), ticketKeysMax)]
			return true, nil
		}
		return false, nil
	}
	seen := stampOf(t.file)
	if t.keys != nil && seen == t.seen {
		return false, t.problem
	}
	t.seen = seen
	keys, err := readTicketKeys(t.file)
	if t.problem = err; err != nil {
		return false, err
	}
	changed = !slices.Equal(keys, t.keys)
	t.keys = keys
	return changed, nil
}

func newTicketKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}

// readTicketKeys reads keys in hexadecimal, one a line.
func readTicketKeys(name string) (keys [][32]byte, err error) {
	text, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w; make a key with: openssl rand -hex 32", err)
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		var key [32]byte
		if n, err := hex.Decode(key[:], line[:min(len(line), 64)]); err != nil || n != 32 || len(line) != 64 {
			return nil, fmt.Errorf("reading the ticket keys %s: line %d is not 64 hexadecimal digits; make a key with: openssl rand -hex 32", name, i+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("reading the ticket keys %s: there are none; make one with: openssl rand -hex 32", name)
	}
	return keys[:min(len(keys), 16)], nil
}

func (s *Store) renewTicketsLocked() {
	before := s.tickets.problem
	changed, err := s.tickets.renew()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		s.log.Error("the keys of session tickets cannot be read, those before stay in use", "error", err)
	}
	if changed {
		for _, c := range s.configs {
			c.SetSessionTicketKeys(s.tickets.keys)
		}
	}
}
