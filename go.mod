module firstbell

go 1.26.0

// fasthttp v1.77.0 asks for go-brrr v1.3.0, which the Go module proxy does not serve; v1.0.1 is the newest that it does.
replace github.com/molecule-man/go-brrr => github.com/molecule-man/go-brrr v1.0.1

require (
	github.com/caddyserver/certmagic v0.25.6 // certificates from a CA: orders, challenges, storage
	github.com/coder/websocket v1.8.15 // tests, bench/compare: a WebSocket library at both ends
	github.com/fatih/color v1.19.0 // tests: what h2spec prints with
	github.com/go-jose/go-jose/v4 v4.1.8 // tests: tokens and key sets that another library wrote
	github.com/goccy/go-yaml v1.19.2 // the file users write: the one parser with line, column and excerpt
	github.com/golang-jwt/jwt/v5 v5.3.1 // who is asking: signed tokens
	github.com/jackc/pgx/v5 v5.12.0 // PostgreSQL as the store: arrays and pipelines, which database/sql cannot say
	github.com/klauspost/compress v1.20.3 // gzip and zstd, made once and undone
	github.com/maypok86/otter/v2 v2.4.0 // tests: what hit ratios are compared with
	github.com/mholt/acmez/v3 v3.1.7 // what certmagic speaks: its errors and the name of a protocol
	github.com/miekg/dns v1.1.73 // tests: the names that a CA looks up
	github.com/molecule-man/go-brrr v1.3.0 // brotli: the bytes of andybalholm/brotli in a third of its time at the levels used
	github.com/prometheus/client_golang v1.25.0 // /metrics
	github.com/quic-go/qpack v0.6.0 // fields of HTTP/3 decoded
	github.com/quic-go/quic-go v0.65.0 // QUIC below HTTP/3
	github.com/summerwind/h2spec v2.2.1+incompatible // tests: conformance of HTTP/2; the newest that the Go module proxy has
	github.com/valyala/fasthttp v1.77.0 // tests: connections in memory; benchmarks: the bare server to measure beside
	github.com/xuri/excelize/v2 v2.11.0 // .xlsx, streamed
	github.com/zeebo/xxh3 v1.1.0 // digests of what is cached on disk: 128 bits at memory speed
	go.uber.org/goleak v1.3.0 // tests: nothing is left running
	go.uber.org/zap v1.28.0 // the logger that certmagic wants, and is not given
	golang.org/x/net v0.61.0 // idna: host names in the file; hpack: HTTP/2's header compression; publicsuffix: what CAs count certificates by
	golang.org/x/sys v0.49.0 // flock, fallocate, clock state
	golang.org/x/term v0.47.0 // the demo's progress on a terminal
	modernc.org/sqlite v1.60.1 // the embedded store, without cgo; v1.60.1 as later ones break go mod tidy here
	pgregory.net/rapid v1.3.0 // tests: properties
)

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/caddyserver/zerossl v0.1.6 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/letsencrypt/challtestsrv v1.4.2 // indirect
	github.com/letsencrypt/pebble/v2 v2.10.1 // indirect
	github.com/libdns/libdns v1.1.1 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.0.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/richardlehane/mscfb v1.0.7 // indirect
	github.com/richardlehane/msoleps v1.0.6 // indirect
	github.com/tiendc/go-deepcopy v1.7.2 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	github.com/xuri/efp v0.0.1 // indirect
	github.com/xuri/nfp v0.0.2-0.20250530014748-2ddeb826f9a9 // indirect
	github.com/zeebo/blake3 v0.2.4 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap/exp v0.3.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	honnef.co/go/tools v0.8.2 // indirect
	modernc.org/libc v1.77.1 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
)

tool (
	github.com/letsencrypt/pebble/v2/cmd/pebble
	golang.org/x/perf/cmd/benchstat
	honnef.co/go/tools/cmd/staticcheck
)
