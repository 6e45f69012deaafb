package config

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Config is the file. A key with a later tag is known but belongs to a version
// to come; it is refused, so that no setting is ever silently ignored.
type Config struct {
	Listen     Listen                `yaml:"listen" eg:"{http: \":8080\"}"`
	Limits     Limits                `yaml:"limits" eg:"{connections: 65536}"`
	Clients    Clients               `yaml:"clients" eg:"{trusted: [\"10.0.0.0/8\"]}"`
	Ops        Ops                   `yaml:"ops" eg:"{token_file: /etc/firstbell/ops.token}"`
	Timezone   string                `yaml:"timezone" eg:"Asia/Seoul"`
	Timetable  *Timetable            `yaml:"timetable"`
	Timetables map[string]*Timetable `yaml:"timetables"`
	Schools    Schools               `yaml:"schools"`
	Origins    map[string]*Origin    `yaml:"origins" eg:"{lms: {servers: [\"http://10.0.0.5:8080\"]}}"`
	Spool      Spool                 `yaml:"spool" eg:"{path: /var/lib/firstbell/spool, size: 4GiB}"` // where contents wait that are too large for memory
	Cache      Memory                `yaml:"cache" eg:"{memory: 2GiB}"`
	Attendance *Attendance           `yaml:"attendance" eg:"{journal: /var/lib/firstbell/journal}"`
	Routes     []*Route              `yaml:"routes" eg:"[{hosts: [\"*\"], origin: lms, cache: {}}]"`
	Log        Log                   `yaml:"log" eg:"{access: true}"`
	TLS        TLS                   `yaml:"tls" eg:"{certificates: [{cert: school.pem, key: school.key}]}"`
	_          struct{}              `yaml:"warm" later:"warming the cache before the bell comes with a later one"`
	_          struct{}              `yaml:"freeze" later:"freezing changes during lessons comes with a later one"`
	_          struct{}              `yaml:"waiting_room" later:"the waiting room comes with a later one"`

	// What the file leads to, found out while it is checked.
	File     string         `yaml:"-"` // as named by the user
	Digest   string         `yaml:"-"` // of the bytes of the file and of those it names
	Location *time.Location `yaml:"-"` // of Timezone; UTC without one
}

// Listen says where clients and operators come in.
type Listen struct {
	HTTP      string        `yaml:"http" eg:"\":8080\""`
	Drain     time.Duration `yaml:"drain" eg:"30s"`              // how long requests under way may take at the end; 30 s unless said
	Ops       string        `yaml:"ops" eg:"\"127.0.0.1:9900\""` // empty: no ops listener
	HTTPS     string        `yaml:"https" eg:"\":443\""`         // empty: nothing is encrypted here
	HTTP3     string        `yaml:"http3" eg:"\":443\""`         // over UDP, with the certificates of https; empty: not spoken
	HTTP3Port int           `yaml:"http3_port" eg:"443"`         // that browsers are told to come to, where packets are sent on from another; that of http3 unless said
	Proxy     bool          `yaml:"proxy_protocol"`              // connections of clients.trusted begin with its header
}

// TLS is what clients are shown on listen.https.
type TLS struct {
	Certificates []Certificate `yaml:"certificates" eg:"[{cert: school.pem, key: school.key}]"`
	Redirect     int           `yaml:"redirect" eg:"308"`          // of requests in plain: 301 or 308; none unless said
	HSTS         *HSTS         `yaml:"hsts" eg:"{max_age: 8760h}"` // tells browsers to come by https alone; not sent unless said
	ACME         *ACME         `yaml:"acme" eg:"{email: ops@city.example, storage: /var/lib/firstbell/certificates}"`
	TicketKeys   string        `yaml:"ticket_keys" eg:"/etc/firstbell/ticket.keys"` // for nodes that resume each other's sessions; without it each has its own
}

// ACME has certificates got for the hosts of routes for which there is no file:
// exact names, and what schools bring to wildcards.
type ACME struct {
	Email         string           `yaml:"email" eg:"ops@city.example"`
	Storage       string           `yaml:"storage" eg:"/var/lib/firstbell/certificates"`
	Directory     string           `yaml:"directory" eg:"https://acme-v02.api.letsencrypt.org/directory"` // of the CA; Let's Encrypt's unless said
	CA            string           `yaml:"ca" eg:"/etc/firstbell/inner-ca.pem"`                           // who signs the directory's certificate; those the system trusts unless said
	Account       *ExternalAccount `yaml:"external_account" eg:"{key_id: abc, mac_file: /etc/firstbell/acme.mac}"`
	OrdersPerHour int              `yaml:"orders_per_hour" eg:"80"`         // 80 unless said: Let's Encrypt takes 300 in three hours
	NewPerDomain  int              `yaml:"new_per_domain_and_week" eg:"45"` // first certificates of one registered domain; 45 unless said, of Let's Encrypt's 50

	Roots *x509.CertPool `yaml:"-"` // what ca holds; nil without it
}

// ExternalAccount is how some CAs know whom an account belongs to.
type ExternalAccount struct {
	KeyID   string `yaml:"key_id" eg:"abc"`
	MACFile string `yaml:"mac_file" eg:"/etc/firstbell/acme.mac"`

	MAC string `yaml:"-"` // what mac_file holds
}

// HSTS is RFC 6797. What it promises holds in browsers for its time, whatever is
// changed here.
type HSTS struct {
	MaxAge     time.Duration `yaml:"max_age" eg:"8760h" zero:"ok"` // 0s has browsers forget it
	Subdomains bool          `yaml:"subdomains"`
	Preload    bool          `yaml:"preload"`
}

// RouteTLS goes before what tls says, for one route.
type RouteTLS struct {
	Redirect *int  `yaml:"redirect" eg:"308" zero:"ok"` // 0: none
	HSTS     *HSTS `yaml:"hsts" eg:"{max_age: 8760h}"`
}

// Certificate is a chain, its leaf first, and the leaf's key, in PEM. Changed
// files are taken while firstbell runs.
type Certificate struct {
	Cert string `yaml:"cert" eg:"/etc/firstbell/school.pem"`
	Key  string `yaml:"key" eg:"/etc/firstbell/school.key"`
}

// Ops guards the ops listener when it is not on a loopback address.
type Ops struct {
	Token     string `yaml:"token"`
	TokenFile string `yaml:"token_file" eg:"/etc/firstbell/ops.token"`
}

// Timetable is when a kind of school rings.
type Timetable struct {
	Days     []string `yaml:"days" eg:"[mon, tue, wed, thu, fri]"`
	Holidays []string `yaml:"holidays" eg:"[2026-05-05]"`
	Periods  []Period `yaml:"periods" eg:"[{name: \"1\", starts: \"09:00\", late_after: \"09:10\", ends: \"09:45\"}]"`
}

// Period is one lesson. Times are local, to the minute or second.
type Period struct {
	Name      string `yaml:"name" eg:"\"1\""`
	Opens     string `yaml:"opens" eg:"\"08:50\""`
	Starts    string `yaml:"starts" eg:"\"09:00\""`
	LateAfter string `yaml:"late_after" eg:"\"09:10\""`
	Ends      string `yaml:"ends" eg:"\"09:45\""`
}

// Schools is a list, or the name of a CSV file with the columns id, hosts,
// timezone and timetable.
type Schools struct {
	File string
	List []School
}

// School is one tenant. Its hosts are exact names; without any it is found by its
// id as the first label of a name.
type School struct {
	ID        string   `yaml:"id" eg:"hangang"`
	Hosts     []string `yaml:"hosts" eg:"[hangang.school.example]"`
	Timezone  string   `yaml:"timezone" eg:"Asia/Seoul"`
	Timetable string   `yaml:"timetable"` // a name under timetables

	File string `yaml:"-"` // where it was read
	Line int    `yaml:"-"`
}

func (s *Schools) choose(d *decoder, n ast.Node, path string) {
	if file, ok := scalarText(n); ok {
		s.File = file
		return
	}
	if _, ok := n.(*ast.SequenceNode); !ok {
		d.problem(d.at[path], path, "expected a file name or a list of schools, found "+kindOf(n),
			"write schools: /etc/firstbell/schools.csv, or schools: [{id: hangang, hosts: [hangang.school.example]}]")
		return
	}
	decodeInto(d, n, path, &s.List)
}

// Origin is a group of servers that answer for the same content.
type Origin struct {
	Servers     []string       `yaml:"servers" eg:"[\"http://10.0.0.5:8080\"]"`
	Concurrency Concurrency    `yaml:"concurrency" eg:"{max: 256}"`
	Health      *Health        `yaml:"health" eg:"{path: /healthz, every: 2s}"`
	Timeouts    OriginTimeouts `yaml:"timeouts" eg:"{connect: 2s}"`
	Preface     string         `yaml:"proxy_protocol" eg:"v2"`                   // v1 or v2: every connection says whom it is for, and carries one request
	TLS         OriginTLS      `yaml:"tls" eg:"{ca: /etc/firstbell/lms-ca.pem}"` // toward servers by https
}

// OriginTLS is how firstbell knows servers by https, and they firstbell.
type OriginTLS struct {
	CA         string `yaml:"ca" eg:"/etc/firstbell/lms-ca.pem"`      // who signs their certificates; those the system trusts unless said
	Cert       string `yaml:"cert" eg:"/etc/firstbell/firstbell.pem"` // what firstbell shows when it is asked who it is
	Key        string `yaml:"key" eg:"/etc/firstbell/firstbell.key"`  //
	ServerName string `yaml:"server_name" eg:"lms.internal.example"`  // the name in their certificates; the host of each server unless said

	Config *tls.Config `yaml:"-"` // what the files say; nil when there are none
	Digest string      `yaml:"-"` // of the files' bytes
}

// Concurrency bounds what an origin is asked at once.
type Concurrency struct {
	Max   int           `yaml:"max" eg:"256"`              // requests in flight; 256 unless said
	Queue *int          `yaml:"queue" eg:"2048" zero:"ok"` // requests that wait behind them; 8 times max unless said
	Wait  time.Duration `yaml:"wait" eg:"5s"`              // longest wait; 5 s unless said
	_     struct{}      `yaml:"adaptive" later:"a limit found by measurement comes with a later one"`
}

// Health is how a server is found well or ill.
type Health struct {
	Path  string        `yaml:"path" eg:"/healthz"`
	Host  string        `yaml:"host" eg:"www.school.example"` // the server's own unless said
	Every time.Duration `yaml:"every" eg:"2s"`                // 2 s unless said
}

// OriginTimeouts bound the phases of asking an origin. Zero is the default.
type OriginTimeouts struct {
	Connect   time.Duration `yaml:"connect" eg:"2s"`
	Send      time.Duration `yaml:"send" eg:"30s"`       // for the server to accept a piece of the content
	Header    time.Duration `yaml:"header" eg:"30s"`     // until the first byte of the response
	Idle      time.Duration `yaml:"idle" eg:"30s"`       // between two pieces of the content
	KeepAlive time.Duration `yaml:"keep_alive" eg:"60s"` // how long an idle connection is kept
}

// Memory is how much of the machine the cache may take.
type Memory struct {
	Memory    Size     `yaml:"memory" eg:"2GiB"`
	Disk      Disk     `yaml:"disk" eg:"{path: /var/lib/firstbell/cache, size: 100GiB}"` // without it a restart empties the cache
	Pin       []string `yaml:"pin" eg:"[\"www.school.example/lessons/*\"]"`              // URLs, and prefixes ending in /*, that are never pushed out for room
	PinMemory Size     `yaml:"pin_memory" eg:"256MiB"`                                   // how much of memory they may take; a quarter unless said
}

// Disk is where the cache lives through a restart.
type Disk struct {
	Path string `yaml:"path" eg:"/var/lib/firstbell/cache"` // a directory of its own
	Size Size   `yaml:"size" eg:"100GiB"`
}

// Attendance is where check-ins go.
type Attendance struct {
	Journal      string        `yaml:"journal" eg:"/var/lib/firstbell/journal"`
	JournalSpare string        `yaml:"journal_spare" eg:"/mnt/spare/journal"`
	Store        string        `yaml:"store" eg:"sqlite:/var/lib/firstbell/attendance.db"` // or postgres://USER@HOST/DATABASE
	PasswordFile string        `yaml:"store_password_file" eg:"/etc/firstbell/store.password"`
	Roster       string        `yaml:"roster" eg:"/etc/firstbell/roster"`
	Sinks        []Sink        `yaml:"sinks" eg:"[{http: {url: \"http://10.0.0.5:8080/api/attendance/bulk\"}}]"`
	Grace        time.Duration `yaml:"grace" eg:"15m"`      // how far from now a date or period may be that a request names; 15 min unless said
	Retention    time.Duration `yaml:"retention" eg:"720h"` // how long delivered segments are kept; 30 days unless said
	Disk         JournalDisk   `yaml:"disk" eg:"{max: 20GiB, reserve: 2GiB}"`
	Signing      Signing       `yaml:"signing" eg:"{rotate: 8760h}"`

	StorePassword string `yaml:"-"` // what store_password_file holds
}

// JournalDisk bounds what the journal takes, so that it says so before the disk
// does.
type JournalDisk struct {
	Max     Size  `yaml:"max" eg:"20GiB"`              // of all segments, spare included; 20 GiB unless said
	Reserve *Size `yaml:"reserve" eg:"2GiB" zero:"ok"` // what stays free on the journal's disk; 256 MiB unless said
}

// Signing is how batches of check-ins are sealed, so that receipts can be
// checked later.
type Signing struct {
	Keys   string         `yaml:"keys" eg:"/var/lib/firstbell/keys"` // directory of the keys; keys in the journal's unless said
	Rotate *time.Duration `yaml:"rotate" eg:"8760h" zero:"ok"`       // another key after so long; a year unless said, 0s for never
}

// Route says what happens to requests for some hosts and paths.
type Route struct {
	Hosts             []string      `yaml:"hosts" eg:"[\"*.school.example\"]"`
	Methods           []string      `yaml:"methods" eg:"[GET, HEAD]"`
	Path              string        `yaml:"path" eg:"/lessons/*"`
	Origin            string        `yaml:"origin" eg:"lms"`
	Cache             *Cache        `yaml:"cache" eg:"{}"`
	CheckIn           *CheckIn      `yaml:"check_in" eg:"{student: \"json:/student_id\"}"`
	Collect           *Collect      `yaml:"collect" eg:"{sink: progress}"`
	Reply             *Reply        `yaml:"reply" eg:"{status: 201}"`
	Identity          Identity      `yaml:"identity" eg:"none"`
	Timeouts          RouteTimeouts `yaml:"timeouts" eg:"{total: 60s}"`
	TLS               RouteTLS      `yaml:"tls" eg:"{redirect: 308}"`
	RequestBuffering  *bool         `yaml:"request_buffering"`               // content goes to the origin when all of it is here; yes unless said
	ResponseBuffering *bool         `yaml:"response_buffering"`              // what a slow client does not take waits here, not at the origin; yes unless said
	Allow             []string      `yaml:"allow" eg:"[\"192.0.2.0/24\"]"`   // addresses that may use it; all unless said
	Deny              []string      `yaml:"deny" eg:"[\"198.51.100.0/24\"]"` // addresses that may not
	_                 struct{}      `yaml:"priority" later:"priorities come with a later one"`
	_                 struct{}      `yaml:"waiting_room" later:"the waiting room comes with a later one"`

	WebSocket bool  `yaml:"websocket"`                           // the origin may be asked to open one
	Live      *Live `yaml:"live" eg:"{idle: 5m, lifetime: 12h}"` // the route is for what lasts: event streams, long polls
}

// Cache is what a route lets be stored and shared.
type Cache struct {
	Anonymous            bool          `yaml:"anonymous"`
	DefaultTTL           time.Duration `yaml:"default_ttl" eg:"10m" zero:"ok"`
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate" eg:"1h" zero:"ok"`
	StaleIfError         time.Duration `yaml:"stale_if_error" eg:"24h" zero:"ok"`
	MaxObject            Size          `yaml:"max_object" eg:"16MiB"`
	IgnoreQuery          []string      `yaml:"ignore_query" eg:"[utm_source]"`
	Compress             *bool         `yaml:"compress"` // gzip, zstd and brotli are made of what is stored; yes unless said
}

// CheckIn says where in a request the fields of a check-in stand: json: and a
// JSON pointer, form: and a field's name, header: and a field's name, or claim:
// and the name of what the route's identity vouches for.
type CheckIn struct {
	Student  string `yaml:"student" eg:"\"json:/student_id\""`
	Class    string `yaml:"class" eg:"\"json:/class_id\""`
	Period   string `yaml:"period" eg:"\"json:/period\""`
	Date     string `yaml:"date" eg:"\"json:/date\""`
	Attempt  string `yaml:"attempt" eg:"\"json:/attempt\""` // the field Idempotency-Key unless said
	MaxBytes Size   `yaml:"max_bytes" eg:"64KiB"`           // of content; 64 KiB unless said
	PerClass bool   `yaml:"per_class"`                      // a student checks in once per class, not once per period
}

// Reply is how a check-in that has its receipt is answered: 200 and the receipt
// as JSON unless said. In body and redirect ${receipt} and the like stand for
// the receipt's values.
type Reply struct {
	Status      int    `yaml:"status" eg:"201"`
	ContentType string `yaml:"content_type" eg:"application/json"`
	Body        string `yaml:"body" eg:"'{\"ok\": true, \"receipt\": \"${receipt}\"}'"`
	Redirect    string `yaml:"redirect" eg:"\"/lessons?receipt=${receipt}\""` // by a 303, for browsers that show a page
}

// RouteTimeouts bound a whole exchange; the phases have the origin's.
type RouteTimeouts struct {
	Total time.Duration `yaml:"total" eg:"60s"` // with the origin, its content included; none unless said
}

// Log says what is written about requests.
type Log struct {
	Access    *bool `yaml:"access"`              // a line per request; yes unless said
	PerSecond int   `yaml:"per_second" eg:"200"` // so many lines a second are written in full; 200 unless said
	Sample    int   `yaml:"sample" eg:"100"`     // beyond them one request in so many gets a line; 100 unless said
}
