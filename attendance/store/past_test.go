package store

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"firstbell/attendance"
)

func rowsOfThePastComeByTheirPosition(t *testing.T, b base) {
	s := open(t, b.Options)
	var events []attendance.Event
	for n := range 50 {
		events = append(events, arrival(n, time.Duration(50-n)*time.Second)) // not in the order of the key
	}
	deliver(t, s, bulk(11, events...))
	deliver(t, s, bulk(61, arrival(7, -time.Hour))) // improves on record 18
	var got []string
	for from := uint64(15); from < 63; {
		rows, err := s.Between(context.Background(), from, 63, 20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			got = append(got, fmt.Sprint(r.Seq))
			from = r.Seq + 1
		}
		if len(rows) < 20 {
			break
		}
	}
	var want []string
	for seq := 15; seq < 62; seq++ {
		if seq != 18 {
			want = append(want, fmt.Sprint(seq))
		}
	}
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		t.Errorf("got the rows\n%s\nwant\n%s", g, w)
	}
	rows, err := s.Between(context.Background(), 11, 12, 9)
	if err != nil || len(rows) != 1 {
		t.Fatalf("got %v, %v, want the one row at 11", rows, err)
	}
	want0 := arrival(0, 50*time.Second)
	want0.Seq = 11
	if row, _ := attendance.RowOf(&want0); show(rows) != show([]attendance.Row{row}) {
		t.Errorf("got %swant %s", show(rows), show([]attendance.Row{row}))
	}
}

func TestAReceiptIsFoundByAnIndex(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "a.db"))
	query, args := sqliteDialect.selectRows(&Filter{Receipt: id(1).String()})
	if plan := planOf(t, s, query, args...); !strings.Contains(plan, "arrivals_receipt (date=? AND receipt=?)") {
		t.Errorf("the plan is\n%swant a search by date and receipt", plan)
	}
}

// Without an index each bulk of a sink that lags would read the whole store.
func TestThePastIsFoundByAnIndex(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "a.db"))
	plan := planOf(t, s, sqliteDialect.selectBetween(), 1, 2, 3)
	if !strings.Contains(plan, "position>? AND position<?") || strings.Contains(plan, "TEMP B-TREE") {
		t.Errorf("the plan is\n%swant a search by position without sorting", plan)
	}
}

func planOf(t *testing.T, s *sqliteStore, query string, args ...any) string {
	t.Helper()
	plan, err := s.reader.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	var all strings.Builder
	for plan.Next() {
		var id, parent, unused int
		var detail string
		if err := plan.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		all.WriteString(detail + "\n")
	}
	return all.String()
}
