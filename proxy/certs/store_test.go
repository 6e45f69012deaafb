package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var serial int64

// write puts a certificate for names and its key into name.pem and name.key.
func write(t testing.TB, dir, name string, from, until time.Time, names ...string) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	leaf := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	put(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return p
}

// put writes a file that differs from the one before in its time.
func put(t testing.TB, name string, text []byte) {
	t.Helper()
	before := stampOf(name)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if stampOf(name) == before {
		if err := os.Chtimes(name, time.Time{}, before.modified.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

func everybody(string) bool { return true }

func open(t testing.TB, o Options, pairs ...Pair) *Store {
	t.Helper()
	if o.Serves == nil {
		o.Serves = everybody
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(pairs); err != nil {
		t.Fatal(err)
	}
	return s
}

// shown is the first name of the certificate for a server name.
func shown(s *Store, name string) string {
	c, err := s.choose(&tls.ClientHelloInfo{ServerName: name})
	if c == nil || err != nil {
		return fmt.Sprint(err)
	}
	return c.Leaf.DNSNames[0]
}

var (
	longAgo = time.Unix(0, 0)
	farOff  = time.Unix(1<<33, 0)
)

func TestTheBestCertificateIsShown(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{},
		write(t, dir, "first", longAgo, farOff, "first.example"),
		write(t, dir, "wild", longAgo, farOff, "*.school.example", "school.example"),
		write(t, dir, "exact", longAgo, farOff, "a.school.example"),
		write(t, dir, "again", longAgo, farOff, "other.example", "a.school.example"),
	)
	for name, want := range map[string]string{
		"first.example": "first.example", "A.SCHOOL.example": "a.school.example", "b.school.example": "*.school.example",
		"school.example": "*.school.example", "x.b.school.example": "first.example", "other.example": "other.example",
		"nobody.example": "first.example", "": "first.example", "localhost": "first.example",
	} {
		if got := shown(s, name); got != want {
			t.Errorf("%q: got the certificate of %s, want %s", name, got, want)
		}
	}
	for _, c := range []struct {
		sni, host string
		want      bool
	}{
		{"b.school.example", "c.school.example", true}, {"b.school.example", "a.school.example", true},
		{"a.school.example", "b.school.example", false}, {"", "first.example", true}, {"", "other.example", false},
		{"nobody.example", "nobody.example", false},
	} {
		if got := s.Covers(c.sni, c.host); got != c.want {
			t.Errorf("Covers(%q, %q) = %t, want %t", c.sni, c.host, got, c.want)
		}
	}
	for host, want := range map[string]bool{"*.school.example": true, "b.school.example": true, "*.other.example": false, "nobody.example": false} {
		if got := s.Has(host); got != want {
			t.Errorf("Has(%q) = %t, want %t", host, got, want)
		}
	}
}

// TestChangedFilesAreTakenAndBadOnesAreNot walks through what people do to files.
func TestChangedFilesAreTakenAndBadOnesAreNot(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	p := write(t, dir, "school", longAgo, farOff, "one.example")
	s := open(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, p)
	in := time.Now().Add(time.Hour)
	for _, step := range []struct {
		name    string
		do      func()
		shown   string
		problem string
	}{
		{"nothing", func() {}, "one.example", ""},
		{"renewed", func() { write(t, dir, "school", longAgo, farOff, "two.example") }, "two.example", ""},
		{"the key is garbage", func() { put(t, p.Key, []byte("garbage")) }, "two.example", "with the key"},
		{"the certificate is gone", func() { os.Remove(p.Cert) }, "two.example", "no such file"},
		{"mended", func() { write(t, dir, "school", longAgo, farOff, "three.example") }, "three.example", ""},
		{"the key of another", func() {
			other := write(t, dir, "other", longAgo, farOff, "other.example")
			text, _ := os.ReadFile(other.Key)
			put(t, p.Key, text)
		}, "three.example", "does not match"},
		{"expired", func() { write(t, dir, "school", longAgo, time.Now().Add(-time.Hour), "four.example") }, "three.example", "expired"},
		{"not good yet", func() { write(t, dir, "school", in, farOff, "five.example") }, "three.example", "is good from"},
		{"without a name", func() { write(t, dir, "school", longAgo, farOff) }, "three.example", "names no host"},
		{"huge", func() { put(t, p.Cert, make([]byte, fileBytesMax+1)) }, "three.example", "more than a certificate"},
		{"well again", func() { write(t, dir, "school", longAgo, farOff, "six.example") }, "six.example", ""},
	} {
		step.do()
		s.look()
		if got := shown(s, "x"); got != step.shown {
			t.Errorf("%s: shown is %s, want %s", step.name, got, step.shown)
		}
		all, problems := s.ToLookAt()
		if (problems > 0) != (step.problem != "") || !strings.Contains(all[0].Problem, step.problem) {
			t.Errorf("%s: got problems %d, %q; want %q", step.name, problems, all[0].Problem, step.problem)
		}
		lines := log.Len()
		s.look()
		if log.Len() != lines {
			t.Errorf("%s: the log says it twice", step.name)
		}
	}
}

func TestACertificateThatBeginsLaterIsTakenThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := write(t, dir, "school", longAgo, farOff, "one.example")
		s := open(t, Options{}, p)
		write(t, dir, "school", time.Now().Add(time.Hour), farOff, "two.example")
		go s.Run(t.Context())
		time.Sleep(59 * time.Minute)
		if got := shown(s, "x"); got != "one.example" {
			t.Errorf("before its time: got %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := shown(s, "x"); got != "two.example" {
			t.Errorf("in its time: got %s", got)
		}
	})
}

// TestAnExpiredCertificateIsShownWhereThereIsNoOther: a warning in the browser
// is more than no answer.
func TestAnExpiredCertificateIsShownWhereThereIsNoOther(t *testing.T) {
	p := write(t, t.TempDir(), "school", longAgo, time.Unix(1, 0), "school.example")
	s := open(t, Options{}, p)
	all, problems := s.ToLookAt()
	if shown(s, "school.example") != "school.example" || problems != 1 || !strings.Contains(all[0].Problem, "expired on 1970-01-01") {
		t.Errorf("got %+v", all)
	}
}

func TestAFileThatIsNewAndBadChangesNothing(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "one", longAgo, farOff, "one.example")
	s := open(t, Options{}, one)
	err := s.Load([]Pair{one, {filepath.Join(dir, "two.pem"), filepath.Join(dir, "two.key")}})
	if err == nil || !strings.Contains(err.Error(), "two.pem: no such file") || len(s.status()) != 1 || shown(s, "x") != "one.example" {
		t.Errorf("got %v and %+v, want the first alone", err, s.status())
	}
	if err := s.Load(nil); err != nil || len(s.status()) != 0 || s.table.Load().find("one.example") != nil {
		t.Errorf("without certificates: %v, %+v", err, s.status())
	}
}

// connect returns both ends of a connection.
func connect(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if theirs, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// shake does a handshake and returns the client's side.
func shake(t testing.TB, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ours, theirs := connect(t)
	defer ours.Close()
	defer theirs.Close()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(ours, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{0}) // behind the tickets
		}
		done <- err
	}()
	c := tls.Client(theirs, client)
	if err := c.Handshake(); err != nil {
		theirs.Close()
		<-done
		return tls.ConnectionState{}, err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), <-done
}

// TestSessionsAreResumedByEveryNodeThatHasTheKey and by none that has not.
func TestSessionsAreResumedByEveryNodeThatHasTheKey(t *testing.T) {
	dir := t.TempDir()
	p := write(t, dir, "school", longAgo, farOff, "school.example")
	keys := filepath.Join(dir, "ticket.keys")
	key := func(b byte) string { return hex.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n" }
	put(t, keys, []byte("# the first makes new tickets\n"+key(1)))
	one, two, alone := open(t, Options{TicketKeys: keys}, p), open(t, Options{TicketKeys: keys}, p), open(t, Options{}, p)
	first, second, third := one.Config("http/1.1"), two.Config("http/1.1"), alone.Config("http/1.1")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		put(t, keys, []byte(key(1)))
		one.look()
		two.look()
		client := &tls.Config{ServerName: "school.example", InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		resumed := func(server *tls.Config) bool {
			state, err := shake(t, server, client)
			if err != nil {
				t.Fatal(err)
			}
			return state.DidResume
		}
		if resumed(first) || !resumed(first) || !resumed(second) {
			t.Errorf("%s: nodes with one key do not resume each other's sessions", tls.VersionName(version))
		}
		put(t, keys, []byte(key(2)+key(1)))
		two.look()
		if !resumed(second) {
			t.Errorf("%s: with a new key, the old one is not taken", tls.VersionName(version))
		}
		put(t, keys, []byte("garbage"))
		two.look()
		if !resumed(second) || !strings.Contains(two.TicketsProblem(), "line 1") {
			t.Errorf("%s: a damaged file took the keys away, or is not shown: %q", tls.VersionName(version), two.TicketsProblem())
		}
		if resumed(third) {
			t.Errorf("%s: a node without the key resumed a session", tls.VersionName(version))
		}
	}
	if _, err := New(Options{TicketKeys: keys}); err == nil || !strings.Contains(err.Error(), "openssl rand -hex 32") {
		t.Errorf("a damaged file at the start: got %v, want an error with a way out", err)
	}
}

func TestKeysOfSessionTicketsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Options{})
		seen := map[[32]byte]bool{}
		go s.Run(t.Context())
		for range 2 * ticketKeysMax {
			s.mu.Lock()
			seen[s.tickets.keys[0]] = true
			if len(s.tickets.keys) > ticketKeysMax {
				t.Errorf("%d keys are taken, want at most %d", len(s.tickets.keys), ticketKeysMax)
			}
			s.mu.Unlock()
			time.Sleep(ticketsEvery + watchEvery)
		}
		if len(seen) != 2*ticketKeysMax {
			t.Errorf("got %d keys in %v, want %d", len(seen), 2*ticketKeysMax*ticketsEvery, 2*ticketKeysMax)
		}
	})
}

// TestASessionOpensNoOtherName: a ticket for a name of ours does not help who
// asks for one that is not.
func TestASessionOpensNoOtherName(t *testing.T) {
	p := write(t, t.TempDir(), "school", longAgo, farOff, "school.example")
	s := open(t, Options{Serves: func(name string) bool { return name == "school.example" }}, p)
	server := s.Config("http/1.1")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cache := tls.NewLRUClientSessionCache(1)
		client := &tls.Config{ServerName: "school.example", InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: cache}
		if _, err := shake(t, server, client); err != nil {
			t.Fatal(err)
		}
		session, _ := cache.Get("school.example")
		cache.Put("other.example", session)
		client.ServerName = "other.example"
		if _, err := shake(t, server, client); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: got %v, want unrecognized name", tls.VersionName(version), err)
		}
	}
}

// BenchmarkChoose is what thousands of certificates cost at a handshake.
func BenchmarkChoose(b *testing.B) {
	dir := b.TempDir()
	p := write(b, dir, "one", longAgo, farOff, "one.example")
	c, err := ReadPair(p)
	if err != nil {
		b.Fatal(err)
	}
	s := open(b, Options{})
	t := &table{exact: map[string]*certificate{}, wildcard: map[string]*certificate{}}
	for i := range 10_000 {
		t.exact[fmt.Sprintf("school-%d.example", i)] = &certificate{c, ""}
	}
	s.table.Store(t)
	hello := &tls.ClientHelloInfo{ServerName: "school-7777.example"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.configFor(hello); err != nil {
			b.Fatal(err)
		}
		if c, err := s.choose(hello); c == nil || err != nil {
			b.Fatal(err)
		}
	}
}
