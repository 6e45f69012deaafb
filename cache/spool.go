package cache

import (
	"errors"
	"hash"

	"firstbell/cache/disk"
)

// errNoDisk says why a large body is not kept.
var errNoDisk = errors.New("spooling: there is no disk")

// A Spool brings the body of a response to disk while it arrives, of whatever
// size. Write and Keep belong to one goroutine; ReadAt may be called by many at
// once that have retained it, to read what was written, also after Keep or
// Discard. One of the two must be called.
type Spool struct {
	*disk.Writer
	c      *Cache
	s      *Stored
	digest hash.Hash // of what was written, when s needs an entity tag
}

// Write implements io.Writer.
func (sp *Spool) Write(p []byte) (int, error) {
	n, err := sp.Writer.Write(p)
	if sp.digest != nil {
		sp.digest.Write(p[:n])
	}
	return n, err
}

// Spool begins to bring to disk the body of s, which has none yet. Its Verdict
// must allow that s is stored. Invalidating its key from here on keeps it from
// being kept.
func (c *Cache) Spool(s *Stored) (*Spool, error) {
	if c.tier == nil || !s.Verdict.Store || s.Verdict.errorReply {
		return nil, errNoDisk
	}
	w, err := c.tier.store.Begin(s.meta())
	if err != nil {
		return nil, err
	}
	return &Spool{Writer: w, c: c, s: s, digest: s.digester()}, nil
}

// Keep stores the response, as Put does: when it returns true, Lookup finds it.
func (sp *Spool) Keep() (*Stored, bool) {
	c, s := sp.c, sp.s
	if c.Gone(s) {
		sp.Discard()
		c.refused.Add(1)
		return nil, false
	}
	length := sp.Size()
	ref, err := sp.Commit()
	if err != nil {
		c.refused.Add(1)
		return nil, false
	}
	c.puts.Add(1)
	c.tier.completed(view(s.key))
	if e := c.memory.index.get(c.memory.index.hash(view(s.key))); e != nil && e.key == s.key {
		for _, old := range e.variants {
			if old.variant == s.variant {
				c.memory.swap(old, nil)
			}
		}
	}
	if s.Verdict.fresh() {
		c.uncacheable.forget(c.memory.index.hash(view(s.key)))
	}
	kept := s.withContent(&content{store: c.tier.store, ref: ref, length: length})
	if sp.digest != nil {
		kept = sp.tagged(kept)
	}
	return kept, true
}

// tagged is s, on disk, with the entity tag of what was written: a head that is
// written anew. Without room for it s stays as it is.
func (sp *Spool) tagged(s *Stored) *Stored {
	again := s.withContent(s.content)
	again.tagBy(sp.digest)
	again.index()
	if done, _ := sp.c.tier.store.Update(view(s.key), s.content.ref, again.appendHead(nil)); !done {
		return s // an error is counted there
	}
	return again
}

// withContent is s with a body on disk.
func (s *Stored) withContent(body *content) *Stored {
	kept := &Stored{
		Status: s.Status, Fields: s.Fields, Verdict: s.Verdict, content: body,
		key: s.key, variant: s.variant, responseTime: s.responseTime, generated: s.generated,
		tags: s.tags, born: s.born, change: s.change,
	}
	kept.seen.Store(s.born)
	kept.onDisk.Store(body.ref.Seq)
	kept.index()
	return kept
}
