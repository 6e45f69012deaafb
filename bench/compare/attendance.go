//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"firstbell/bench/ports"
)

// postgres starts a PostgreSQL with its own settings, syncs included, on the
// servers' CPU, and returns its address. It refuses to be root.
func (a *arena) postgres(ctx context.Context) (s *server, url string, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return nil, "", errNoPostgres
	}
	bin := filepath.Dir(slices.Max(found))
	dir := filepath.Join(a.dir, "pg")
	if err := errors.Join(os.Chmod(a.dir, 0o711), os.Mkdir(dir, 0o700)); err != nil {
		return nil, "", err
	}
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		if as, err = unprivileged(); err != nil {
			return nil, "", err
		}
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, "", err
		}
	}
	init := exec.CommandContext(ctx, bin+"/initdb", "-D", dir+"/data", "-U", "school", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
	init.Dir, init.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	addr, err := ports.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	s, err = launchAs(a.halves, as, bin+"/postgres", []string{"-D", dir + "/data", "-p", portOf(addr), "-k", dir, "-c", "listen_addresses=127.0.0.1"}, nil, nil)
	if err != nil {
		return nil, "", err
	}
	s.peer = &peer{name: "postgres"}
	url = "postgres://school@" + addr + "/postgres?sslmode=disable"
	for range 100 {
		pool, err := pgxpool.New(ctx, url)
		if err == nil {
			err = pool.Ping(ctx)
			pool.Close()
		}
		if err == nil {
			return s, url, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.stop()
	return nil, "", fmt.Errorf("PostgreSQL does not answer; it said:\n%s", s.said)
}

var errNoPostgres = errors.New("PostgreSQL is not installed: no postgres in /usr/lib/postgresql/*/bin")

func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL refuses to be root, and there is neither a user postgres nor nobody")
}

// pressed is how many check-ins a turn of the attendance case has.
const pressed = 10_000

// attendance compares a check-in's whole way, into the database: through
// firstbell, which delivers in bulk, and through nginx to an application that
// writes one INSERT for each. The application costs nothing here.
func (a *arena) attendance(ctx context.Context) error {
	db, url, err := a.postgres(ctx)
	if errors.Is(err, errNoPostgres) {
		a.missing = append(a.missing, "attendance end to end ("+err.Error()+")")
		return nil
	}
	if err != nil {
		return err
	}
	defer db.stop()
	pool, err := pgxpool.New(ctx, url+"&pool_max_conns=32")
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "CREATE TABLE presses (student text, class text, at timestamptz, PRIMARY KEY (student, class))"); err != nil {
		return fmt.Errorf("making the application's table: %w", err)
	}
	insert := func(body []byte) error {
		var p struct {
			Student string `json:"student_id"`
			Class   string `json:"class_id"`
		}
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&p); err != nil {
			return err
		}
		_, err := pool.Exec(ctx, "INSERT INTO presses VALUES ($1, $2, now()) ON CONFLICT DO NOTHING", p.Student, p.Class)
		return err
	}
	a.origin.posts.Store(&insert)
	defer a.origin.posts.Store(nil)

	at, err := newSite(filepath.Join(a.dir, "firstbell-attendance"), a.origin.addr, false)
	if err != nil {
		return err
	}
	at.Postgres = url
	gate, err := peers[0].start(ctx, a.halves, a.binary, at)
	if err != nil {
		return err
	}
	defer gate.stop()
	ways := []*server{gate}
	for _, s := range a.servers {
		if s.name == "nginx" {
			ways = append(ways, s)
		}
	}
	const turns = 3
	for _, s := range ways {
		var proxy, database []float64
		for range turns + 1 { // the first is not counted: buffers and plans are made
			p, d, err := a.press(ctx, s, db)
			if err != nil {
				return fmt.Errorf("through %s: %w", s.name, err)
			}
			proxy, database = append(proxy, p), append(database, d)
		}
		p, d := spreadOf(proxy[1:]).Median, spreadOf(database[1:]).Median
		a.note("CPU us for a check-in, proxy", s, p, figure(p))
		a.note("CPU us for a check-in, database", s, d, figure(d))
		a.note("CPU us for a check-in, both", s, p+d, figure(p+d))
		a.note("the database's share", s, d/(p+d), fmt.Sprintf("%.0f %%", 100*d/(p+d)))
	}
	return nil
}

// press has a turn of check-ins made and waits until the database has them. It
// returns the CPU time of proxy and database for each.
func (a *arena) press(ctx context.Context, s, db *server) (proxy, database float64, err error) {
	c, err := newCrowd(s.site.Listen, 64)
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	before, err := s.usage()
	if err != nil {
		return 0, 0, err
	}
	dbBefore, err := db.usage()
	if err != nil {
		return 0, 0, err
	}
	d := duel{talk: []string{checkIn}}
	t := c.burst(d.requester(), 200, func(sent int) bool { return sent >= pressed })
	if err := t.bad(); err != nil {
		return 0, 0, err
	}
	if s.name == ours {
		if err := delivered(ctx, s, time.Minute); err != nil {
			return 0, 0, err
		}
	}
	after, err := s.usage()
	if err != nil {
		return 0, 0, err
	}
	dbAfter, err := db.usage()
	if err != nil {
		return 0, 0, err
	}
	each := func(sh share) float64 { return float64(sh.cpu.Nanoseconds()) / 1e3 / float64(t.answers) }
	return each(after.since(before)), each(dbAfter.since(dbBefore)), nil
}
