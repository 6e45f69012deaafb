package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"time"
)

//go:embed report.html.tmpl
var reportTemplate string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"n":       thousands,
	"short":   short,
	"percent": func(f float64) template.CSS { return template.CSS(fmt.Sprintf("%.2f%%", f)) },
	"wide":    func(f float64) string { return fmt.Sprintf("%.1f", f*chartWidth/100) },
	"high":    func(f float64) string { return fmt.Sprintf("%.1f", chartHeight*(1-f/100)) },
}).Parse(reportTemplate))

// reportView is what the template sees.
type reportView struct {
	*figures
	Headline, Lead string
	Tiles          []tile
	Promises       []promise
	Charts         []chart
	Kinds          []kindFigures
	SchoolRows     []schoolRow
	MoreSchools    int
	Notes          []string
	Clock          []clockRow
	Command        string
	Machine        string
}

// tile is one large figure.
type tile struct{ Value, Name, Note string }

// schoolRow is a school's line in the register, with bars in per cent.
type schoolRow struct {
	schoolFigures
	PresentPart, LatePart, AbsentPart float64
}

// clockRow is one line of the table that stands for the drawings.
type clockRow struct {
	Time                                             string
	Arrived, Pressed, Receipts, Sent, Origin, Failed int64
	P99                                              time.Duration
}

// schoolsShown is how many schools the page lists; the workbook has them all.
const schoolsShown = 60

// writeReport writes the page to file: whole, or not at all.
func writeReport(file string, r *figures) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".report.tmp*")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	err = reportPage.Execute(f, r.view())
	if e := f.Chmod(0o644); err == nil {
		err = e
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (r *figures) view() reportView {
	v := reportView{
		figures: r, Headline: r.headline(), Lead: r.lead(), Tiles: r.tiles(), Promises: r.promises, Charts: r.charts(),
		Kinds: r.kinds, Clock: r.clock(), Command: r.command, Machine: r.machine,
	}
	if len(r.BrokenPromises) > 0 || r.Direct {
		v.Notes = r.notes
	}
	for i, s := range r.schools {
		if i == schoolsShown {
			v.MoreSchools = len(r.schools) - i
			break
		}
		all := float64(max(1, s.Present+s.Late+s.Absent)) / 100
		v.SchoolRows = append(v.SchoolRows, schoolRow{s, float64(s.Present) / all, float64(s.Late) / all, float64(s.Absent) / all})
	}
	return v
}

func (r *figures) lead() string {
	m := &r.morning
	s := fmt.Sprintf("%s students of %d schools open the same lessons and press check-in around the bell at %s. %.0f seconds stand for the first part of a morning.",
		thousands(int64(r.Students)), r.Schools, m.Starts.Format("15:04:05"), r.Seconds)
	switch {
	case r.Direct:
		return s + " Nothing stands between them and an e-learning platform that serves " + fmt.Sprint(r.OriginPlaces) + " requests at a time."
	case r.Kills > 0:
		return s + " In the middle firstbell is killed with SIGKILL and started again. Afterwards every receipt in a student's hands is looked up in the store, in the export and in the platform's own register."
	}
	return s + " Afterwards every receipt in a student's hands is looked up in the store, in the export and in the platform's own register."
}

func (r *figures) tiles() []tile {
	t := []tile{
		{thousands(r.Receipts), "receipts", thousands(r.ReceiptsLost) + " lost"},
		{shortMs(r.CheckinP99), "check-in, 99 of 100", shortMs(r.CheckinP50) + " median"},
		{share(r.LessonOriginRequests, r.LessonRequests), "of lesson requests reach the origin", thousands(r.LessonRequests) + " sent, " + thousands(r.LessonOriginRequests) + " arrive"},
	}
	if r.Direct {
		return append(t,
			tile{thousands(int64(r.OriginFalls)), "falls of the origin", fmt.Sprintf("%d at once, %d places", r.OriginMostAtOnce, r.OriginPlaces)},
			tile{thousands(r.AbsentThoughHere), "came and count as absent", share(r.AbsentThoughHere, int64(r.Students)) + " of all students"},
			tile{thousands(r.FailedRequests), "requests given up", thousands(r.RetriedRequests) + " tries made again"})
	}
	each := "no statement counted"
	if r.StoreStatements > 0 {
		each = fmt.Sprintf("%s check-ins each", thousands(r.Receipts/r.StoreStatements))
	}
	return append(t,
		tile{thousands(r.StoreStatements), "store statements", each},
		tile{thousands(r.BulkWrites), "bulk posts to the origin", "instead of " + thousands(r.Receipts) + " writes"},
		tile{thousands(r.Leaks), "leaks", "in " + thousands(r.ClientRequests) + " requests"})
}

// clock is the drawings as a table, in at most 60 lines.
func (r *figures) clock() []clockRow {
	c := &r.chart
	per := max(1, int(math.Ceil(float64(c.n)/60)), int(time.Second/max(c.step, time.Millisecond)))
	var rows []clockRow
	for from := 0; from < c.n; from += per {
		row := clockRow{Time: c.first.Add(time.Duration(from) * c.step).Format("15:04:05")}
		sum := func(v []float64) int64 {
			var s float64
			for i := from; i < min(from+per, c.n); i++ {
				s += v[i] * c.step.Seconds()
			}
			return int64(math.Round(s))
		}
		row.Arrived, row.Pressed, row.Receipts = sum(c.arrived), sum(c.pressed), sum(c.receipt)
		row.Sent, row.Origin, row.Failed = sum(c.sent), sum(c.origin), sum(c.failed)
		for i := from; i < min(from+per, c.n); i++ {
			row.P99 = max(row.P99, time.Duration(c.p99[i]*float64(time.Millisecond)))
		}
		rows = append(rows, row)
	}
	return rows
}

// Lost is how many tries got no answer that could be used.
func (k kindFigures) Lost() int64 {
	return k.Counts.Errors + k.Counts.Broken + k.Counts.TimedOut + k.Counts.Wrong
}
