package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errMissed):
		fmt.Fprintln(os.Stderr, "herd:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "herd:", err)
		os.Exit(2)
	}
}

// errMissed says that a bar was missed.
var errMissed = errors.New("a bar was missed")

// options are the flags.
type options struct {
	target, origin, host, name string
	colds                      int
	wanted                     []int
	report, asJSON             bool
	merge                      bool
	files                      []string
	leaks                      bool
	requests                   int
	seed                       uint64
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("herd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.target, "target", "http://127.0.0.1:8080", "the proxy under test")
	flags.StringVar(&o.origin, "origin", "127.0.0.1:9000", "address to serve the origin at, which the proxy has been configured to ask")
	flags.StringVar(&o.host, "host", "", "value of the Host field (default: that of -target)")
	flags.StringVar(&o.name, "name", "", "the proxy's name in the results (default: -target)")
	flags.IntVar(&o.colds, "urls", 1000, "how many URLs case 9 asks for, 1 to 100,000")
	wanted := flags.String("cases", "", "numbers of the cases to play, such as 1,5 (default: all)")
	flags.BoolVar(&o.report, "report", false, "exit 0 also when a bar is missed")
	flags.BoolVar(&o.asJSON, "json", false, "print JSON")
	flags.BoolVar(&o.leaks, "leaks", false, "play no cases: look for pages given to the wrong person, with random requests")
	flags.IntVar(&o.requests, "requests", 20_000, "how many requests -leaks makes, 1 to 10,000,000")
	flags.Uint64Var(&o.seed, "seed", 0, "what -leaks draws its requests from (default: another each time)")
	flags.BoolVar(&o.merge, "merge", false, "play nothing: print the JSON results named as arguments side by side, in Markdown")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.files = flags.Args()
	if !o.merge && len(o.files) > 0 {
		return nil, fmt.Errorf("reading the flags: %q is none", o.files[0])
	}
	if o.colds < 1 || o.colds > 100_000 {
		return nil, fmt.Errorf("reading the flags: -urls %d: 1 to 100,000 are possible", o.colds)
	}
	if o.requests < 1 || o.requests > 10_000_000 {
		return nil, fmt.Errorf("reading the flags: -requests %d: 1 to 10,000,000 are possible", o.requests)
	}
	for _, n := range strings.FieldsFunc(*wanted, func(r rune) bool { return r == ',' }) {
		i, err := strconv.Atoi(n)
		if err != nil || i < 1 || i > len(cases) {
			return nil, fmt.Errorf("reading the flags: -cases: there is no case %q; there are 1 to %d", n, len(cases))
		}
		o.wanted = append(o.wanted, i)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.merge {
		return merge(stdout, o.files)
	}
	target, err := url.Parse(o.target)
	if err != nil || target.Scheme != "http" || target.Host == "" || target.Port() == "" {
		return fmt.Errorf("reading the flags: -target %q: want http://host:port", o.target)
	}
	ln, err := net.Listen("tcp", o.origin)
	if err != nil {
		return fmt.Errorf("serving the origin: %w", err)
	}
	result := result{Name: o.name}
	if result.Name == "" {
		result.Name = o.target
	}
	if o.leaks {
		result.Rows, err = playLeaks(ctx, o, target.Host, ln, stderr)
	} else {
		result.Rows, err = playCases(ctx, o, target.Host, ln)
	}
	if err != nil {
		return err
	}
	if o.asJSON {
		out := json.NewEncoder(stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		err = out.Encode(result)
	} else {
		err = result.print(stdout)
	}
	if n := result.missed(); err == nil && n > 0 && !o.report {
		err = fmt.Errorf("%w: %d of %d", errMissed, n, len(result.Rows))
	}
	return err
}

// playCases plays the herd's cases with an origin at ln, which it closes.
func playCases(ctx context.Context, o *options, target string, ln net.Listener) ([]row, error) {
	s := newSuite(ln, dialer(target), dialer(ln.Addr().String()))
	defer s.origin.close()
	s.colds, s.proxy.host = o.colds, target
	if o.host != "" {
		s.proxy.host = o.host
	}
	return s.play(ctx, o.wanted)
}

type dial func(context.Context) (net.Conn, error)

// dialer connects to one TCP address. A connection that is not there after 5 s
// will not be.
func dialer(address string) dial {
	d := net.Dialer{Timeout: 5 * time.Second}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// filmBytes is more than firstbell keeps of one response with the default
// memory.
const filmBytes = 48 << 20

// newSuite serves the origin at ln until it is closed.
func newSuite(ln net.Listener, proxy, direct dial) *suite {
	s := &suite{
		origin: newOrigin(),
		proxy:  &client{host: "herd.test", dial: proxy},
		direct: &client{host: "herd.test", dial: direct},
		colds:  1000,
		film:   filmBytes,
		run:    strconv.FormatInt(time.Now().UnixNano(), 36),
	}
	go s.origin.listen(ln)
	return s
}
