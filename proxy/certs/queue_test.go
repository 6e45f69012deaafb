package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errNamed, errHasty = errors.New("the CA could not reach the name"), errors.New("too many requests")

// fakeCA issues certificates in no time, and checks what a queue promises.
type fakeCA struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	life   time.Duration
	takes  time.Duration // per order
	onDisk map[string]*tls.Certificate

	mu     sync.Mutex // guards what follows
	fails  func(name string) error
	asked  map[string][]time.Time
	busy   int
	most   int // at once
	serial int64
}

func newFakeCA(t *testing.T) *fakeCA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{t: t, key: key, life: 90 * 24 * time.Hour, takes: time.Second, asked: map[string][]time.Time{}}
}

func (f *fakeCA) order(ctx context.Context, name string, renew bool) (*tls.Certificate, error) {
	f.mu.Lock()
	f.asked[name] = append(f.asked[name], time.Now())
	f.busy++
	f.most = max(f.most, f.busy)
	f.mu.Unlock()
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy--
	if f.fails != nil {
		if err := f.fails(name); err != nil {
			return nil, err
		}
	}
	return f.issueLocked(name), ctx.Err()
}

func (f *fakeCA) issueLocked(name string) *tls.Certificate {
	f.serial++
	leaf := &x509.Certificate{SerialNumber: big.NewInt(f.serial), DNSNames: []string{name}, NotBefore: time.Now(), NotAfter: time.Now().Add(f.life)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, f.key.Public(), f.key)
	if err != nil {
		f.t.Error(err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: f.key}
	c.Leaf, _ = x509.ParseCertificate(der)
	return c
}

func (f *fakeCA) load(_ context.Context, name string) (*tls.Certificate, error) {
	return f.onDisk[name], nil
}

func (f *fakeCA) blame(err error) blame {
	switch err {
	case errNamed:
		return blameName
	case errHasty:
		return blameHaste
	}
	return blameCA
}

func (f *fakeCA) failing(with func(name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = with
}

// times returns how often the CA was asked, for a name or for all.
func (f *fakeCA) times(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "" {
		return len(f.asked[name])
	}
	n := 0
	for _, at := range f.asked {
		n += len(at)
	}
	return n
}

// queued runs a queue in a bubble until the test's end.
func queued(t *testing.T, f *fakeCA, limits Limits, names ...string) (*queue, *lines) {
	var log lines
	q := newQueue(f, limits, slog.New(slog.NewTextHandler(&log, nil)), func() {})
	q.want(t.Context(), names)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); q.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return q, &log
}

func schools(n int, domain string) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("school-%d.%s", i, domain)
	}
	return names
}

func TestNamesGetCertificatesAFewAtATimeAndKeepThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		var names []string
		for i := range 60 {
			names = append(names, fmt.Sprintf("www.school-%d.example", i))
		}
		q, _ := queued(t, f, Limits{OrdersPerHour: 20}, names...)
		for hour, want := range []int{20, 40, 60, 60} {
			time.Sleep(59 * time.Minute)
			if st, _ := q.stats(); st.Wanted-st.Missing != want || f.times("") != want {
				t.Errorf("in hour %d: got %+v and %d orders, want %d", hour, st, f.times(""), want)
			}
			time.Sleep(time.Minute)
		}
		f.mu.Lock()
		if f.most != 4 {
			t.Errorf("at most %d orders at once, want 4", f.most)
		}
		f.mu.Unlock()
		time.Sleep(2 * 365 * 24 * time.Hour)
		f.mu.Lock()
		defer f.mu.Unlock()
		days := map[int64]int{}
		for name, at := range f.asked {
			if n := len(at); n < 13 || n > 14 { // every 60 days, or up to 7.5 less
				t.Fatalf("%s was ordered %d times in two years", name, n)
			}
			for i, one := range at[1:] {
				if left := at[i].Add(f.life).Sub(one); left < f.life/3-2*time.Hour || left > f.life*5/12+time.Hour {
					t.Fatalf("%s was renewed with %v left", name, left)
				}
			}
			days[at[1].Unix()/86400]++
		}
		if len(days) < 7 {
			t.Errorf("renewals fell on %v, want them spread over a week", days)
		}
	})
}

func TestADomainGetsNoMoreNewCertificatesAWeekThanItsCABears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		names := append(schools(50, "city.example"), schools(5, "town.example")...)
		f.onDisk = map[string]*tls.Certificate{names[0]: f.issueLocked(names[0])} // of before the start: it counts
		q, _ := queued(t, f, Limits{NewPerDomain: 20}, names...)
		for week, want := range []int{25, 45, 55} {
			time.Sleep(6 * 24 * time.Hour)
			st, problems := q.stats()
			if st.Wanted-st.Missing != want {
				t.Errorf("in week %d: got %d, want %d", week, st.Wanted-st.Missing, want)
			}
			waiting := slices.ContainsFunc(problems, func(s Status) bool { return strings.Contains(s.Problem, "city.example has had 20 new certificates") })
			if waiting != (want < 55) {
				t.Errorf("in week %d: it is told %t that names wait", week, waiting)
			}
			time.Sleep(24 * time.Hour)
		}
	})
}

func TestANameAtFaultIsTriedLessAndLessAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		f.failing(func(name string) error {
			if name == "gone.example" {
				return errNamed
			}
			return nil
		})
		q, log := queued(t, f, Limits{}, "gone.example", "a.example", "b.example")
		time.Sleep(time.Hour)
		if n := f.times("gone.example"); n < 3 || n > 4 {
			t.Errorf("tried %d times in the first hour, want 3 or 4: Let's Encrypt bears 5", n)
		}
		st, problems := q.stats()
		if st.Missing != 1 || st.Failing != 1 || st.Paused != "" {
			t.Errorf("got %+v, want one missing and no pause", st)
		}
		if i := slices.IndexFunc(problems, func(s Status) bool { return s.Names[0] == "gone.example" }); problems[i].Problem != errNamed.Error() {
			t.Errorf("its problem is %q", problems[i].Problem)
		}
		if !strings.Contains(log.String(), "gone.example") {
			t.Error("the log does not name it")
		}
		time.Sleep(7 * 24 * time.Hour)
		if n := f.times("gone.example"); n > 4+30 {
			t.Errorf("tried %d times in a week", n)
		}
		f.failing(nil)
		time.Sleep(againMax + time.Hour)
		if st, _ := q.stats(); st.Missing != 0 || st.Failing != 0 {
			t.Errorf("once it can be reached: got %+v", st)
		}
	})
}

func TestACAThatIsDownIsAskedSeldomAndAllGoOnAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		q, log := queued(t, f, Limits{NewPerDomain: 1000}, schools(40, "example")...)
		time.Sleep(time.Hour)
		down := errors.New("dial tcp: connection refused")
		f.failing(func(string) error { return down })
		asked := f.times("")
		time.Sleep(85 * 24 * time.Hour) // renewals fall due from day 52 on
		st, _ := q.stats()
		if n := f.times("") - asked; n < 100 || n > 33*24*2 {
			t.Errorf("asked %d times in 33 days, want about one an hour", n)
		}
		if st.Paused != down.Error() || st.Missing != 0 || len(q.certificates()) != 40 {
			t.Errorf("got %+v, want it paused and every certificate there", st)
		}
		if !strings.Contains(log.String(), "no certificates are got for now") {
			t.Error("the log does not say that nothing is got")
		}
		f.failing(nil)
		time.Sleep(2 * time.Hour)
		for _, c := range q.certificates() {
			if left := time.Until(c.Leaf.NotAfter); left < 60*24*time.Hour {
				t.Fatalf("two hours after the CA came back %s has %v left", c.Leaf.DNSNames[0], left)
			}
		}
		if st, _ := q.stats(); st.Paused != "" || st.Failing != 0 {
			t.Errorf("after: got %+v", st)
		}
	})
}

// TestOneNameThatNeverEndsDoesNotStopTheOthers: the CA seems to be at fault.
func TestOneNameThatNeverEndsDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		f.failing(func(name string) error {
			if name == "endless.example" {
				return context.DeadlineExceeded
			}
			return nil
		})
		q, _ := queued(t, f, Limits{NewPerDomain: 1000}, append(schools(60, "school.example"), "endless.example")...)
		time.Sleep(3 * time.Hour)
		if st, _ := q.stats(); st.Missing != 1 {
			t.Errorf("after three hours: got %+v, want all but one", st)
		}
		if n := f.times("endless.example"); n > 5 {
			t.Errorf("it was tried %d times", n)
		}
	})
}

func TestWhoAskedTooOftenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		f.failing(func(string) error { return errHasty })
		queued(t, f, Limits{}, "a.example")
		time.Sleep(6 * time.Hour)
		if n := f.times("a.example"); n > 7 {
			t.Errorf("asked %d times in six hours, want once an hour at most", n)
		}
	})
}

func TestNamesThatLeaveAreLetGoOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCA(t)
		q, _ := queued(t, f, Limits{}, "a.example", "b.example")
		time.Sleep(time.Minute)
		q.want(t.Context(), []string{"b.example", "c.example"})
		time.Sleep(time.Minute)
		var got []string
		for _, c := range q.certificates() {
			got = append(got, c.Leaf.DNSNames[0])
		}
		if fmt.Sprint(got) != "[b.example c.example]" || f.times("b.example") != 1 {
			t.Errorf("got %v, and %d orders for b", got, f.times("b.example"))
		}
	})
}
