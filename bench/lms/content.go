package lms

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"html"
	"math/rand/v2"
	"strconv"
)

// resource names a piece of lesson content.
type resource struct{ host, path string }

// Content is a piece of lesson content. It never changes after it was made.
type Content struct {
	Host, Path string
	CRC        uint32 // CRC-32C
	Body       []byte
	kind       Kind
	etag       string
	mediaType  string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newContent(kind Kind, host, path, mediaType string, body []byte) *Content {
	c := &Content{Host: host, Path: path, Body: body, CRC: crc32.Checksum(body, castagnoli), kind: kind, mediaType: mediaType}
	c.etag = `"` + strconv.FormatUint(uint64(c.CRC), 16) + `-` + strconv.Itoa(len(body)) + `"`
	return c
}

// library is all lesson content: per host a list and a page for each lesson, and
// the segments of each lesson, which all schools share: they have a host of their
// own, but are found at every host.
type library struct {
	byName  map[resource]*Content
	lists   map[string]*Content
	lessons map[string][][]*Content // by host and lesson: the page, then its segments
}

func newLibrary(cfg *Config) *library {
	l := &library{
		byName:  make(map[resource]*Content),
		lists:   make(map[string]*Content),
		lessons: make(map[string][][]*Content),
	}
	add := func(host string, c *Content) *Content {
		l.byName[resource{host, c.Path}] = c
		return c
	}
	segments := make([][]*Content, cfg.Lessons)
	for n := range segments {
		for k := range cfg.Segments {
			path := fmt.Sprintf("/media/%d/%d.m4s", n+1, k+1)
			segments[n] = append(segments[n], add("", newContent(Media, cfg.MediaHost, path, "video/iso.segment", segment(cfg, n, k))))
		}
	}
	for _, host := range cfg.Hosts {
		l.lists[host] = add(host, newContent(List, host, "/lessons/", "text/html; charset=utf-8", listPage(cfg, host)))
		for n := range cfg.Lessons {
			page := add(host, newContent(Page, host, lessonPath(n), "text/html; charset=utf-8", lessonPage(cfg, host, n)))
			l.lessons[host] = append(l.lessons[host], append([]*Content{page}, segments[n]...))
		}
	}
	return l
}

// find looks up what is at the path of a host; nil when nothing is.
func (l *library) find(host, path string) *Content {
	if c := l.byName[resource{host, path}]; c != nil {
		return c
	}
	return l.byName[resource{"", path}]
}

func lessonPath(n int) string { return fmt.Sprintf("/lessons/%d/", n+1) }

// segment is one piece of video: 64 to 128 KiB that do not compress.
func segment(cfg *Config, lesson, k int) []byte {
	rnd := rand.New(rand.NewPCG(cfg.Seed, uint64(lesson)<<16|uint64(k)))
	b := make([]byte, 64<<10+rnd.IntN(64<<10))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func listPage(cfg *Config, host string) []byte {
	var b bytes.Buffer
	head(&b, "Lessons at "+host)
	b.WriteString("<h1>Today's lessons</h1>\n<ul>\n")
	for n := range cfg.Lessons {
		fmt.Fprintf(&b, "<li><a href=\"%s\">Grade %d, morning lesson</a>\n", lessonPath(n), n+1)
	}
	b.WriteString("</ul>\n<h2>Announcements</h2>\n")
	paragraphs(&b, cfg, host, 0, 4<<10)
	b.WriteString("</main>\n")
	return b.Bytes()
}

// lessonPage is 10 to 30 KB of text with the check-in button and the player.
func lessonPage(cfg *Config, host string, n int) []byte {
	var b bytes.Buffer
	head(&b, fmt.Sprintf("Grade %d, morning lesson", n+1))
	fmt.Fprintf(&b, "<p id=me>Signing in …</p>\n<h1>Grade %d, morning lesson</h1>\n", n+1)
	b.WriteString("<p><button id=press disabled>Check in</button> <output id=receipt></output></p>\n<ol>\n")
	for k := range cfg.Segments {
		fmt.Fprintf(&b, "<li><a href=\"/media/%d/%d.m4s\">Part %d</a>\n", n+1, k+1, k+1)
	}
	b.WriteString("</ol>\n")
	rnd := rand.New(rand.NewPCG(cfg.Seed^uint64(len(host)), uint64(n)))
	paragraphs(&b, cfg, host, uint64(n)+1, 10<<10+rnd.IntN(20<<10))
	b.WriteString(pageScript)
	return b.Bytes()
}

// pageScript fills in what is personal, so that the page itself is the same for
// everybody, and presses the button as the bell does.
const pageScript = `</main>
<script>
fetch('/me').then(r => r.json()).then(m => {
	me.textContent = m.greeting || 'Sign in first: /login/ and a student id.'
	press.disabled = !m.student_id
	press.onclick = () => fetch('/attendance/check-in', {
		method: 'POST', headers: {'Content-Type': 'application/json'},
		body: JSON.stringify({student_id: m.student_id, class_id: '', attempt: crypto.randomUUID()})
	}).then(r => r.text()).then(t => { receipt.textContent = t })
})
</script>
`

func head(b *bytes.Buffer, title string) {
	fmt.Fprintf(b, "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n<title>%s</title>\n<main>\n", html.EscapeString(title))
}

// words make text of the size and look of text.
var words = []string{"water", "triangle", "because", "the", "river", "number", "a", "history", "of", "light", "measure", "and", "question", "cell", "rhythm", "in", "letter", "season", "energy", "map", "is", "verse", "fraction", "to", "root", "island"}

func paragraphs(b *bytes.Buffer, cfg *Config, host string, n uint64, size int) {
	rnd := rand.New(rand.NewPCG(cfg.Seed^uint64(crc32.ChecksumIEEE([]byte(host))), n))
	end := b.Len() + size
	for b.Len() < end {
		b.WriteString("<p>")
		for range 60 + rnd.IntN(60) {
			b.WriteString(words[rnd.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteString("</p>\n")
	}
}
