package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"firstbell/attendance"
)

const verifyUsage = `verify -keys FILE|-key FILE RECEIPT.json …

Checks receipts with public keys alone: no journal, no store, no network. A
receipt with its proof is what GET answers at a check-in's path, then /receipts/
and the receipt's id; keys are what /.well-known/firstbell/keys answers, or the
.pub files beside the journal. "-" reads the receipt from standard input. It
exits with 1 when any of them does not hold.`

// receiptBytesMax bounds what is read of a receipt: a record of 2 kB, a path of
// 32 hashes.
const receiptBytesMax = 64 << 10

func runVerify(_ context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("verify", verifyUsage, stderr)
	set := f.String("keys", "", "`FILE` with a JWK Set of public keys")
	one := f.String("key", "", "`FILE` with one public key, PEM")
	if err := f.Parse(args); err != nil {
		return parseFlags(f, args)
	}
	if (*set == "") == (*one == "") {
		return usageError("firstbell verify: name the public keys: -keys FILE, or -key FILE")
	}
	if f.NArg() == 0 {
		return usageError("firstbell verify: name the receipt's file, or - for standard input")
	}
	text, err := os.ReadFile(*set + *one)
	if err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	keys, err := attendance.ParseKeys(text)
	if err != nil {
		return fmt.Errorf("verifying with %s: %w", *set+*one, err)
	}
	failed := 0
	for _, name := range f.Args() {
		if err := verifyFile(stdout, name, keys); err != nil {
			fmt.Fprintf(stdout, "%s: NOT PROVED: %v\n", name, err)
			failed++
		}
	}
	if failed > 0 {
		return said(fmt.Errorf("verifying: %d of %d receipts are not proved", failed, f.NArg()))
	}
	return nil
}

func verifyFile(w io.Writer, name string, keys []attendance.PublicKey) error {
	in := io.Reader(os.Stdin)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, receiptBytesMax+1))
	if err != nil {
		return err
	}
	if len(text) > receiptBytesMax {
		return errors.New("it is too large for a receipt")
	}
	e, key, err := attendance.CheckReceipt(text, keys)
	if err != nil {
		return err
	}
	r := &e.Receipt
	fmt.Fprintf(w, "%s: proved\n  receipt %s: student %s of school %s, %s on %s, period %s, first arrival %s", name,
		r.ID, r.Student, r.School, r.Status, r.Date, r.Period, r.FirstArrival.Format("2006-01-02T15:04:05.000-07:00"))
	if !r.Verified {
		fmt.Fprint(w, ", identity not verified")
	}
	fmt.Fprintf(w, "\n  sealed with key %s%s\n", key.ID, since(key.Made))
	if c := e.Correction; c != nil {
		fmt.Fprintf(w, "  corrected by %q on %s: was period %s, %s (%q)\n", c.Author, e.RawArrival.Format(time.RFC3339), c.OldPeriod, c.OldStatus, c.Reason)
	}
	return nil
}

func since(made time.Time) string {
	if made.IsZero() {
		return ""
	}
	return ", in use since " + made.Format(time.RFC3339)
}
