package proxy

import (
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/bench/raw/corpus"
	"firstbell/cache"
)

// TestNoRequestHasASecondMeaning plays every raw request and every raw answer
// of the corpus on sockets: the origin sees what was judged or nothing, no
// field that a stranger must not send, and every valid request; a client gets
// no answer that is cut, malformed or somebody else's.
func TestNoRequestHasASecondMeaning(t *testing.T) {
	cases, err := corpus.Read()
	if err != nil {
		t.Fatal(err)
	}
	for name, routes := range map[string]func(*Upstream) []*Route{
		"passed on": plain,
		"cached":    cached(cache.Policy{DefaultTTL: time.Hour}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			originLn, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			g := &gate{t: t, ln: fasthttputil.NewInmemoryListener()}
			g.start(func() (net.Conn, error) { return net.Dial("tcp", originLn.Addr().String()) }, routes, func() { originLn.Close() })
			outcomes, err := corpus.Play(t.Context(), corpus.Options{Dial: g.serveTCP(), Origin: originLn, Host: "school.example", Wait: 20 * time.Second}, cases)
			if err != nil {
				t.Fatal(err)
			}
			if len(outcomes) != len(cases) {
				t.Errorf("got %d outcomes of %d cases: %+v", len(outcomes), len(cases), outcomes[len(outcomes)-1])
			}
			for _, o := range outcomes {
				if o.Verdict.Bad() || o.Verdict == corpus.Silent {
					t.Errorf("%s (RFC %s): %s: %s", o.Name, o.RFC, o.Verdict, o.Detail)
				}
			}
		})
	}
}
