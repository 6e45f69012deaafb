package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"firstbell/attendance"
	"firstbell/cache"
	"firstbell/proxy/admission"
	"firstbell/proxy/origin"
	"firstbell/proxy/peer"
)

func addresses(t testing.TB, texts ...string) peer.Set {
	t.Helper()
	s, err := peer.NewSet(texts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// whoAsks answers with what the origin is told of the client.
func whoAsks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprint(w, strings.Join(r.Header.Values("X-Forwarded-For"), "+"), " ", r.Header.Get("X-Forwarded-Proto"), " ", r.Header.Get("Forwarded"))
}

// ask sends a request over a connection of its own and returns the answer and
// its content; nil when there is none.
func ask(t *testing.T, c net.Conn, before, host, path string, fields ...string) (*http.Response, string) {
	t.Helper()
	defer c.Close()
	go fmt.Fprintf(c, "%sGET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", before, path, host, strings.Join(append(fields, ""), "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, ""
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("reading the answer: %v", err)
	}
	calm()
	return res, string(body)
}

func TestOnlyATrustedProxySaysWhoTheClientIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, whoAsks, plain)
		from := onStreet(t, g)
		g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8")})
		for _, c := range []struct{ from, fields, want string }{
			{"192.0.2.9", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6", "192.0.2.9 http for=192.0.2.9;host=a.example;proto=http"},
			{"10.0.0.1", "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https", "192.0.2.1 https for=192.0.2.1;host=a.example;proto=https"},
			{"10.0.0.1", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 2001:db8::1, 10.9.9.9\r\nForwarded: for=6.6.6.6", `2001:db8::1 http for="[2001:db8::1]";host=a.example;proto=http`},
			{"10.0.0.1", "X-Forwarded-Proto: wss", "10.0.0.1 http for=10.0.0.1;host=a.example;proto=http"},
			{"10.0.0.1", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http", "10.0.0.1 http for=10.0.0.1;host=a.example;proto=http"},
		} {
			if _, got := ask(t, from(c.from), "", "a.example", "/", c.fields); got != c.want {
				t.Errorf("from %s with %q: got %s, want %s", c.from, c.fields, got, c.want)
			}
		}
		g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8"), RFC7239: true})
		if _, got := ask(t, from("10.0.0.1"), "", "a.example", "/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: http", "Forwarded: for=7.7.7.7, for=192.0.2.1;proto=https"); !strings.HasPrefix(got, "192.0.2.1 https ") {
			t.Errorf("by Forwarded: got %s, want 192.0.2.1 and https", got)
		}
		if res, _ := ask(t, from("10.0.0.1"), "", "a.example", "/", `Forwarded: for="6.6.6.6, for=192.0.2.1`); res == nil || res.StatusCode != 400 {
			t.Errorf("with a malformed Forwarded: got %v, want 400", res)
		}
		if st := g.proxy.Stats().Clients; st.Unreadable != 1 {
			t.Errorf("counted %d, want 1 unreadable", st.Unreadable)
		}
	})
}

// v2Header is a header of the PROXY protocol in version 2, and v1Header in 1.
func v2Header(from string, secure bool) string {
	return string(peer.Header{From: netip.MustParseAddrPort(from), To: netip.MustParseAddrPort("198.51.100.7:443"), Secure: secure}.AppendV2(nil))
}

func v1Header(from string) string {
	return string(peer.Header{From: netip.MustParseAddrPort(from), To: netip.MustParseAddrPort("198.51.100.7:443")}.AppendV1(nil))
}

func TestThePROXYProtocolIsReadFromTrustedProxiesAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, whoAsks, plain)
		from := onStreet(t, g)
		g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8"), Preface: true, Access: Access{Deny: addresses(t, "192.0.2.66")}})
		for name, c := range map[string]struct{ from, before, fields, want string }{
			"version 1":              {"10.0.0.1", v1Header("192.0.2.1:5"), "", "192.0.2.1 http "},
			"version 2":              {"10.0.0.1", v2Header("[2001:db8::1]:5", false), "X-Forwarded-For: 6.6.6.6", "2001:db8::1 http "},
			"the client speaks TLS":  {"10.0.0.1", v2Header("192.0.2.1:5", true), "", "192.0.2.1 https "},
			"a proxy behind another": {"10.0.0.1", v1Header("10.0.0.2:5"), "X-Forwarded-For: 192.0.2.3", "192.0.2.3 http "},
			"the proxy's own":        {"10.0.0.1", "PROXY UNKNOWN\r\n", "", "10.0.0.1 http "},
			"a stranger, plainly":    {"192.0.2.9", "", "", "192.0.2.9 http "},
			"none":                   {"10.0.0.1", "", "", ""},
			"cut":                    {"10.0.0.1", "PROXY TCP4 192.0.2.1\r\n", "", ""},
			"one too many":           {"10.0.0.1", v1Header("192.0.2.1:5") + v1Header("192.0.2.2:5"), "", `{"title":"Bad Request"`},
			"of a stranger":          {"192.0.2.9", v1Header("192.0.2.1:5"), "", `{"title":"Bad Request"`},
			"of a stranger, 2":       {"192.0.2.9", v2Header("192.0.2.1:5", false), "", `{"title":"Bad Request"`},
			"of who is denied":       {"10.0.0.1", v1Header("192.0.2.66:5"), "", ""},
		} {
			var fields []string
			if c.fields != "" {
				fields = []string{c.fields}
			}
			if _, got := ask(t, from(c.from), c.before, "a.example", "/", fields...); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
		}
		silent := from("10.0.0.1")
		time.Sleep(2 * prefaceTimeMax)
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a proxy that says nothing: got %v, want the connection's end", err)
		}
		if st := g.proxy.Stats(); st.Clients.Prefaceless != 3 || st.Parted["denied"] != 1 {
			t.Errorf("counted %d without a header, %d denied; want 3 and 1", st.Clients.Prefaceless, st.Parted["denied"])
		}
	})
}

func TestAProxyMayStandBeforeTLS(t *testing.T) {
	g := newTLSGate(t, whoAsks, plain, "a.example")
	g.proxy.SetClients(&Clients{Trusted: addresses(t, "127.0.0.0/8"), Preface: true})
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(c, v2Header("192.0.2.1:5", false)); err != nil {
		t.Fatal(err)
	}
	if _, got := ask(t, tls.Client(c, &tls.Config{ServerName: "a.example", RootCAs: g.issuer.pool}), "", "a.example", "/"); !strings.HasPrefix(got, "192.0.2.1 https ") {
		t.Errorf("got %q, want 192.0.2.1 and https", got)
	}
}

func TestAddressesAreLetInByListAndByRoute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, whoAsks, func(up *Upstream) []*Route {
			return []*Route{
				{Hosts: []string{"*"}, Path: "/staff/*", Origin: up, Access: &Access{Allow: addresses(t, "192.0.2.0/28"), Deny: addresses(t, "192.0.2.5")}},
				{Hosts: []string{"*"}, Origin: up},
			}
		})
		from := onStreet(t, g)
		status := func(address, path string, fields ...string) int {
			res, _ := ask(t, from(address), "", "a.example", path, fields...)
			if res == nil {
				return 0
			}
			return res.StatusCode
		}
		check := func(when string, want map[string]int) {
			t.Helper()
			for what, w := range want {
				address, path, _ := strings.Cut(what, " ")
				path, field, _ := strings.Cut(path, " ")
				var fields []string
				if field != "" {
					fields = []string{field}
				}
				if got := status(address, path, fields...); got != w {
					t.Errorf("%s: %s: got %d, want %d", when, what, got, w)
				}
			}
		}
		routes := map[string]int{"192.0.2.1 /staff/x": 200, "192.0.2.5 /staff/x": 403, "198.51.100.1 /staff/x": 403, "198.51.100.1 /x": 200}
		check("by route alone", routes)
		g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8"), Access: Access{Allow: addresses(t, "192.0.2.0/24", "2001:db8::/32"), Deny: addresses(t, "192.0.2.128/25")}})
		check("by both", map[string]int{
			"192.0.2.1 /x": 200, "192.0.2.1 /staff/x": 200, "192.0.2.5 /staff/x": 403, "192.0.2.200 /x": 0, "198.51.100.1 /x": 0,
			"2001:db8::1 /x": 200, "2001:db9::1 /x": 0, "10.0.0.1 /x": 200,
			"10.0.0.1 /x X-Forwarded-For: 192.0.2.1": 200, "10.0.0.1 /x X-Forwarded-For: 198.51.100.1": 403,
			"10.0.0.1 /staff/x X-Forwarded-For: 192.0.2.5": 403, "10.0.0.1 /none X-Forwarded-For: 192.0.2.200": 403,
		})
		settle() // an exchange is counted behind its answer
		st := g.proxy.Stats()
		if st.Parted["denied"] != 3 || st.Outcomes["denied"] != st.Clients.Denied || st.Clients.Denied != 2+1+3 {
			t.Errorf("counted %d connections, %d outcomes, %d requests; want 3, 6, 6", st.Parted["denied"], st.Outcomes["denied"], st.Clients.Denied)
		}
	})
}

// testSchools finds schools by the first label.
func testSchools(t *testing.T) *attendance.Schools {
	t.Helper()
	s, err := attendance.NewSchools(time.UTC, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARateHoldsOneClientAndNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGate(t, whoAsks, plain)
		from := onStreet(t, g)
		g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8"), PerClient: Allowance{Rate: admission.Rate{Every: time.Second, Burst: 3}}})
		through := func(address string, n int, fields ...string) (ok int) {
			for range n {
				res, body := ask(t, from(address), "", "a.example", "/", fields...)
				switch {
				case res == nil:
					t.Fatalf("from %s: no answer", address)
				case res.StatusCode == 200:
					ok++
				case res.StatusCode != 429:
					t.Errorf("from %s: got %d, want 429", address, res.StatusCode)
				default:
					if after, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || after < 1 || after > 60 || !strings.Contains(body, "network") {
						t.Errorf("from %s: got Retry-After %q and %q", address, res.Header.Get("Retry-After"), body)
					}
				}
			}
			return ok
		}
		for what, want := range map[string]int{"192.0.2.1": 3, "192.0.2.2": 3, "2001:db8::1": 3, "10.0.0.1": 10} {
			if got := through(what, 10); got != want {
				t.Errorf("10 from %s: %d got through, want %d", what, got, want)
			}
		}
		if got := through("2001:db8::ffff", 5); got != 0 {
			t.Errorf("5 from the same /64: %d got through, want 0", got)
		}
		if got := through("10.0.0.1", 5, "X-Forwarded-For: 192.0.2.1"); got != 0 {
			t.Errorf("5 of the same client through a proxy: %d got through, want 0", got)
		}
		time.Sleep(2 * time.Second)
		if got := through("192.0.2.1", 5); got != 2 {
			t.Errorf("5 two seconds later: %d got through, want 2", got)
		}
		settle() // an exchange is counted behind its answer
		if st := g.proxy.Stats(); st.Clients.Limited["client-rate"] != st.Outcomes["limited"] || st.Clients.Clients != 3 {
			t.Errorf("counted %v of %d clients, outcomes %d", st.Clients.Limited, st.Clients.Clients, st.Outcomes["limited"])
		}
	})
}

func TestASchoolHasSoManyAtOnceAndOthersGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		hold := make(chan struct{})
		g := newGate(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-hold
			}
			whoAsks(w, r)
		}, plain)
		from := onStreet(t, g)
		g.proxy.SetClients(&Clients{Schools: testSchools(t), PerSchool: Allowance{AtOnce: 2}})
		statuses := make(chan int, 5)
		for i := range 5 {
			go func() {
				res, _ := ask(t, from(fmt.Sprintf("192.0.2.%d", i)), "", "hangang.school.example", "/slow")
				statuses <- res.StatusCode
			}()
		}
		settle()
		if res, _ := ask(t, from("192.0.2.77"), "", "dongbu.school.example", "/"); res.StatusCode != 200 {
			t.Errorf("another school: got %d, want 200", res.StatusCode)
		}
		close(hold)
		var got []int
		for range 5 {
			got = append(got, <-statuses)
		}
		slices.Sort(got)
		if want := []int{200, 200, 429, 429, 429}; !slices.Equal(got, want) {
			t.Errorf("5 of a school at once: got %v, want %v", got, want)
		}
		if res, _ := ask(t, from("192.0.2.1"), "", "hangang.school.example", "/"); res.StatusCode != 200 {
			t.Errorf("afterwards: got %d, want 200", res.StatusCode)
		}
		if st := g.proxy.Stats().Clients.Limited["school-at-once"]; st != 3 {
			t.Errorf("counted %d, want 3", st)
		}
	})
}

// TestNoLimitLocksASchoolOutOfCheckingIn: by itself no limit counts check-ins.
func TestNoLimitLocksASchoolOutOfCheckingIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := checkInGate(t, &brokenDisk{})
		from := onStreet(t, g)
		press := func(student int) int {
			c := from("192.0.2.1") // all of them, behind one address
			defer c.Close()
			body := fmt.Sprintf(`{"student_id": "s%d", "at": {"class": "1"}}`, student)
			go fmt.Fprintf(c, "POST /check-in HTTP/1.1\r\nHost: hangang.school.example\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return statusOf(c)
		}
		tight := Allowance{Rate: admission.Rate{Every: time.Minute, Burst: 1}, AtOnce: 1}
		g.proxy.SetClients(&Clients{Schools: testSchools(t), PerClient: tight, PerSchool: tight})
		for i := range 50 {
			if got := press(i); got != 200 {
				t.Fatalf("press %d: got %d, want 200", i, got)
			}
		}
		tight.CheckIns = true // said out loud
		g.proxy.SetClients(&Clients{Schools: testSchools(t), PerSchool: tight})
		if first, second := press(100), press(101); first != 200 || second != 429 {
			t.Errorf("with check_ins: got %d and %d, want 200 and 429", first, second)
		}
	})
}

// TestAHitThatIsCountedAllocatesNothing is TestAHitAllocatesNothing with limits.
func TestAHitThatIsCountedAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	g, dial := tcpGate(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600, no-transform")
		io.WriteString(w, "page")
	}, cached(cache.Policy{}))
	g.proxy.SetClients(&Clients{
		Trusted: addresses(t, "10.0.0.0/8"), Access: Access{Deny: addresses(t, "192.0.2.0/24")},
		PerClient: Allowance{Rate: admission.Rate{Every: time.Nanosecond, Burst: 1000}, AtOnce: 10},
	})
	c := dial()
	request, buf := []byte(hitRequest), make([]byte, 4<<10)
	once := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\npage")); {
			more, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
	}
	once()
	if n := testing.AllocsPerRun(2000, once); n >= 0.5 {
		t.Errorf("got %v allocations per hit, want none", n)
	}
}

// TestAnOriginIsToldInFrontWhomAConnectionIsFor has one that reads the PROXY
// protocol behind firstbell, and a trusted proxy before it.
func TestAnOriginIsToldInFrontWhomAConnectionIsFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		originLn := fasthttputil.NewInmemoryListener()
		headers := make(chan peer.Header, 1)
		go func() {
			for {
				c, err := originLn.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					h, err := peer.ReadHeader(c)
					if err != nil {
						t.Errorf("reading the header: %v", err)
						return
					}
					headers <- h
					if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
						t.Errorf("reading the request: %v", err)
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\r\n")
				}()
			}
		}()
		g := &gate{t: t, ln: fasthttputil.NewInmemoryListener()}
		g.start(originLn.Dial, func(up *Upstream) []*Route {
			pool, err := origin.New(origin.Config{Name: "lms", Servers: []string{"http://origin.test"}, Preface: 2,
				Dial: func(context.Context, string, string) (net.Conn, error) { return originLn.Dial() }})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pool.Close() })
			told := &Upstream{Name: "lms", Pool: pool, Limit: up.Limit}
			return []*Route{{Hosts: []string{"*"}, Path: "/cached/*", Origin: told, Cache: &cache.Policy{}}, {Hosts: []string{"*"}, Origin: told}}
		}, func() { originLn.Close() })
		from := onStreet(t, g)
		tell := func(prefaced bool) {
			g.proxy.SetClients(&Clients{Trusted: addresses(t, "10.0.0.0/8"), Preface: prefaced})
		}
		for _, c := range []struct {
			from, before, path, fields, want string
		}{
			{"192.0.2.1", "", "/", "", "192.0.2.1:5000 to 0.0.0.0:0"},
			{"192.0.2.1", "", "/cached/x", "", "192.0.2.1:5000 to 0.0.0.0:0"},
			{"2001:db8::1", "", "/", "X-Forwarded-For: 6.6.6.6", "[2001:db8::1]:5000 to [::]:0"},
			{"10.0.0.1", "", "/", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https", "192.0.2.1:0 to 0.0.0.0:0 over TLS"},
			{"10.0.0.1", v1Header("192.0.2.1:77"), "/", "", "192.0.2.1:77 to 198.51.100.7:443"},
		} {
			tell(c.before != "")
			var fields []string
			if c.fields != "" {
				fields = []string{c.fields}
			}
			if res, _ := ask(t, from(c.from), c.before, "a.example", c.path, fields...); res == nil || res.StatusCode != 200 {
				t.Fatalf("from %s: got %v, want 200", c.from, res)
			}
			h := <-headers
			got := fmt.Sprintf("%s to %s", h.From, h.To)
			if h.Secure {
				got += " over TLS"
			}
			if got != c.want {
				t.Errorf("from %s with %q: the origin is told %s, want %s", c.from, c.before+c.fields, got, c.want)
			}
		}
	})
}
