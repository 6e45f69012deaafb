package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"firstbell/proxy"
)

const purgeUsage = `purge -config FILE [-hard] [-dry-run] -url URL | -host HOST | -prefix HOST/PATH | -tag TAG ...

Has a running firstbell, on the ops listener that FILE names, hold stored
responses for stale: they are validated before or while they are used again,
and may still serve while the origin is down. With -hard they are gone. Each
selector may be given many times.

  -url www.school.example/lessons/1?page=2    this path and query, in every variant
  -host www.school.example                    everything there; also *.school.example and *
  -prefix www.school.example/lessons          it and what is below
  -tag lesson-17                              whatever came with it in Surrogate-Key or Cache-Tag`

// purgeAsked is what POST /purge takes.
type purgeAsked struct {
	proxy.Purge
	By string `json:"by,omitempty"` // who asks, as they say themselves; for the log
}

// purgeAnswered is what POST /purge answers.
type purgeAnswered struct {
	At      time.Time      `json:"at"`
	From    string         `json:"from"`         // the address that asked, and the user name sent with the token
	By      string         `json:"by,omitempty"` // who that says it is
	Hard    bool           `json:"hard"`
	DryRun  bool           `json:"dry_run"`
	Purged  []proxy.Purged `json:"purged,omitempty"`
	Problem string         `json:"problem,omitempty"`
}

// purgeCountMax bounds how long a dry run counts what lies on disk: some 20,000
// responses a second.
const purgeCountMax = 20 * time.Second

// purgeBytesMax bounds what POST /purge takes: a thousand long URLs.
const purgeBytesMax = 8 << 20

func (s *server) servePurge(w http.ResponseWriter, r *http.Request) {
	out := &purgeAnswered{At: time.Now(), From: askerOf(r)}
	var asked purgeAsked
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, purgeBytesMax))
	d.DisallowUnknownFields()
	err := d.Decode(&asked)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = fmt.Errorf("something follows the JSON object")
		}
	}
	if err != nil {
		out.Problem = fmt.Sprintf(`reading what to purge: %v; send JSON such as {"tags": ["lesson-17"]}`, err)
		sayJSON(w, http.StatusUnprocessableEntity, out)
		return
	}
	out.By, out.Hard, out.DryRun = asked.By[:min(len(asked.By), 100)], asked.Hard, asked.DryRun
	ctx, cancel := context.WithTimeout(r.Context(), purgeCountMax)
	defer cancel()
	if out.Purged, err = s.proxy.Purge(ctx, &asked.Purge); err != nil {
		out.Problem = err.Error()
	}
	s.logPurge(out)
	if out.Purged == nil {
		sayJSON(w, http.StatusUnprocessableEntity, out)
		return
	}
	if !out.DryRun {
		s.purged.Store(out)
	}
	sayJSON(w, http.StatusOK, out)
}

// askerOf is who asks: an address, and the user name that came with the token.
func askerOf(r *http.Request) string {
	if name, _, ok := r.BasicAuth(); ok && name != "" {
		return fmt.Sprintf("%q at %s", name, r.RemoteAddr)
	}
	return r.RemoteAddr
}

// logPurge writes a line for every selector, as a trace of who did what.
func (s *server) logPurge(out *purgeAnswered) {
	if out.Problem != "" {
		s.log.Error("a purge has a problem", "from", out.From, "by", out.By, "problem", out.Problem)
	}
	for _, p := range out.Purged {
		s.log.Info("purged", "by_"+p.By, p.What, "count", p.Count, "hard", out.Hard, "dry_run", out.DryRun, "from", out.From, "by", out.By)
	}
}

// texts is a flag that may be given many times.
type texts []string

// String implements flag.Value.
func (t *texts) String() string { return strings.Join(*t, " ") }

// Set implements flag.Value.
func (t *texts) Set(text string) error {
	*t = append(*t, text)
	return nil
}

func runPurge(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var asked purgeAsked
	f := newFlags("purge", purgeUsage, stderr)
	file := f.String("config", "", "`FILE` that serve runs with")
	f.Var((*texts)(&asked.URLs), "url", "purge this `URL`")
	f.Var((*texts)(&asked.Hosts), "host", "purge all of this `HOST`")
	f.Var((*texts)(&asked.Prefixes), "prefix", "purge `HOST/PATH` and what is below")
	f.Var((*texts)(&asked.Tags), "tag", "purge what carries this `TAG`")
	f.BoolVar(&asked.Hard, "hard", false, "take out instead of making stale")
	f.BoolVar(&asked.DryRun, "dry-run", false, "count, and change nothing")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if len(asked.URLs)+len(asked.Hosts)+len(asked.Prefixes)+len(asked.Tags) == 0 {
		return usageError("firstbell purge: say what: -url, -host, -prefix or -tag")
	}
	asked.By = operator()
	body, err := json.Marshal(&asked)
	if err != nil {
		return fmt.Errorf("writing what to purge: %w", err)
	}
	text, status, err := askOps(ctx, "purge", *file, stderr, http.MethodPost, "/purge", bytes.NewReader(body))
	if err != nil {
		return err
	}
	var out purgeAnswered
	if err := json.Unmarshal(text, &out); err != nil {
		return fmt.Errorf("asking for a purge: the answer was %d %s", status, text)
	}
	done := map[bool]string{false: "now stale", true: "gone"}[out.Hard]
	where := " in memory" // what is on disk is found to be so when it is asked for
	if out.DryRun {
		done, where = "would be "+done, ""
	}
	for _, p := range out.Purged {
		atLeast := ""
		if p.AtLeast {
			atLeast = "at least "
		}
		fmt.Fprintf(stdout, "%s %s: %s%d stored responses%s %s\n", p.By, p.What, atLeast, p.Count, where, done)
	}
	if out.Problem != "" {
		return fmt.Errorf("%s", out.Problem)
	}
	return nil
}

// operator is the name of whoever runs this command.
func operator() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
