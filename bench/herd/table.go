package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// A result is what one run measured.
type result struct {
	Name string `json:"name"`
	Rows []row  `json:"rows"`
}

// missed is how many bars were missed.
func (r *result) missed() int {
	n := 0
	for _, row := range r.Rows {
		if row.Verdict == fail {
			n++
		}
	}
	return n
}

// print writes one line for each row.
func (r *result) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CASE\tMEASURED\t%s\tBAR\t\n", strings.ToUpper(r.Name))
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", row.Case, row.What, row.Value, row.Bar, row.Verdict)
	}
	return t.Flush()
}

// merge writes results side by side as a Markdown table, with the rows of the
// first; a missed bar is bold.
func merge(w io.Writer, files []string) error {
	if len(files) == 0 {
		return fmt.Errorf("merging results: name the files that -json wrote")
	}
	results := make([]result, len(files))
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &results[i])
		}
		if err != nil {
			return fmt.Errorf("merging results: reading %s: %w", file, err)
		}
	}
	var b strings.Builder
	b.WriteString("| case | measured | bar |")
	for _, r := range results {
		b.WriteString(" " + r.Name + " |")
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(results)) + "\n")
	for _, key := range results[0].Rows {
		fmt.Fprintf(&b, "| %s | %s | %s |", key.Case, key.What, key.Bar)
		for _, r := range results {
			fmt.Fprintf(&b, " %s |", r.cell(key))
		}
		b.WriteString("\n")
	}
	b.WriteString("| | **bars missed** | |")
	for _, r := range results {
		fmt.Fprintf(&b, " %d |", r.missed())
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// cell is the value of the same row.
func (r *result) cell(key row) string {
	for _, row := range r.Rows {
		switch {
		case row.Case != key.Case || row.What != key.What:
		case row.Verdict == fail:
			return "**" + row.Value + "**"
		default:
			return row.Value
		}
	}
	return "–"
}
