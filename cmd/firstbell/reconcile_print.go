package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// groupsShown bounds the groups that are listed because they disagree.
const groupsShown = 20

// print shows what came of it to people; list names the file that has all
// differences, if there is one.
func (r *reconciled) print(w io.Writer, list string) {
	fmt.Fprintf(w, "%s%s, as of %s, record %d of the journal\n\n", r.Date, of(r.School), r.AsOf.Format("2006-01-02 15:04:05 MST"), r.Position)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range []string{"receipts", "journal", "store", "export"} {
		if s, ok := r.Books[name]; ok {
			fmt.Fprintf(t, "%s\t%d\t%s\n", name, s.Rows, s.Digest)
		}
	}
	if r.Digest != nil {
		fmt.Fprintf(t, "digest\t%d\t%s\trecorded %s\n", r.Digest.Rows, r.Digest.Digest, r.Digest.Made.Format("2006-01-02 15:04:05 MST"))
	}
	t.Flush()
	r.printGroups(w)
	for _, s := range r.Sinks {
		fmt.Fprintf(w, "sink %s: %d check-ins wait, %d parked\n", s.Name, s.Waiting, s.Parked)
	}
	if r.Waiting > 0 {
		fmt.Fprintf(w, "%d check-ins are on their way into the store\n", r.Waiting)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for i := range r.List {
		fmt.Fprintf(w, "DIFFERENCE: %s\n", r.List[i])
	}
	switch more := r.Total - len(r.List); {
	case r.Total == 0:
		fmt.Fprintln(w, "the counts agree")
	case more > 0 && list != "":
		fmt.Fprintf(w, "… and %d more, all of them in %s\n", more, list)
	case more > 0:
		fmt.Fprintf(w, "… and %d more; -o FILE has all of them\n", more)
	}
}

// printGroups lists the groups whose books disagree.
func (r *reconciled) printGroups(w io.Writer) {
	agree, told := 0, 0
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range r.Groups {
		if g.Agree {
			agree++
			continue
		}
		if told++; told > groupsShown {
			continue
		}
		if told == 1 {
			fmt.Fprint(t, "\nschool\tclass\tperiod\treceipts\tjournal\tstore\texport\n")
		}
		fmt.Fprintf(t, "%s\t%s\t%s", g.School, g.Class, g.Period)
		for _, name := range []string{"receipts", "journal", "store", "export"} {
			if s, ok := g.Sums[name]; ok {
				fmt.Fprintf(t, "\t%d %.8s", s.Rows, s.Digest)
			} else {
				fmt.Fprint(t, "\t-")
			}
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if told > groupsShown {
		fmt.Fprintf(w, "… and %d more\n", told-groupsShown)
	}
	fmt.Fprintf(w, "\n%d of %d groups by school, class and period agree\n", agree, len(r.Groups))
}

func of(school string) string {
	if school == "" {
		return ""
	}
	return ", school " + school
}
