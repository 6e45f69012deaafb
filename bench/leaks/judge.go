package leaks

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/molecule-man/go-brrr"
)

// judge finds out whether an answer is one that the origin permits.
func (k *asker) judge(q *question, a *answer) {
	w := k.w
	for _, m := range a.early {
		k.foreignMark(q, a, m, "early hint")
	}
	for _, l := range [...][]line{a.lines, a.trailer} {
		for i := range l {
			switch {
			case strings.EqualFold(l[i].name, "Set-Cookie"):
				k.foreignMark(q, a, strings.TrimPrefix(l[i].value, "session="), "Set-Cookie")
				if q.res.open && q.safe() && len(a.early) == 0 {
					k.found(q, a, Told, "Set-Cookie to the client")
				}
			case strings.EqualFold(l[i].name, "X-Secret"):
				k.foreignMark(q, a, l[i].value, "X-Secret")
			}
		}
	}
	serial, marked := readMark(a.get("X-Mark"))
	s := w.servedBy(serial)
	switch {
	case a.err != nil && a.status == 0:
		k.unanswered(q, a)
	case marked && s == nil:
		k.found(q, a, Foreign, "a mark that nobody made")
	case marked:
		k.judgeMarked(q, a, s)
	default:
		k.judgeUnmarked(q, a)
	}
}

// found notes a finding.
func (k *asker) found(q *question, a *answer, leak Leak, detail string) {
	content := a.content[:min(len(a.content), 160)]
	k.w.found(Finding{Leak: leak, Detail: detail, Question: q.String(), res: q.res,
		Answer: fmt.Sprintf("answer: %s | %d bytes: %q, %v", strings.TrimSpace(strings.ReplaceAll(string(a.raw), "\r\n", " | ")), len(a.content), content, a.err)})
}

// foreignMark finds a field that came with a response to another question.
func (k *asker) foreignMark(q *question, a *answer, value, what string) {
	if value == "" {
		return
	}
	serial, ok := readMark(value)
	if s := k.w.servedBy(serial); !ok || s == nil || s.by.question != q.question {
		k.found(q, a, Withheld, what)
	}
}

// unanswered judges a connection that ended without an answer.
func (k *asker) unanswered(q *question, a *answer) {
	if late(a.err) {
		k.found(q, a, Silence, q.res.kind.name)
		return
	}
	k.seen.broken++
	if a.fresh && k.causeless(q) {
		k.found(q, a, Causeless, "the connection ended: "+a.err.Error())
	}
}

// causeless reports that nothing at the origin was a reason for an error.
func (k *asker) causeless(q *question) bool {
	return q.safe() && q.body == nil && q.res.kind.flaw == sound && !k.w.failing(q.at, time.Now())
}

// judgeUnmarked judges an answer that is the proxy's own, or a 304.
func (k *asker) judgeUnmarked(q *question, a *answer) {
	switch {
	case a.status == 304 && q.held != nil:
		k.seen.notModified++
		if q.held.of.version < q.floor {
			k.found(q, a, Unchanged, "304 for "+q.res.kind.name)
		}
	case a.status < 400 && a.status != 206 && q.safe():
		k.found(q, a, Foreign, "an answer that nobody made")
	case len(repsIn(a.content)) > 0:
		k.found(q, a, Foreign, "a content without its header section")
	default:
		k.seen.problems++
		expected := a.status == 416 && q.to != 0 || a.status == 504 && q.onlyIf || a.status == 417
		if a.status >= 400 && !expected && k.causeless(q) {
			k.found(q, a, Causeless, fmt.Sprintf("%d for %s", a.status, q.res.kind.name))
		}
	}
}

// judgeMarked judges an answer that the origin made for some question.
func (k *asker) judgeMarked(q *question, a *answer, s *served) {
	q.res.note("client gets "+strconv.Itoa(a.status), s.serial, q.question, q.user)
	if leak, why := k.w.permits(q, s); leak != None {
		k.found(q, a, leak, fmt.Sprintf("%s; made for question %d of user %d", why, s.by.question, s.by.user))
		return
	}
	if s.by.question != q.question {
		k.seen.shared++
		k.seen.kinds[q.res.kind.name]++
	}
	switch {
	case s.changed:
		if a.err == nil && !a.left && a.status < 400 {
			q.res.confirm(s.rep.of.version)
			if s.twin > 0 && q.res.twin != nil {
				q.res.twin.confirm(s.twin)
			}
		}
		k.judgeContent(q, a, s, 0, s.rep.size)
	case a.status == 304:
		k.seen.notModified++
		if q.held == nil {
			if q.res.kind.flaw != unasked304 {
				k.found(q, a, Foreign, "304 to a question without a condition")
			}
		} else if q.held != s.rep && (sameTag(a.get("ETag"), q.tag) || q.res.kind.flaw != unasked304) {
			k.found(q, a, Foreign, fmt.Sprintf("304 for content %x, asked about %x", s.rep.id, q.held.id))
		}
	case a.status == 206:
		k.judgePart(q, a, s)
	default:
		k.judgeContent(q, a, s, 0, -1)
	}
}

// sameTag compares two entity tags weakly.
func sameTag(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

// judgeContent compares what came with what the origin sent: the bytes from and
// up to of the content; to -1 for all of it.
func (k *asker) judgeContent(q *question, a *answer, s *served, from, to int) {
	if q.method == "HEAD" || a.status == 204 || a.status == 304 {
		return
	}
	whole := a.err == nil && !a.left
	want, content, ok := k.expect(q, a, s)
	if !ok {
		return
	}
	if to < 0 {
		to = len(want)
	}
	want = want[min(from, len(want)):min(to, len(want))]
	switch {
	case whole && bytes.Equal(content, want):
		k.keep(q, a, s)
	case !whole && bytes.HasPrefix(want, content):
		k.cutShort(q, a)
	default:
		k.explain(q, a, s, want, content)
	}
}

// expect returns the bytes that all of the content has in the coding of the
// answer, and what came to be compared with them: that itself, or, where the
// proxy has coded it, what it decodes to. It finds codings that the client
// refuses; then ok is false.
func (k *asker) expect(q *question, a *answer, s *served) (want, content []byte, ok bool) {
	k.buf = appendCells(k.buf[:0], s.rep.id, 0, s.rep.size)
	coding := a.get("Content-Encoding")
	switch {
	case coding == "":
		return k.buf, a.content, true
	case q.safe() && !slices.Contains(codings[q.coding].takes, coding):
		k.found(q, a, Coding, coding+" for "+codings[q.coding].value)
		return nil, nil, false
	case a.status == 206 && q.coded != nil:
		return q.coded, a.content, true
	case coding == "gzip":
		k.coded = appendGzip(k.coded[:0], k.buf)
		if n := min(len(k.coded), len(a.content)); a.status == 206 || bytes.Equal(k.coded[:n], a.content[:n]) {
			return k.coded, a.content, true
		}
	}
	k.seen.coded++
	k.decoded = decode(k.decoded[:0], coding, a.content)
	return k.buf, k.decoded, true
}

// decode appends what a content decodes to, as far as it goes.
func decode(dst []byte, coding string, content []byte) []byte {
	var from io.Reader
	var err error
	switch coding {
	case "gzip":
		from, err = gzip.NewReader(bytes.NewReader(content))
	case "zstd":
		from, err = zstd.NewReader(bytes.NewReader(content), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	case "br":
		from = brrr.NewReader(bytes.NewReader(content))
	}
	if err != nil || from == nil {
		return dst
	}
	b := bytes.NewBuffer(dst)
	_, _ = io.Copy(b, io.LimitReader(from, contentBytesMax)) // as far as it goes
	return b.Bytes()
}

// codedMax bounds what an asker keeps of each resource's content in a coding,
// to know its parts by.
const codedMax = 4 << 10

// keep remembers a whole answer as a browser does.
func (k *asker) keep(q *question, a *answer, s *served) {
	if tag := a.get("ETag"); tag != "" && a.status == 200 && !s.changed {
		h := &holding{traits: q.traits, tag: tag, rep: s.rep}
		if a.get("Content-Encoding") != "" {
			if len(a.content) > codedMax {
				return
			}
			h.coded = bytes.Clone(a.content)
		}
		k.draw.held[q.res.id] = h
	}
}

// cutShort judges an answer that ended visibly broken.
func (k *asker) cutShort(q *question, a *answer) {
	switch {
	case a.left:
		q.res.note("client leaves in the content", 0, q.question, q.user)
	case late(a.err):
		k.found(q, a, Silence, "in the content of "+q.res.kind.name)
	default:
		k.seen.broken++
		if k.causeless(q) {
			k.found(q, a, Causeless, "broken off: "+a.err.Error())
		}
	}
}

// explain names what is wrong with a content.
func (k *asker) explain(q *question, a *answer, s *served, want, content []byte) {
	reps := repsIn(content)
	switch {
	case string(content) == nonsense:
		k.found(q, a, Malformed, q.res.kind.name)
	case len(reps) > 1:
		k.found(q, a, Mixture, fmt.Sprintf("of contents %x, the header section is of %x", reps, s.rep.id))
	case len(reps) == 1 && reps[0] != s.rep.id:
		k.found(q, a, k.whose(q, s, k.w.repByID(reps[0])), fmt.Sprintf("content %x under the header section of %x (%s)", reps[0], s.rep.id, q.res.kind.name))
	case bytes.HasPrefix(want, content):
		k.found(q, a, Short, fmt.Sprintf("%d of %d bytes of %s", len(content), len(want), q.res.kind.name))
	default:
		k.found(q, a, Mixture, "bytes out of their place")
	}
}

// whose says what it means that a content is r and not that of s.
func (k *asker) whose(q *question, s *served, r *rep) Leak {
	switch {
	case r == nil:
		return Foreign
	case r.res != s.res:
		return OtherURL
	case r.of.cookie != s.rep.of.cookie || r.of.auth != s.rep.of.auth:
		if s.res.kind.reach == checked {
			return ValidatedPage
		}
		return UserPage
	case r.of.language != s.rep.of.language || r.of.class != s.rep.of.class || r.of.address != s.rep.of.address:
		return VaryPage
	case r.of.version < s.rep.of.version:
		return Stale
	}
	return Foreign
}
