package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"firstbell/attendance"
	"firstbell/attendance/timetable"
)

// postgres is a Store in a PostgreSQL database, in its schema firstbell.
type postgres struct {
	where  string // user, host and database, for people
	place  *place
	pool   *pgxpool.Pool
	writes atomic.Uint64
	mayDo  bool          // opened for writing
	wait   time.Duration // deliverWait

	mu    sync.Mutex // guards what follows
	ready bool       // the schema is the one this program knows
	hold  hold

	// Used only by Deliver, which one goroutine calls at a time.
	rows    []*attendance.Event
	fresh   int // the first of rows should have no other of their key
	presses []press
	arrays  arrays
}

var postgresDialect = &dialect{
	schema:    "firstbell.",
	parameter: func(n int) string { return fmt.Sprintf("$%d", n) },
	uuid:      func(n int) string { return fmt.Sprintf("$%d::text::uuid", n) },
	presses:   "greatest",
	read: [len(columns)]string{
		0:  "date::text",
		7:  "(extract(epoch FROM first_arrival) * 1000)::bigint",
		8:  "utc_offset::bigint",
		10: "uuid_send(receipt)",
	},
}

const (
	// A large bulk goes over up to deliverersMax connections at once; there are
	// two more for readers. A morning needs no more, and the database has other
	// guests.
	deliverersMax  = 4
	connectionsMax = deliverersMax + 2

	// partRows is from how many rows a connection of its own pays.
	partRows = 2 * rowsPerStatement

	connectWait = 5 * time.Second

	// deliverWait bounds one bulk. A database that takes longer is tried again,
	// with a pause.
	deliverWait = time.Minute

	// The database itself ends what waits or works for longer, so that nothing
	// of ours stays behind when the network is cut.
	bounds = "SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '30s', true)," +
		" set_config('idle_in_transaction_session_timeout', '30s', true)"

	// Whoever writes a part of a bulk need not sync: the commit that moves the
	// position comes after it, and syncs (and sends to standbys) all before it.
	partBounds = bounds + ", set_config('synchronous_commit', 'off', true)"

	movePosition = "UPDATE firstbell.deliveries SET next = $1 WHERE journal = $2 AND epoch = $3 AND next = $4"

	takeOver = "INSERT INTO firstbell.deliveries (journal, next, epoch, holder, since) VALUES ($1, 0, 1, $2, now())" +
		" ON CONFLICT (journal) DO UPDATE SET epoch = deliveries.epoch + 1, holder = excluded.holder, since = excluded.since RETURNING epoch, next"
)

// The statements take one array for each column. They are for rows that may meet
// one of their key, and for all of a bulk that did; the others are copied.
var (
	upsertArrivals = postgresDialect.insertInto() +
		"SELECT unnest($1::date[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::text[]), unnest($7::text[])," +
		" unnest($8::timestamptz[]), unnest($9::smallint[]), unnest($10::boolean[]), unnest($11::uuid[]), unnest($12::text[]), unnest($13::bigint[])" +
		postgresDialect.upsertRows()

	upsertCounts = "INSERT INTO firstbell.presses AS p (receipt, presses) SELECT * FROM unnest($1::uuid[], $2::bigint[])" + postgresDialect.upsertPresses()
)

// parsePostgres reads the location. Its errors show no password.
func parsePostgres(o Options) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(o.Location)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: it cannot be understood; want postgres://USER@HOST:PORT/DATABASE%s", Shown(o.Location), reasonOf(err))
	}
	if o.Password != "" {
		c.ConnConfig.Password = o.Password
	}
	if c.ConnConfig.Database == "" {
		return nil, fmt.Errorf("opening store %s: it names no database; want postgres://USER@HOST:PORT/DATABASE", Shown(o.Location))
	}
	c.MaxConns, c.MinConns, c.MinIdleConns = connectionsMax, 0, 0
	if c.ConnConfig.ConnectTimeout == 0 || c.ConnConfig.ConnectTimeout > connectWait {
		c.ConnConfig.ConnectTimeout = connectWait
	}
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "firstbell"
	}
	return c, nil
}

func openPostgres(o Options, p *place, mayWrite bool) (*postgres, error) {
	c, err := parsePostgres(o)
	if err != nil {
		return nil, err
	}
	// Making a pool connects to nobody.
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", Shown(o.Location), err)
	}
	where := fmt.Sprintf("postgres %s@%s:%d/%s", c.ConnConfig.User, c.ConnConfig.Host, c.ConnConfig.Port, c.ConnConfig.Database)
	return &postgres{where: where, place: p, pool: pool, mayDo: mayWrite, wait: deliverWait}, nil
}

// Close lets go of the connections. Reading iterators must have ended.
func (s *postgres) Close() error {
	s.pool.Close()
	if s.mayDo {
		s.place.close()
	}
	return nil
}

// Writes implements Store.
func (s *postgres) Writes() uint64 { return s.writes.Load() }

// Known implements Store.
func (s *postgres) Known() uint64 { return s.place.known.Load() }

// Position implements attendance.Target and Reader. In a store for writing, the
// first one brings the schema up to date and takes the delivery over.
func (s *postgres) Position(ctx context.Context) (attendance.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	next, err := s.position(ctx)
	if err != nil {
		return attendance.Position{}, s.about("reading the position of", err)
	}
	return attendance.Position{Next: next}, nil
}

func (s *postgres) position(ctx context.Context) (next uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.prepareLocked(ctx); err != nil {
		return 0, err
	}
	if s.mayDo && s.hold.epoch == 0 {
		var held hold
		if err := s.pool.QueryRow(ctx, takeOver, s.place.journal, holder()).Scan(&held.epoch, &held.left); err != nil {
			return 0, err
		}
		s.hold = held
		return held.left, nil
	}
	err = s.pool.QueryRow(ctx, "SELECT next FROM firstbell.deliveries WHERE journal = $1", s.place.journal).Scan(&next)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return next, err
}

// prepareLocked makes sure, once, that the schema is the one this program
// knows. s.mu is held.
func (s *postgres) prepareLocked(ctx context.Context) error {
	if s.ready {
		return nil
	}
	var err error
	if s.mayDo {
		err = migratePostgres(ctx, s.pool)
	} else {
		err = readablePostgres(ctx, s.pool)
	}
	s.ready = err == nil
	return err
}

// Deliver implements attendance.Target. The position moves with all of the bulk
// or stays; then rows of the bulk may be there already.
func (s *postgres) Deliver(ctx context.Context, b *attendance.Bulk) (attendance.Delivered, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	s.rows, s.presses = fold(b, s.rows, s.presses)
	defer func() { clear(s.rows) }()
	s.mu.Lock()
	held := s.hold
	s.mu.Unlock()
	if held.epoch == 0 {
		return attendance.Delivered{}, s.about("writing to", errors.New("its position was never asked for"))
	}
	s.fresh = partition(s.rows)
	done, err := s.write(ctx, b.Next, held)
	if codeOf(err) == uniqueViolation {
		// Delivered before, or another journal's: all of it with an eye on that.
		s.fresh = 0
		done, err = s.write(ctx, b.Next, held)
	}
	if errors.Is(err, errNotHeld) {
		err = s.refused(ctx, held)
	}
	if err != nil {
		return attendance.Delivered{}, s.about("writing to", err)
	}
	s.writes.Add(uint64(done.Writes))
	s.mu.Lock()
	s.hold.left = b.Next
	s.mu.Unlock()
	s.place.note(b.Next)
	done.Duplicates = len(s.rows) - done.Rows
	return done, nil
}

const uniqueViolation = "23505"

// partition moves those that may meet a row of their key to the end, keeps the
// order otherwise, and returns how many are before them.
func partition(rows []*attendance.Event) (fresh int) {
	slices.SortStableFunc(rows, func(a, b *attendance.Event) int {
		switch x, y := mayMeet(a), mayMeet(b); {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	})
	fresh = slices.IndexFunc(rows, mayMeet)
	if fresh < 0 {
		return len(rows)
	}
	return fresh
}

// write is one transaction that moves the position. Of a large bulk of fresh
// rows it writes a part, and others write the rest meanwhile: the position
// moves only when all are committed, and what a broken attempt leaves behind is
// found again by its keys.
func (s *postgres) write(ctx context.Context, next uint64, held hold) (done attendance.Delivered, err error) {
	s.arrays.fill(s.rows[s.fresh:])
	helpers := s.helpers(ctx)
	defer func() {
		for _, c := range helpers {
			c.Release()
		}
	}()
	share := s.fresh / (len(helpers) + 1)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.move(ctx, tx, next, held); err != nil {
			return err
		}
		parts := make([]outcome, len(helpers))
		var all sync.WaitGroup
		for i, c := range helpers {
			all.Go(func() { parts[i] = writePart(ctx, c, s.rows[i*share:(i+1)*share]) })
		}
		own := s.writeRest(ctx, tx, s.rows[len(helpers)*share:s.fresh])
		all.Wait()
		done.Rows, done.Writes, err = own.rows, 1+own.statements, own.err
		for _, p := range parts {
			done.Rows, done.Writes, err = done.Rows+p.rows, done.Writes+p.statements, errors.Join(err, p.err)
		}
		return err
	})
	return done, err
}

// helpers are the connections that write a part of the bulk; fewer than would
// pay, or none, when the database has no more.
func (s *postgres) helpers(ctx context.Context) (conns []*pgxpool.Conn) {
	for len(conns) < min(s.fresh/partRows, deliverersMax)-1 {
		c, err := s.pool.Acquire(ctx)
		if err != nil {
			break // whoever needs a connection says what is wrong
		}
		conns = append(conns, c)
	}
	return conns
}

// outcome is what became of a part of a bulk.
type outcome struct {
	rows, statements int
	err              error
}

// move moves the position. Its row is the lock between two writers, until the
// transaction ends.
func (s *postgres) move(ctx context.Context, tx pgx.Tx, next uint64, held hold) error {
	var batch pgx.Batch
	batch.Queue(bounds)
	batch.Queue(movePosition, int64(next), s.place.journal, held.epoch, int64(held.left)).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return errNotHeld
		}
		return nil
	})
	return tx.SendBatch(ctx, &batch).Close()
}

// writePart writes a part of the fresh rows in a transaction of its own.
func writePart(ctx context.Context, c *pgxpool.Conn, fresh []*attendance.Event) (o outcome) {
	o.err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, partBounds); err != nil {
			return err
		}
		o.copy(ctx, tx, fresh)
		return o.err
	})
	return o
}

// writeRest writes the last part of the fresh rows, and everything else.
func (s *postgres) writeRest(ctx context.Context, tx pgx.Tx, fresh []*attendance.Event) (o outcome) {
	if o.copy(ctx, tx, fresh); o.err != nil {
		return o
	}
	var batch pgx.Batch
	o.queueUpserts(&batch, &s.arrays, len(s.rows)-s.fresh)
	for from := 0; from < len(s.presses); from += rowsPerStatement {
		ids, counts := countArrays(s.presses[from:min(from+rowsPerStatement, len(s.presses))])
		batch.Queue(upsertCounts, ids, counts)
		o.statements++
	}
	if batch.Len() > 0 {
		o.err = tx.SendBatch(ctx, &batch).Close()
	}
	return o
}

// copy writes fresh rows, if there are any.
func (o *outcome) copy(ctx context.Context, tx pgx.Tx, fresh []*attendance.Event) {
	if len(fresh) == 0 {
		return
	}
	rows, err := copyRows(ctx, tx.Conn().PgConn(), fresh)
	o.rows, o.statements, o.err = o.rows+rows, o.statements+1, err
}

// queueUpserts puts the statements for so many rows of the arrays into the
// batch, which counts what they write.
func (o *outcome) queueUpserts(batch *pgx.Batch, a *arrays, rows int) {
	for from := 0; from < rows; from += rowsPerStatement {
		batch.Queue(upsertArrivals, a.args(from, min(from+rowsPerStatement, rows))...).Exec(func(tag pgconn.CommandTag) error {
			o.rows += int(tag.RowsAffected())
			return nil
		})
		o.statements++
	}
}

// errNotHeld ends a transaction whose position is not where this process left
// it.
var errNotHeld = errors.New("the position could not be moved")

// refused says why the position could not be moved, and lets go of what is held
// unless somebody else has it.
func (s *postgres) refused(ctx context.Context, held hold) error {
	var found hold
	var holder string
	err := s.pool.QueryRow(ctx, "SELECT epoch, next, holder || ', since ' || since FROM firstbell.deliveries WHERE journal = $1", s.place.journal).
		Scan(&found.epoch, &found.left, &holder)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if err = held.refusal(found, holder); errors.Is(err, attendance.ErrMoved) {
		s.mu.Lock()
		s.hold = hold{}
		s.mu.Unlock()
	}
	return err
}

// Rows implements Reader.
func (s *postgres) Rows(ctx context.Context, f Filter) iter.Seq2[attendance.Row, error] {
	return s.queries().rows(ctx, f)
}

// Count implements Reader.
func (s *postgres) Count(ctx context.Context, f Filter) (map[timetable.Status]int, error) {
	return s.queries().count(ctx, f)
}

func (s *postgres) queries() queries {
	ask := func(ctx context.Context, query string, args []any) (lines, func(), error) {
		rows, err := s.query(ctx, query, args)
		if err != nil {
			return nil, nil, err
		}
		return rows, rows.Close, nil
	}
	return queries{postgresDialect, ask, s.about}
}

func (s *postgres) query(ctx context.Context, text string, args []any) (pgx.Rows, error) {
	s.mu.Lock()
	err := s.prepareLocked(ctx)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.pool.Query(ctx, text, args...)
}
