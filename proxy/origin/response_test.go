package origin

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"firstbell/proxy/field"
)

func TestMalformedResponsesAreRefused(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	chunked := func(s string) string { return ok + "Transfer-Encoding: chunked\r\n\r\n" + s }
	for _, c := range []struct{ name, answer, reason string }{
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", "begins with"},
		{"an empty line first", "\r\n" + ok + "\r\n", "status line"},
		{"HTTP/0.9", "<html>hello</html>", "begins with"},
		{"unknown major version", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.0 or HTTP/1.1"},
		{"unknown minor version", "HTTP/1.2 200 OK\r\n\r\n", "HTTP/1.0 or HTTP/1.1"},
		{"version without a dot", "HTTP/11 200 OK\r\n\r\n", "HTTP/1.0 or HTTP/1.1"},
		{"lower case version", "http/1.1 200 OK\r\n\r\n", "HTTP/1.0 or HTTP/1.1"},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", "three-digit"},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "three-digit"},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", "100 to 599"},
		{"status with a sign", "HTTP/1.1 +20 OK\r\n\r\n", "three-digit"},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", "100 to 599"},
		{"status 600", "HTTP/1.1 600 OK\r\n\r\n", "100 to 599"},
		{"no status", "HTTP/1.1\r\n\r\n", "HTTP/1.0 or HTTP/1.1"},
		{"control character in the reason", "HTTP/1.1 200 O\x01K\r\n\r\n", "control"},
		{"lone CR in the status line", "HTTP/1.1 200 O\rK\r\n\r\n", "control"},

		{"no colon", ok + "Foo\r\n\r\n", "no colon"},
		{"no name", ok + ": bar\r\n\r\n", "invalid name"},
		{"space in a name", ok + "Foo Bar: x\r\n\r\n", "invalid name"},
		{"NUL in a name", ok + "Foo\x00: x\r\n\r\n", "invalid name"},
		{"non-ASCII name", ok + "F\xc3\xb6\xc3\xb6: x\r\n\r\n", "invalid name"},
		{"space before the first name", ok + " Foo: x\r\n\r\n", "invalid name"},
		{"NUL in a value", ok + "Foo: a\x00b\r\n\r\n", "control"},
		{"lone CR in a value", ok + "Foo: a\rb\r\n\r\n", "control"},
		{"CR before CRLF", ok + "Foo: a\r\r\n\r\n", "control"},
		{"DEL in a value", ok + "Foo: a\x7fb\r\n\r\n", "control"},
		{"CR as the only line end", "HTTP/1.1 200 OK\rFoo: a\r\r\n\r\n", "control"},
		{"too many fields", ok + strings.Repeat("A: b\r\n", 257) + "\r\n", "field lines"},
		{"head too long", ok + "A: " + strings.Repeat("b", 64<<10) + "\r\n\r\n", "head of more than"},
		{"head without end", ok + strings.Repeat("A: b\r\n", 11000), "head of more than"},

		{"both framings", ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "both"},
		{"both framings, other order", ok + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", "both"},
		{"differing lengths", ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "Content-Length 3 and 4"},
		{"differing lengths in a list", ok + "Content-Length: 3, 4\r\n\r\nabcd", "Content-Length 3 and 4"},
		{"length with a sign", ok + "Content-Length: +3\r\n\r\nabc", "not a length"},
		{"negative length", ok + "Content-Length: -1\r\n\r\n", "not a length"},
		{"hexadecimal length", ok + "Content-Length: 0x3\r\n\r\nabc", "not a length"},
		{"empty length", ok + "Content-Length:\r\n\r\n", "not a length"},
		{"empty member of a length", ok + "Content-Length: 3,\r\n\r\nabc", "not a length"},
		{"length that overflows", ok + "Content-Length: 18446744073709551619\r\n\r\nabc", "not a length"},
		{"two numbers in a length", ok + "Content-Length: 3 3\r\n\r\nabc", "not a length"},
		{"folded length", ok + "Content-Length: 1\r\n 2\r\n\r\nabc", "not a length"},
		{"space before the colon of a length", ok + "Content-Length : 3\r\n\r\nabc", "before its colon"},
		{"space before the colon of a coding", ok + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "before its colon"},
		{"coding never asked for", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transfer coding"},
		{"coding that is not chunked", ok + "Transfer-Encoding: identity\r\n\r\nabc", "transfer coding"},
		{"chunked twice", ok + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "transfer coding"},
		{"chunked on two lines", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer coding"},
		{"something like chunked", ok + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "transfer coding"},
		{"quoted chunked", ok + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "transfer coding"},
		{"vertical tab around chunked", ok + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "control"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.0"},

		{"unasked 101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "101"},
		{"1xx with a length", "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nabc", "with content"},
		{"1xx with a coding", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "with content"},
		{"1xx without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17) + ok + "\r\n", "more than 16"},

		{"chunk without size", chunked("\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"chunk size with a sign", chunked("+3\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"negative chunk size", chunked("-3\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"chunk size with 0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"chunk size that is no number", chunked("xyz\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"space before a chunk size", chunked(" 3\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"two chunk sizes", chunked("3 3\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"chunk size that overflows", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), "too large"},
		{"chunk size with many zeros", chunked("00000000000000003\r\nabc\r\n0\r\n\r\n"), "no size"},
		{"chunk size beyond 63 bits", chunked("8000000000000003\r\nabc\r\n0\r\n\r\n"), "too large"},
		{"chunk line with a lone LF", chunked("3\nabc\r\n0\r\n\r\n"), "CRLF"},
		{"chunk line with a lone CR", chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), "control"},
		{"NUL in a chunk extension", chunked("3;a=\x00\r\nabc\r\n0\r\n\r\n"), "control"},
		{"chunk longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), "behind a chunk"},
		{"chunk shorter than its size", chunked("5\r\nabc\r\n0\r\n\r\n"), "behind a chunk"},
		{"lone LF behind a chunk", chunked("3\r\nabc\n0\r\n\r\n"), "behind a chunk"},
		{"long chunk extension", chunked("3;" + strings.Repeat("a", 600) + "\r\nabc\r\n0\r\n\r\n"), "line of more than"},
		{"chunk extensions without end", chunked(strings.Repeat("1;"+strings.Repeat("a", 400)+"\r\nx\r\n", 60)), "framing than content"},
		{"trailer without colon", chunked("0\r\nFoo\r\n\r\n"), "no colon"},
		{"NUL in a trailer", chunked("0\r\nFoo: a\x00\r\n\r\n"), "control"},
		{"too many trailer fields", chunked("0\r\n" + strings.Repeat("A: b\r\n", 257) + "\r\n"), "trailer fields"},
		{"trailer section too long", chunked("0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 70) + "\r\n"), "line of more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(t, Config{}, saying(c.answer))
				_, body, err := do(t.Context(), p, get())
				e := wantKind(t, err, ErrMalformed)
				var m *MalformedError
				if !errors.As(err, &m) || !strings.Contains(m.Reason, c.reason) {
					t.Errorf("the reason is %q, want something about %q", err, c.reason)
				}
				if !e.MayHaveReached {
					t.Error("MayHaveReached is false after a response")
				}
				st := p.Stats().Servers[0]
				if st.Idle != 0 || st.InFlight != 0 || st.Failures != 1 {
					t.Errorf("Stats = %+v after %q, want the connection closed and one failure", st, body)
				}
			})
		})
	}
}

func TestWhatHTTPAllowsIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		length       int64
		fields, body string
		reused       bool
	}{
		{"a length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\nabc", 200, 3, "A: b\n", "abc", true},
		{"length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0, "", "", true},
		{"equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 200, 3, "", "abc", true},
		{"equal lengths in a list", "HTTP/1.1 200 OK\r\nContent-Length: 3, 03\r\n\r\nabc", 200, 3, "", "abc", true},
		{"no reason", "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", 404, 0, "", "", true},
		{"no reason, no space", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, 0, "", "", true},
		{"lone LFs in the head", "HTTP/1.1 200 OK\nContent-Length: 3\nA: b\n\nabc", 200, 3, "A: b\n", "abc", true},
		{"until close", "HTTP/1.1 200 OK\r\nA: b\r\n\r\nabc", 200, -1, "A: b\n", "abc", false},
		{"until close, empty", "HTTP/1.1 200 OK\r\n\r\n", 200, -1, "", "", false},
		{"HTTP/1.0 until close", "HTTP/1.0 200 OK\r\n\r\nabc", 200, -1, "", "abc", false},
		{"HTTP/1.0 with a length", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", 200, 3, "", "abc", false},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, -1, "", "abcde", true},
		{"chunked and empty", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, -1, "", "", true},
		{"chunk sizes as they come", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0a\r\n0123456789\r\nB  \r\n01234567890\r\n1 ; x=\"y\"\r\n.\r\n000\r\n\r\n",
			200, -1, "", "012345678901234567890.", true},
		{"close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", 200, 3, "", "abc", false},
		{"close among others", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x-one\r\nconnection: Close , y\r\n\r\nabc", 200, 3, "", "abc", false},
		{"bytes behind the content", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 3, "", "abc", false},
		{"bytes behind the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", 200, -1, "", "", false},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", 204, 0, "", "", true},
		{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, 0, "", "", false},
		{"204 with a coding", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, 0, "", "", false},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: \"a\"\r\n\r\n", 304, 500, "ETag: \"a\"\n", "", true},
		{"100 is swallowed", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0, "", "", true},
		{"an obs-fold becomes spaces", "HTTP/1.1 200 OK\r\nA: b\r\n\t c\r\nB: x\n y\r\nContent-Length: 0\r\n\r\n", 200, 0, "A: b  \t c\nB: x  y\n", "", true},
		{"white space before a colon goes", "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n", 200, 0, "A: b\n", "", true},
		{"empty value, white space, bytes above 127", "HTTP/1.1 200 OK\r\nA:\r\nB:\t b\t\r\nC: \xe9\r\nContent-Length: 0\r\n\r\n", 200, 0, "A: \nB: b\nC: \xe9\n", "", true},
		{"several lines of a field stay", "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", 200, 0, "Set-Cookie: a\nSet-Cookie: b\n", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFake(t, Config{}, func(f *fakeConn) {
					f.readHead()
					f.say(c.answer)
					if c.reused {
						f.readHead()
					}
				})
				res, body := mustDo(t, p, get())
				if res.Status != c.status || res.ContentLength != c.length || body != c.body || lines(res.Fields) != c.fields {
					t.Errorf("got %d, length %d, fields %q, content %q; want %d, %d, %q, %q",
						res.Status, res.ContentLength, lines(res.Fields), body, c.status, c.length, c.fields, c.body)
				}
				if got := p.Stats().Servers[0].Idle == 1; got != c.reused {
					t.Errorf("the connection is kept: %v, want %v", got, c.reused)
				}
			})
		})
	}
}

func TestAResponseToHEADHasNoContent(t *testing.T) {
	for _, framing := range []string{"Content-Length: 500\r\n", "Transfer-Encoding: chunked\r\n", ""} {
		synctest.Test(t, func(t *testing.T) {
			answer := "HTTP/1.1 200 OK\r\n" + framing + "\r\n"
			p := newFake(t, Config{}, saying(answer, answer, ""))
			r := get()
			r.Method = "HEAD"
			for range 2 {
				if res, body := mustDo(t, p, r); body != "" || res.Status != 200 {
					t.Errorf("%q: got %d with content %q, want 200 with none", framing, res.Status, body)
				}
			}
			if st := p.Stats().Servers[0]; st.Opened != 1 || st.Reused != 1 {
				t.Errorf("%q: %+v, want one connection used twice", framing, st)
			}
		})
	}
}

// TestACutResponseNeverLooksComplete ends the connection behind every byte but
// the last.
func TestACutResponseNeverLooksComplete(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nA: b\r\n\r\n0123456789",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
		"1xx":     "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"lone LF": "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\r\na\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range len(answer) {
				for _, sizes := range []int{1, 512} {
					synctest.Test(t, func(t *testing.T) {
						p := newFake(t, Config{}, saying(answer[:cut]))
						res, err := p.Do(t.Context(), get())
						if err != nil {
							wantKind(t, err, ErrCut)
							return
						}
						defer res.Body.Close()
						buf := make([]byte, sizes)
						for err == nil {
							_, err = res.Body.Read(buf)
						}
						if err != io.ErrUnexpectedEOF {
							t.Errorf("cut behind %q: Read = %v, want io.ErrUnexpectedEOF", answer[:cut], err)
						}
						if _, again := res.Body.Read(buf); again != err {
							t.Errorf("cut behind %q: the next Read = %v, want %v again", answer[:cut], again, err)
						}
					})
				}
			}
		})
	}
}

func TestContentArrivesAsItComes(t *testing.T) {
	for name, c := range map[string]struct{ head, piece, end string }{
		"length":      {"Content-Length: 3\r\n", "%s", ""},
		"chunked":     {"Transfer-Encoding: chunked\r\n", "1\r\n%s\r\n", "0\r\n\r\n"},
		"until close": {"", "%s", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := make(chan bool) // the client has what was sent
				p := newFake(t, Config{}, func(f *fakeConn) {
					f.readHead()
					f.say("HTTP/1.1 200 OK\r\n" + c.head + "\r\n")
					for _, s := range []string{"a", "b", "c"} {
						<-seen
						f.say(fmt.Sprintf(c.piece, s))
					}
					<-seen
					f.say(c.end)
				})
				res, err := p.Do(t.Context(), get())
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				buf := make([]byte, 100)
				for _, want := range []string{"a", "b", "c"} {
					seen <- true
					n, err := res.Body.Read(buf)
					if string(buf[:n]) != want || err != nil && err != io.EOF {
						t.Fatalf("Read = %q, %v; want %q", buf[:n], err, want)
					}
				}
				seen <- true
				if n, err := res.Body.Read(buf); n != 0 || err != io.EOF {
					t.Errorf("the last Read = %d, %v; want io.EOF", n, err)
				}
			})
		})
	}
}

func TestSmallChunksThatCameTogetherAreOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1\r\na\r\n", 100)+"0\r\n\r\n"))
		res, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		buf := make([]byte, 200)
		if n, err := res.Body.Read(buf); n != 100 || err != io.EOF {
			t.Errorf("Read = %d, %v; want 100, io.EOF", n, err)
		}
	})
}

func TestFieldsOfOneConnectionDoNotPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying("HTTP/1.1 200 OK\r\nConnection: X-Once, keep-alive,, Cache-Control\r\nx-once: 1\r\nKeep-Alive: timeout=5\r\n"+
			"Connection: x-twice\r\nX-Twice: 2\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: x\r\nTrailer: A\r\nProxy-Authenticate: Basic\r\n"+
			"Cache-Control: private\r\nX-Kept: 3\r\nContent-Length: 0\r\n\r\n"))
		res, _ := mustDo(t, p, get())
		// Cache-Control stays: a private response must not pass for a public one.
		if got, want := lines(res.Fields), "Cache-Control: private\nX-Kept: 3\n"; got != want {
			t.Errorf("fields %q, want %q", got, want)
		}
	})
}

func TestInformationalResponsesArePassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X\r\nX: 1\r\n\r\n"+
			"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		r := get()
		var got []string
		r.OnInformational = func(status int, fields field.List) { got = append(got, fmt.Sprint(status, " ", lines(fields))) }
		_, body := mustDo(t, p, r)
		if want := "[103 Link: </a.css>\n 102 ]"; fmt.Sprint(got) != want || body != "ok" {
			t.Errorf("informational responses %q and content %q, want %q and ok", fmt.Sprint(got), body, want)
		}
	})
}

func TestTrailersArePassedOnButForbiddenOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nServer-Timing: x\r\nContent-Length: 5\r\n"+
			"Set-Cookie: a=b\r\ntransfer-encoding: chunked\r\nDigest : y\r\nCache-Control: public\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"))
		res, body := mustDo(t, p, get())
		if got, want := lines(res.Trailer()), "Server-Timing: x\nDigest: y\n"; got != want || body != "a" {
			t.Errorf("trailer %q behind %q, want %q behind a", got, body, want)
		}
		if st := p.Stats().Servers[0]; st.Idle != 1 {
			t.Errorf("%d idle connections, want 1", st.Idle)
		}
	})
}

func TestClosingABodyEarlyClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, Config{}, func(f *fakeConn) {
			f.readHead()
			f.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012")
			f.wantEnd()
		})
		res, err := p.Do(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := res.Body.Close(); err != nil {
				t.Errorf("Close = %v, want nil", err)
			}
		}
		if n, err := res.Body.Read(make([]byte, 10)); n != 0 || err != ErrClosed {
			t.Errorf("Read after Close = %d, %v; want ErrClosed", n, err)
		}
		if st := p.Stats().Servers[0]; st.InFlight != 0 || st.Idle != 0 {
			t.Errorf("%+v, want nothing in flight and nothing idle", st)
		}
	})
}
