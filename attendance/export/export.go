package export

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"firstbell/attendance"
	"firstbell/attendance/roster"
	"firstbell/attendance/timetable"
)

// Format is how the register is written.
type Format string

const (
	CSV  Format = "csv"
	XLSX Format = "xlsx"
	JSON Format = "jsonl"
)

// ParseFormat reads csv, xlsx or jsonl.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case CSV, XLSX, JSON:
		return f, nil
	}
	return "", fmt.Errorf("%.20q is not a format; choose csv, xlsx or jsonl", s)
}

// Filter says which part of the register is wanted. Empty texts let everything
// through.
type Filter struct {
	From   timetable.Date
	To     timetable.Date // the last day; the zero Date stands for From
	School string
	Class  string
	Period string
}

// daysMax bounds a register: a school year.
const daysMax = 366

func (f *Filter) validate() error {
	if f.From == (timetable.Date{}) {
		return errors.New("no date to export; name one")
	}
	if f.To == (timetable.Date{}) {
		f.To = f.From
	}
	if f.To.Compare(f.From) < 0 {
		return fmt.Errorf("the last day %s comes before the first, %s; swap them", f.To, f.From)
	}
	if f.To.Compare(f.From.AddDays(daysMax)) >= 0 {
		return fmt.Errorf("%s to %s is more than %d days; export a shorter time", f.From, f.To, daysMax)
	}
	return nil
}

// Input is what a register is made from.
type Input struct {
	Filter Filter
	// Rows yields the facts ordered by date and then, byte by byte, by school,
	// as attendance.CompareRows has them; the order beyond that is free. It is
	// ranged over twice when there is a roster. Rows outside the filter are
	// passed over, an error ends the export. The source may leave out other dates
	// and schools, but no classes or periods: who checked in for another class is
	// not absent.
	Rows    iter.Seq2[attendance.Row, error]
	Roster  *roster.Roster      // nil: absent is unknown
	Schools *attendance.Schools // zones and timetables
	// SchoolIDs are the ids that the configuration names. Schools of the roster
	// beside them are listed under their own ids.
	SchoolIDs []string
	AsOf      AsOf
}

// AsOf says what the facts rest on. It goes into the Summary.
type AsOf struct {
	At        time.Time // when they were gathered; periods that begin later have no absent
	Position  uint64    // of the last journal record; 0: none
	Missing   []string  // journal numbers that could not be read, such as "4031-4035"
	Incidents []string  // what else a reader must know, one sentence each
}

// Line is one line of the register. Nil stands for "does not apply" or "not
// known".
type Line struct {
	Date         string  `json:"date"`
	School       string  `json:"school"`
	Class        string  `json:"class_id"`
	Student      string  `json:"student_id"`
	Name         string  `json:"name"`
	Period       string  `json:"period"`
	Status       string  `json:"status"` // present, late, absent, outside
	FirstArrival *string `json:"first_arrival"`
	Presses      uint32  `json:"presses"`
	Verified     *bool   `json:"verified"`
	OnRoster     *bool   `json:"on_roster"` // nil: there is no roster of that school
	Receipt      *string `json:"receipt"`
	Note         string  `json:"note"`
}

// Columns are the names of a Line's fields, in order.
var Columns = [...]string{"date", "school", "class_id", "student_id", "name", "period", "status", "first_arrival", "presses", "verified", "on_roster", "receipt", "note"}

// Absent is the status of a student who was expected and did not come.
const Absent = "absent"

// sheet takes the lines of a register. Close is called once, after the last
// line, and not at all after an error; discard always, at the end.
type sheet interface {
	line(l *Line) error
	close(s *Summary) error
	discard()
}

// Write writes the register to w. After an error what w has received is not a
// register: see ToFile.
func Write(w io.Writer, format Format, in Input) (*Summary, error) {
	if err := in.Filter.validate(); err != nil {
		return nil, err
	}
	buffered := bufio.NewWriterSize(w, 64<<10)
	var out sheet
	switch format {
	case CSV:
		out = newCSV(buffered)
	case JSON:
		out = newJSONLines(buffered)
	case XLSX:
		out = newWorkbook(buffered, excelRows)
	default:
		return nil, fmt.Errorf("%.20q is not a format", format)
	}
	defer out.discard()
	r := newRegister(in, out)
	if err := r.run(); err != nil {
		return nil, err
	}
	if err := out.close(&r.summary); err != nil {
		return nil, err
	}
	if err := buffered.Flush(); err != nil {
		return nil, fmt.Errorf("writing the register: %w", err)
	}
	return &r.summary, nil
}

// ToFile lets write fill the file at path, which appears, complete and synced,
// when write and everything after it went well. After an error the path is as it
// was before. Only the owner may read the file: it names children. A path that
// is there and no regular file, such as /dev/stdout, is written to as it is.
func ToFile(path string, write func(io.Writer) error) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return cmp.Or(write(f), f.Close())
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // or the link would be replaced
	}
	return replaceFile(path, write)
}

func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close() // a second Close does nothing
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := cmp.Or(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
