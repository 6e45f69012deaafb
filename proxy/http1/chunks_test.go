package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"firstbell/proxy/field"
)

// decode feeds text in pieces of n bytes and returns the content, and what was
// not used of the text.
func decode(text string, n int) (content, rest string, err error) {
	var k Chunks
	var out bytes.Buffer
	var have []byte
	for {
		piece, used, err := k.Next(have)
		out.Write(piece)
		have = have[used:]
		switch {
		case err != nil:
			return out.String(), "", err
		case k.Done():
			return out.String(), string(have) + text, nil
		case used > 0:
			continue
		case text == "":
			return out.String(), "", io.ErrUnexpectedEOF
		}
		cut := min(n, len(text))
		have, text = append(have, text[:cut]...), text[cut:]
	}
}

func TestChunksAreDecodedHoweverTheyCome(t *testing.T) {
	const text = "5\r\nhello\r\n00B;x=\"y\"\r\n, students!\r\n0\r\nX-Sum: 1\r\n\r\nGET /next"
	for n := 1; n < len(text)+1; n++ {
		content, rest, err := decode(text, n)
		if content != "hello, students!" || rest != "GET /next" || err != nil {
			t.Errorf("pieces of %d: got %q, rest %q, %v", n, content, rest, err)
		}
	}
}

func TestMalformedChunksAreRefused(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, text := range []string{
		"+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "5 ;a\r\nhello\r\n", "0x5\r\nhello\r\n", "\r\n", "g\r\n",
		"5\nhello\r\n", "5\r\nhello\n", "5\r\nhello!\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\rhello\r\n", "1234567890abcdef\r\n", "ffffffffffffffffff\r\n",
		"5;" + long + "\r\nhello\r\n", "5;" + long, "5;a=\x00\r\nhello\r\n", strings.Repeat("1;"+long[:200]+"\r\na\r\n", 200),
		"0\r\nBad Name: 1\r\n\r\n", "0\r\nA: b\r\n folded\r\n\r\n", "0\r\nA: b\n\r\n", "0\r\n\n", "0\r\n" + strings.Repeat("A: "+long+"\r\n", 40) + "\r\n", "0\r\nA: " + strings.Repeat("b", trailerMax),
	} {
		for _, n := range []int{1, 7, len(text)} {
			var r *field.Refusal
			if content, _, err := decode(text, n); !errors.As(err, &r) {
				t.Errorf("%.60q in pieces of %d: got %q, %v; want a refusal", text, n, content, err)
			}
		}
	}
}

// FuzzChunks holds what is accepted against net/http's reader.
func FuzzChunks(f *testing.F) {
	f.Add("5\r\nhello\r\n0\r\n\r\n", 3)
	f.Add("1;a=b\r\nx\r\n0\r\nA: b\r\n\r\nrest", 1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = max(1, min(n, 100))
		content, rest, err := decode(text, n)
		whole, wholeRest, wholeErr := decode(text, len(text)+1)
		if content != whole || rest != wholeRest || (err == nil) != (wholeErr == nil) {
			t.Errorf("%q in pieces of %d: got %q, %q, %v; in one: %q, %q, %v", text, n, content, rest, err, whole, wholeRest, wholeErr)
		}
		if err != nil {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(text)))
		if err == nil && string(want) != content {
			t.Errorf("%q: got %q, net/http has %q", text, content, want)
		}
	})
}

func ExampleChunks() {
	content, rest, err := decode("6\r\nlesson\r\n0\r\n\r\nGET", 4)
	fmt.Println(content, rest, err)
	// Output: lesson GET <nil>
}
