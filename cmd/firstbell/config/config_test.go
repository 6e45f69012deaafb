package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// good is a file without a mistake; the rows of the tables replace a part of it.
const good = `listen: {http: ":8080", ops: "127.0.0.1:9900"}
timezone: Asia/Seoul
timetable:
  days: [mon, tue, wed, thu, fri]
  holidays: [2026-05-05]
  periods:
    - {name: "1", starts: "09:00", late_after: "09:10", ends: "09:45"}
schools:
  - {id: hangang, hosts: [hangang.school.example]}
origins:
  lms:
    servers: ["http://10.0.0.5:8080"]
    concurrency: {max: 256}
cache: {memory: 1GiB}
attendance:
  journal: /var/lib/firstbell/journal
  store: sqlite:/var/lib/firstbell/attendance.db
  roster: /etc/firstbell/roster
  sinks:
    - {http: {url: "http://10.0.0.5:8080/bulk"}}
routes:
  - hosts: ["*.school.example"]
    path: /attendance/check-in
    identity: none
    check_in: {student: "json:/student_id", class: "json:/class_id"}
  - hosts: ["*.school.example"]
    path: /lessons/*
    origin: lms
    cache: {anonymous: true, default_ttl: 10m}
  - hosts: ["*.school.example"]
    origin: lms
`

// A mistake is an edit of good and what must be shown about it. The mark ▸ in
// the new text stands where the problem must point to.
type mistake struct {
	name     string
	old, new string // old empty: new is the whole file
	path     string
	what     string // part of what is wrong
	fix      string // part of the way out
}

var mistakes = []mistake{
	{"no version of the PROXY protocol", `concurrency: {max: 256}`, `proxy_protocol: ▸v3`, "origins.lms.proxy_protocol", "no version", "v2"},
	// The text itself.
	{"empty file", "", "▸", "", "empty", "listen:"},
	{"only a comment", "", "▸# nothing\n", "", "empty", "begin with"},
	{"a list at the top", "", "▸[a, b]\n", "", "expected keys and values, found a list", "listen:"},
	{"a text at the top", "", "▸hello\n", "", `found the text "hello"`, "listen:"},
	{"open bracket", "", "listen: {http: \":8080\"\n▸origins: {}\n", "", "not YAML", "bracket"},
	{"open quote", "", "timezone: ▸\"Asia\n", "", "not YAML", "quote"},
	{"tab as indentation", "  lms:\n", "▸\tlms:\n", "", "tab", "spaces"},
	{"colon in a value", "timezone: Asia/Seoul", "timezone: ▸Asia: Seoul", "", "not YAML", "quote a value"},
	{"second document", "routes:\n", "---\n▸routes:\n", "", "second document", "one document"},
	{"not UTF-8", "timezone: Asia/Seoul", "timezone: ▸\xff\xfe", "", "UTF-8", "save the file"},
	{"NUL byte", "timezone: Asia/Seoul", "timezone: ▸\x00", "", "NUL", "remove"},
	{"too many lines", "timezone: Asia/Seoul", strings.Repeat("#\n", linesMax-1) + "▸timezone: Asia/Seoul", "", "lines", "CSV"},
	{"line too long", "timezone: Asia/Seoul", "▸timezone: " + strings.Repeat("x", lineBytesMax), "", "longer than", "break it"},
	{"brackets without end", "timezone: Asia/Seoul", "timezone: " + strings.Repeat("[", 100) + "▸[", "", "nested", "close"},

	// Keys.
	{"unknown key at the top", "timezone:", "▸timezoen:", "timezoen", "unknown key", "did you mean timezone?"},
	{"unknown key in a route", "    path: /lessons/*", "    ▸paht: /lessons/*", "routes[1].paht", "unknown key", "did you mean path?"},
	{"camel case", "default_ttl: 10m", "▸defaultTTL: 10m", "routes[1].cache.defaultTTL", "unknown key", "did you mean default_ttl?"},
	{"dashes", "default_ttl: 10m", "▸default-ttl: 10m", "routes[1].cache.default-ttl", "unknown key", "did you mean default_ttl?"},
	{"key of another section", "timezone: Asia/Seoul", "timezone: Asia/Seoul\n▸servers: []", "servers", "unknown key", "it belongs to origins.NAME"},
	{"key that is like nothing", "timezone: Asia/Seoul", "timezone: Asia/Seoul\n▸zzzzzzzz: 1", "zzzzzzzz", "unknown key", "known here: attendance, cache"},
	{"key twice", "timezone: Asia/Seoul", "timezone: Asia/Seoul\n▸timezone: UTC", "timezone", "second time, first on line 2", "remove one"},
	{"key twice in a route", "    path: /lessons/*", "    path: /lessons/*\n    ▸path: /x", "routes[1].path", "second time, first on line 27", "remove one"},
	{"origin twice", "  lms:\n", "  lms: {servers: [\"http://a:1\"]}\n  ▸lms:\n", "origins.lms", "second time", "remove one"},
	{"key that is a list", "timezone: Asia/Seoul", "[a]▸: b\ntimezone: Asia/Seoul", "", "invalid key", "colon"},
	{"key without value", "timezone: Asia/Seoul", "▸timezone:", "timezone", "no value", "such as Asia/Seoul"},
	{"cache without value", "    cache: {anonymous: true, default_ttl: 10m}", "    ▸cache:", "routes[1].cache", "no value", "such as {}"},
	{"list item without value", `["http://10.0.0.5:8080"]`, `["http://10.0.0.5:8080", ▸~]`, "origins.lms.servers[1]", "no value", "remove"},
	{"unknown anchor", "timezone: Asia/Seoul", "timezone: ▸*zone", "timezone", "no anchor &zone", "set it with &zone"},
	{"anchor set twice", "timezone: Asia/Seoul", "timezone: &a Asia/Seoul\nx-a: ▸&a 1", "x-a", "set twice", "another name"},
	{"tag", "timezone: Asia/Seoul", "timezone: ▸!!str Asia/Seoul", "timezone", "the tag !!str", "remove it"},

	// Kinds.
	{"text for a list", `- hosts: ["*.school.example"]` + "\n    path: /lessons/*", "- hosts: ▸\"*.school.example\"\n    path: /lessons/*", "routes[1].hosts", "expected a list", `write a list: ["*.school.example"]`},
	{"list for a text", "timezone: Asia/Seoul", "▸timezone: [Asia/Seoul]", "timezone", "expected a text, found a list", "such as Asia/Seoul"},
	{"mapping for a list", "  sinks:\n    - {http: {url: \"http://10.0.0.5:8080/bulk\"}}", "  ▸sinks: {http: {url: \"http://10.0.0.5:8080/bulk\"}}", "attendance.sinks", "expected a list, found a mapping", "write a list"},
	{"text for a mapping", "cache: {memory: 1GiB}", "cache: ▸1GiB", "cache", "expected keys and values", "{memory: 2GiB}"},
	{"text for a route", "  - hosts: [\"*.school.example\"]\n    origin: lms", "  - ▸lms", "routes[2]", "expected keys and values", "{key: value}"},
	{"yes for true", "anonymous: true", "anonymous: ▸yes", "routes[1].cache.anonymous", `found the text "yes"`, "true or false"},
	{"true for a text", "origin: lms\n    cache", "origin: ▸true\n    cache", "routes[1].origin", "expected a text, found true", `quote it: "true"`},
	{"text for a number", "{max: 256}", "{max: ▸many}", "origins.lms.concurrency.max", "expected a whole number", "such as 256"},
	{"negative number", "{max: 256}", "{max: ▸-5}", "origins.lms.concurrency.max", "not a plain whole number", "such as 256"},
	{"broken number", "{max: 256}", "{max: ▸2.5}", "origins.lms.concurrency.max", "expected a whole number, found the number 2.5", "such as 256"},
	{"octal number", "{max: 256}", "{max: ▸0256}", "origins.lms.concurrency.max", "not a plain whole number", "digits"},
	{"huge number", "{max: 256}", "{max: ▸99999999999999999999}", "origins.lms.concurrency.max", "", "such as 256"},
	{"zero for a number", "{max: 256}", "{max: ▸0}", "origins.lms.concurrency.max", "0 is no value", "leave the key out"},
	{"duration without unit", "default_ttl: 10m", "default_ttl: ▸10", "routes[1].cache.default_ttl", `"10" has no unit`, "10m"},
	{"duration in days", "default_ttl: 10m", "default_ttl: ▸2d", "routes[1].cache.default_ttl", "write 48h", "10m"},
	{"duration that is none", "default_ttl: 10m", "default_ttl: ▸soon", "routes[1].cache.default_ttl", `"soon" is not a duration`, "such as 10m"},
	{"negative duration", "default_ttl: 10m", "default_ttl: ▸-1s", "routes[1].cache.default_ttl", "negative", "such as 10m"},
	{"zero duration", "{max: 256}", "{wait: ▸0s}", "origins.lms.concurrency.wait", "0 is no value", "such as 5s"},
	{"size without unit", "1GiB", "▸1000000", "cache.memory", "has no unit", "2GiB"},
	{"size that is none", "1GiB", "▸big", "cache.memory", `"big" is not a size`, "2GiB"},
	{"size too large", "1GiB", "▸99999999TiB", "cache.memory", "too large", "2GiB"},
	{"negative size", "1GiB", "▸-1GiB", "cache.memory", "negative", "2GiB"},
	{"pin without a path", "{memory: 1GiB}", "{memory: 1GiB, pin: [▸school]}", "cache.pin[0]", "cannot be pinned", "prefix such as"},
	{"pin with a regular expression", "{memory: 1GiB}", "{memory: 1GiB, pin: [▸\"*.a.*.b/x/*\"]}", "cache.pin[0]", "cannot be pinned", "prefix such as"},
	{"pins take it all", "{memory: 1GiB}", "{memory: 1GiB, pin: [a/b], pin_memory: ▸900MiB}", "cache.pin_memory", "more than two fifths", "everything else"},
	{"cache too small", "1GiB", "▸10KiB", "cache.memory", "holds no lesson", "2GiB"},

	// Listening.
	{"no listen", `listen: {http: ":8080", ops: "127.0.0.1:9900"}` + "\n", "▸", "listen.http", "no address to listen on", `":8080"`},
	{"no http", `{http: ":8080", ops`, `{ops`, "listen.http", "no address", `":8080"`},
	{"port alone", `":8080"`, `▸8080`, "listen.http", "a port without an address", `":8080"`},
	{"URL to listen on", `":8080"`, `▸"http://:8080"`, "listen.http", "a URL", `":8080"`},
	{"host name to listen on", `":8080"`, `▸"www.example:80"`, "listen.http", "not an IP address", `":8080"`},
	{"port out of range", `":8080"`, `▸":80800"`, "listen.http", "not a port", "65535"},
	{"ops on the same address", `"127.0.0.1:9900"`, `▸":8080"`, "listen.ops", "taken by listen.http", "9900"},
	{"open ops without token", `"127.0.0.1:9900"`, `▸":9900"`, "listen.ops", "no token guards it", "token_file"},
	{"short token", "timezone:", "ops: {token: ▸abc}\ntimezone:", "ops.token", "3 characters", "openssl rand"},
	{"two tokens", "timezone:", "ops: {token: ▸0123456789abcdef, token_file: x}\ntimezone:", "ops.token", "both given", "keep token_file"},
	{"https without certificates", `{http: ":8080",`, `{http: ":8080", https: ▸":443",`, "listen.https", "no certificate to show", "tls: {certificates"},
	{"https on the same port", `{http: ":8080",`, `{http: ":8080", https: ▸":8080",`, "listen.https", "is taken by listen.http", ":443"},
	{"http3 without https", `{http: ":8080",`, `{http: ":8080", http3: ▸":443",`, "listen.http3", "told over HTTPS", "add https"},
	{"a port told of and no http3", `{http: ":8080",`, `{http: ":8080", http3_port: ▸443,`, "listen.http3_port", "no port", "http3:"},
	{"tls and nothing that speaks it", "timezone:", "▸tls: {certificates: [{cert: a, key: b}]}\ntimezone:", "tls", "nothing listens", "https"},

	// Time.
	{"unknown zone", "Asia/Seoul", "▸Asia/Soul", "timezone", `no time zone "Asia/Soul"`, "Asia/Seoul"},
	{"local zone", "Asia/Seoul", "▸Local", "timezone", "depends on the machine", "Asia/Seoul"},
	{"no zone with check-ins", "timezone: Asia/Seoul\n", "", "timezone", "no time zone", "timezone: Asia/Seoul"},
	{"unknown day", "[mon,", "[▸monday,", "timetable.days[0]", `"monday" is not a day`, "mon, tue"},
	{"broken date", "[2026-05-05]", "[▸2026-02-30]", "timetable.holidays[0]", "not a date", "2026-05-05"},
	{"time without zero", `"09:10"`, `▸"9:10"`, "timetable.periods[0].late_after", "not a time of the day", "09:00"},
	{"late after the end", `"09:10"`, `▸"09:50"`, "timetable.periods[0].late_after", "not within the period", "choose a time"},
	{"ends before it starts", `"09:45"`, `▸"08:45"`, "timetable.periods[0].ends", "ends at 08:45", "move ends"},
	{"overlapping periods", `ends: "09:45"}`, `ends: "09:45"}` + "\n    - {name: \"2\", starts: ▸\"09:30\", ends: \"10:30\"}", "timetable.periods[1].starts", "while period \"1\" is on", "move one"},
	{"period named twice", `ends: "09:45"}`, `ends: "09:45"}` + "\n    - {name: ▸\"1\", starts: \"10:30\", ends: \"11:30\"}", "timetable.periods[1].name", "has that name already", "its own"},
	{"no periods", "  periods:\n    - {name: \"1\", starts: \"09:00\", late_after: \"09:10\", ends: \"09:45\"}\n", "", "timetable.periods", "no periods", "add one"},
	{"period without start", `starts: "09:00", `, "", "timetable.periods[0].starts", "missing", "add one"},

	// Schools.
	{"school without id", "{id: hangang, hosts", "{hosts", "schools[0].id", "no id", "hangang"},
	{"school twice", "{id: hangang, hosts: [hangang.school.example]}", "{id: hangang, hosts: [a.example]}\n  - {id: ▸hangang, hosts: [b.example]}", "schools[1].id", "second time, first on line 9", "one place"},
	{"host of two schools", "{id: hangang, hosts: [hangang.school.example]}", "{id: hangang, hosts: [a.example]}\n  - {id: b, hosts: [▸A.example]}", "schools[1].hosts[0]", "belongs to the school hangang", "remove it"},
	{"every host for a school", "[hangang.school.example]", "[▸\"*\"]", "schools[0].hosts[0]", "not one host name", "write each name"},
	{"wildcard for a school", "[hangang.school.example]", "[▸\"*.hangang.example\"]", "schools[0].hosts[0]", "not one host name", "write each name"},
	{"unknown timetable", "hosts: [hangang.school.example]}", "hosts: [hangang.school.example], timetable: ▸elementry}\ntimetables: {elementary: {days: [mon], periods: [{name: a, starts: \"09:00\", ends: \"10:00\"}]}}", "schools[0].timetable", `no timetable "elementry"`, "did you mean elementary?"},
	{"unknown zone of a school", "hosts: [hangang.school.example]}", "hosts: [hangang.school.example], timezone: ▸Seoul}", "schools[0].timezone", "no time zone", "Asia/Seoul"},
	{"schools as a mapping", "schools:\n  - {id: hangang, hosts: [hangang.school.example]}", "▸schools: {hangang: {}}", "schools", "expected a file name or a list", "schools.csv"},

	// Origins.
	{"no servers", "    servers: [\"http://10.0.0.5:8080\"]\n", "", "origins.lms.servers", "no servers", "add servers"},
	{"server without scheme", `"http://10.0.0.5:8080"]`, `▸"10.0.0.5:8080"]`, "origins.lms.servers[0]", "not a URL", `write "http://10.0.0.5:8080"`},
	{"server over FTP", `"http://10.0.0.5:8080"]`, `▸"ftp://10.0.0.5"]`, "origins.lms.servers[0]", "not a scheme", "http://"},
	{"TLS to a server in plain", "concurrency: {max: 256}", "concurrency: {max: 256}\n    ▸tls: {ca: a}", "origins.lms.tls", "no server of this origin", "https://"},
	{"a certificate for the origin without its key", `"http://10.0.0.5:8080"]`, "\"https://10.0.0.5\"]\n    ▸tls: {cert: a}", "origins.lms.tls.key", "has no key", "key:"},
	{"server name that is none", `"http://10.0.0.5:8080"]`, "\"https://10.0.0.5\"]\n    tls: {server_name: ▸\"*.a\"}", "origins.lms.tls.server_name", "not a host name", "lms.internal.example"},
	{"server over ftp", `"http://10.0.0.5:8080"]`, `▸"ftp://10.0.0.5"]`, "origins.lms.servers[0]", `"ftp"`, "http://"},
	{"server with a path", `"http://10.0.0.5:8080"]`, `▸"http://10.0.0.5:8080/lms"]`, "origins.lms.servers[0]", "says more", `write "http://10.0.0.5:8080"`},
	{"server with a bad port", `"http://10.0.0.5:8080"]`, `▸"http://10.0.0.5:99999"]`, "origins.lms.servers[0]", "not a port", "http://"},
	{"server twice", `"http://10.0.0.5:8080"]`, `"http://10.0.0.5:8080", ▸"http://10.0.0.5:8080"]`, "origins.lms.servers[1]", "twice", "remove one"},
	{"health without a path", "concurrency: {max: 256}", "▸health: {every: 2s}", "origins.lms.health.path", "not a path", "/healthz"},
	{"health at every host", "concurrency: {max: 256}", "health: {path: /, host: ▸\"*\"}", "origins.lms.health.host", "not a host name", "www.school.example"},
	{"health too often", "concurrency: {max: 256}", "health: {path: /, every: ▸1ms}", "origins.lms.health.every", "too often", "2s"},
	{"concurrency without bound", "{max: 256}", "{max: ▸99999999}", "origins.lms.concurrency.max", "no bound", "256"},
	{"disk cache without a path", "{memory: 1GiB}", "{memory: 1GiB, ▸disk: {size: 1GiB}}", "cache.disk.path", "no directory", "/var/lib/firstbell/cache"},
	{"disk cache without a size", "{memory: 1GiB}", "{memory: 1GiB, ▸disk: {path: /x}}", "cache.disk.size", "not enough", "100GiB"},
	{"disk cache too small", "{memory: 1GiB}", "{memory: 1GiB, disk: {path: /x, size: ▸1MiB}}", "cache.disk.size", "not enough", "100GiB"},
	{"disk cache in the journal", "{memory: 1GiB}", "{memory: 1GiB, disk: {path: ▸/var/lib/firstbell/journal/cache, size: 1GiB}}", "cache.disk.path", "within it", "of its own"},

	// Attendance.
	{"no journal", "  journal: /var/lib/firstbell/journal\n", "", "attendance.journal", "no journal", "add journal"},
	{"spare within the journal", "  store:", "  journal_spare: ▸/var/lib/firstbell/journal/spare\n  store:", "attendance.journal_spare", "within it", "another disk"},
	{"postgres without a database", "sqlite:/var/lib/firstbell/attendance.db", "▸postgres://db", "attendance.store", "names no database", "postgres://"},
	{"postgres with a wrong port", "sqlite:/var/lib/firstbell/attendance.db", "▸postgres://u:hunter2@db:port/x", "attendance.store", "cannot be understood", "postgres://"},
	{"sqlite with a password", "  store:", "  store_password_file: ▸/etc/p\n  store:", "attendance.store_password_file", "no password", "remove it"},
	{"journal of two segments", "  store:", "  disk: {max: ▸128MiB}\n  store:", "attendance.disk.max", "three segments", "20GiB"},
	{"keys rotated every minute", "  store:", "  signing: {rotate: ▸1m}\n  store:", "attendance.signing.rotate", "too often", "8760h"},
	{"unknown store", "sqlite:/var/lib/firstbell/attendance.db", "▸/var/lib/x.db", "attendance.store", "not a store", "sqlite:"},
	{"store with slashes", "sqlite:/var", "▸sqlite:///var", "attendance.store", "slashes too many", "sqlite:/var/lib"},
	{"sink without URL", `{http: {url: "http://10.0.0.5:8080/bulk"}}`, "{▸http: {}}", "attendance.sinks[0].http.url", "no URL", "add url"},
	{"sink of nothing", `{http: {url: "http://10.0.0.5:8080/bulk"}}`, "▸{}", "attendance.sinks[0].http", "nowhere", "url:"},
	{"sink to a path", `"http://10.0.0.5:8080/bulk"`, "▸/bulk", "attendance.sinks[0].http.url", "not a URL", "http://"},
	{"sink with a password", `"http://10.0.0.5:8080/bulk"`, `▸"http://u:p@10.0.0.5/bulk"`, "attendance.sinks[0].http.url", "password", "basic_file"},
	{"sink twice", `- {http: {url: "http://10.0.0.5:8080/bulk"}}`, "- {http: {url: \"http://a/\"}}\n    - ▸{http: {url: \"http://a/\"}}", "attendance.sinks[1].name", "under the name a", "of its own"},
	{"huge batch", `bulk"}}`, `bulk", batch: ▸1000000}}`, "attendance.sinks[0].http.batch", "not a batch", "1000"},
	{"long grace", "  store:", "  grace: ▸100h\n  store:", "attendance.grace", "dated back", "15m"},

	// Routes.
	{"no routes", good[strings.Index(good, "routes:"):], "▸routes: []\n", "routes", "no routes", "add one"},
	{"route without origin", "    origin: lms\n    cache", "    cache", "routes[1].origin", "no origin", "add origin: lms"},
	{"unknown origin", "origin: lms\n    cache", "origin: ▸lsm\n    cache", "routes[1].origin", `no origin "lsm"`, "did you mean lms?"},
	{"URL for an origin", "origin: lms\n    cache", "origin: ▸\"http://a:1\"\n    cache", "routes[1].origin", "no origin", "give it a name"},
	{"route without hosts", "  - hosts: [\"*.school.example\"]\n    path: /lessons/*", "  - ▸path: /lessons/*", "routes[1].hosts", "no hosts", `["*"]`},
	{"host with a port", `["*.school.example"]` + "\n    path: /l", "[▸\"a.example:80\"]\n    path: /l", "routes[1].hosts[0]", "has a port", `"a.example"`},
	{"host with a scheme", `["*.school.example"]` + "\n    path: /l", "[▸\"http://a.example\"]\n    path: /l", "routes[1].hosts[0]", "more than a host name", "www.school.example"},
	{"wildcard in the middle", `["*.school.example"]` + "\n    path: /l", "[▸\"a.*.example\"]\n    path: /l", "routes[1].hosts[0]", "not the whole first label", "*.school.example"},
	{"half a wildcard", `["*.school.example"]` + "\n    path: /l", "[▸\"a*.example\"]\n    path: /l", "routes[1].hosts[0]", "not the whole first label", "*.school.example"},
	{"host with a space", `["*.school.example"]` + "\n    path: /l", "[▸\"a b.example\"]\n    path: /l", "routes[1].hosts[0]", "not a host name", "www.school.example"},
	{"host twice", `["*.school.example"]` + "\n    path: /l", "[a.example, ▸A.Example.]\n    path: /l", "routes[1].hosts[1]", "twice", "remove one"},
	{"method in small letters", "    path: /lessons/*", "    path: /lessons/*\n    methods: [▸get]", "routes[1].methods[0]", "capitals", "write GET"},
	{"method that is none", "    path: /lessons/*", "    path: /lessons/*\n    methods: [▸\"GET POST\"]", "routes[1].methods[0]", "not a method", "[GET, HEAD]"},
	{"connect", "    path: /lessons/*", "    path: /lessons/*\n    methods: [▸CONNECT]", "routes[1].methods[0]", "no tunnels", "remove it"},
	{"no methods", "    path: /lessons/*", "    path: /lessons/*\n    ▸methods: []", "routes[1].methods", "no request in", "leave methods out"},
	{"path without slash", "path: /lessons/*", "path: ▸lessons/*", "routes[1].path", "does not begin with /", `"/lessons/*"`},
	{"half a segment", "path: /lessons/*", "path: ▸/lessons*", "routes[1].path", "last segment", `"/lessons/*"`},
	{"wildcard within a path", "path: /lessons/*", "path: ▸/a/*/b", "routes[1].path", "last segment", "/lessons/*"},
	{"path with a query", "path: /lessons/*", "path: ▸/a?b=c", "routes[1].path", "a query", `"/a"`},
	{"path with a space", "path: /lessons/*", "path: ▸\"/a b\"", "routes[1].path", "encoded", "/a%20b"},
	{"path with letters beyond ASCII", "path: /lessons/*", "path: ▸/수업/*", "routes[1].path", "encoded", "/%EC%88%98%EC%97%85/*"},
	{"path with dots", "path: /lessons/*", "path: ▸/a/../b", "routes[1].path", "are refused", "without it"},
	{"path with encoded dots", "path: /lessons/*", "path: ▸/a/%2E%2e/b", "routes[1].path", "are refused", "without it"},
	{"path with a lone percent sign", "path: /lessons/*", "path: ▸/100%", "routes[1].path", "hexadecimal", "%25"},
	{"route never reached", "    origin: lms\n    cache", "    origin: lms\n  - ▸hosts: [\"*.school.example\"]\n    path: /lessons/*\n    origin: lms\n    cache", "routes[2]", "never reached: routes[1] on line 26", "another path"},
	{"tiny objects", "default_ttl: 10m", "max_object: ▸12B", "routes[1].cache.max_object", "stores nothing", "16MiB"},
	{"query with a sign", "default_ttl: 10m", "ignore_query: [▸\"a=\"]", "routes[1].cache.ignore_query[0]", "not a parameter", "utm_source"},

	// Check-in routes.
	{"no identity", "    identity: none\n", "", "routes[0].identity", "who vouches", "identity: none"},
	{"unknown identity", "identity: none", "identity: ▸nobody", "routes[0].identity", "expected none or a mapping", "identity: none"},
	{"identity that says nothing", "identity: none", "▸identity: {}", "routes[0].identity", "who vouches", "forward_auth"},
	{"unknown way of identity", "identity: none", "identity: {▸jwts: {jwks: a}}", "routes[0].identity.jwts", "unknown key", "did you mean jwt?"},
	{"two ways", "identity: none", "▸identity: {cookie: {key_file: a}, jwt: {jwks: a}}", "routes[0].identity", "could disagree", "keep one"},
	{"identity none without check-in", "    cache: {anonymous", "    identity: ▸none\n    cache: {anonymous", "routes[1].identity", "says nothing", "remove it"},
	{"identity without a way, no check-in", "    cache: {anonymous", "    identity: {login: /login}\n    cache: {anonymous", "routes[1].identity", "who vouches", "add jwt"},
	{"no keys", "identity: none", "identity: {▸jwt: {}}", "routes[0].identity.jwt", "nothing says with which keys", "jwks"},
	{"two kinds of keys", "identity: none", "identity: {▸jwt: {jwks: a, secret_file: b}}", "routes[0].identity.jwt", "more than one place", "secret_file"},
	{"HS256 of a set", "identity: none", "identity: {jwt: {jwks: a, algorithms: [▸HS256]}}", "routes[0].identity.jwt.algorithms[0]", "not an algorithm", "RS256"},
	{"alg none", "identity: none", "identity: {jwt: {jwks: a, algorithms: [▸none]}}", "routes[0].identity.jwt.algorithms[0]", "not an algorithm", "RS256"},
	{"algorithms of a secret", "identity: none", "identity: {jwt: {secret_file: a, ▸algorithms: [ES256]}}", "routes[0].identity.jwt.algorithms", "a shared secret means HS256", "remove it"},
	{"token from the query", "identity: none", "identity: {jwt: {jwks: a, from: ▸\"query:token\"}}", "routes[0].identity.jwt.from", "no place for a credential", "cookie:name"},
	{"an hour between clocks", "identity: none", "identity: {jwt: {jwks: a, leeway: ▸1h}}", "routes[0].identity.jwt.leeway", "keep ended tokens alive", "60s"},
	{"keys by FTP", "identity: none", "identity: {jwt: {jwks: ▸\"ftp://a/b\"}}", "routes[0].identity.jwt.jwks", "neither a URL", "https://"},
	{"password in a URL of keys", "identity: none", "identity: {jwt: {jwks: ▸\"https://u:p@a/b\"}}", "routes[0].identity.jwt.jwks", "ends in logs", "remove it"},
	{"looks without pause", "identity: none", "identity: {jwt: {jwks: a, refresh: ▸1s}}", "routes[0].identity.jwt.refresh", "not a sensible time", "10m"},
	{"cookie without key", "identity: none", "identity: {▸cookie: {name: s}}", "routes[0].identity.cookie", "with which key", "openssl rand"},
	{"cookie of no name", "identity: none", "identity: {cookie: {key_file: a, name: ▸\"a b\"}}", "routes[0].identity.cookie.name", "not a cookie's name", "firstbell_session"},
	{"unknown login service", "identity: none", "identity: {forward_auth: {origin: ▸lsm, path: /me, pass: [\"cookie:s\"]}}", "routes[0].identity.forward_auth.origin", "no origin", "did you mean lms?"},
	{"login service without path", "identity: none", "identity: {▸forward_auth: {origin: lms, pass: [\"cookie:s\"]}}", "routes[0].identity.forward_auth.path", "what to ask for", "/auth/me"},
	{"nothing passed on", "identity: none", "identity: {▸forward_auth: {origin: lms, path: /me}}", "routes[0].identity.forward_auth.pass", "says who asks", "cookie:session"},
	{"all passed on", "identity: none", "identity: {forward_auth: {origin: lms, path: /me, pass: [▸\"*\"]}}", "routes[0].identity.forward_auth.pass[0]", "nothing to pass on", "cookie:session"},
	{"a yes for a week", "identity: none", "identity: {forward_auth: {origin: lms, path: /me, pass: [\"cookie:s\"], ttl: ▸168h}}", "routes[0].identity.forward_auth.ttl", "may have changed", "at most 24h"},
	{"login that is none", "identity: none", "identity: {login: ▸\"javascript:alert(1)\", jwt: {jwks: a}}", "routes[0].identity.login", "neither a URL", "{return}"},
	{"few sessions", "identity: none", "identity: {sessions: ▸3, jwt: {jwks: a}}", "routes[0].identity.sessions", "not a sensible number", "16777216"},
	{"when down maybe", "identity: none", "identity: {when_down: ▸maybe, jwt: {jwks: a}}", "routes[0].identity.when_down", "not what can be done", "unverified"},
	{"when down, nobody named", "identity: none\n    check_in: {student: \"json:/student_id\"", "identity: {when_down: ▸unverified, jwt: {jwks: a}}\n    check_in: {student: \"claim:sub\"", "routes[0].identity.when_down", "which student checks in", "json:/student_id"},
	{"claim of nobody", `"json:/class_id"`, `▸"claim:sub"`, "routes[0].check_in.class", "identity is none", "identity: {jwt"},
	{"claim without a name", `"json:/class_id"`, `▸"claim:"`, "routes[0].check_in.class", "names no claim", "claim:sub"},
	{"claim that a cookie has not", "identity: none\n    check_in: {student: \"json:/student_id\"", "identity: {cookie: {key_file: a}}\n    check_in: {student: ▸\"claim:sub\"", "routes[0].check_in.student", "vouches for no sub", "claim:student"},
	{"reply that says nothing", "    identity: none", "    identity: none\n    ▸reply: {}", "routes[0].reply", "says nothing", "201"},
	{"reply of a failure", "    identity: none", "    identity: none\n    ▸reply: {status: 500}", "routes[0].reply", "does not say that", "200"},
	{"reply that is no JSON", "    identity: none", "    identity: none\n    ▸reply: {body: '{\"a\": ${student_id}}'}", "routes[0].reply", "not JSON", "quote"},
	{"reply with an unknown name", "    identity: none", "    identity: none\n    ▸reply: {body: '\"${student}\"'}", "routes[0].reply", "no placeholder", "those known are ${receipt}"},
	{"reply to elsewhere", "    identity: none", "    identity: none\n    ▸reply: {redirect: \"//${school}\"}", "routes[0].reply", "not a place", "/lessons"},
	{"reply of no check-in", "    cache: {anonymous", "    ▸reply: {status: 201}\n    cache: {anonymous", "routes[1].reply", "takes none", "remove it"},
	{"no student", `student: "json:/student_id", `, "", "routes[0].check_in.student", "which student", `student: "json:/student_id"`},
	{"field from nowhere", `"json:/class_id"`, `▸"class_id"`, "routes[0].check_in.class", "where the field stands", "json:/student_id"},
	{"dotted pointer", `"json:/class_id"`, `▸"json:class.id"`, "routes[0].check_in.class", "not a JSON pointer", `"json:/class/id"`},
	{"broken pointer", `"json:/class_id"`, `▸"json:/a~2"`, "routes[0].check_in.class", "not a JSON pointer", "json:/student_id"},
	{"form and JSON", `"json:/class_id"`, `▸"form:class"`, "routes[0].check_in.class", "either JSON or a form", "take all of them from json:"},
	{"form without a name", `"json:/class_id"`, `▸"form:"`, "routes[0].check_in.class", "names no field", "form:student_id"},
	{"field name with a space", `"json:/class_id"`, `▸"header:X Class"`, "routes[0].check_in.class", "not a field name", "header:X-Student"},
	{"field of the protocol", `"json:/class_id"`, `▸"header:Host"`, "routes[0].check_in.class", "protocol itself", "header:X-Student"},
	{"per class without class", `, class: "json:/class_id"}`, `, per_class: true}`, "routes[0].check_in.class", "which class", "json:/class_id"},
	{"huge check-in", `, class: "json:/class_id"}`, `, max_bytes: ▸1GiB}`, "routes[0].check_in.max_bytes", "not a sensible size", "64KiB"},
	{"check-in by GET", "    identity: none", "    identity: none\n    methods: [▸GET]", "routes[0].methods[0]", "check-ins are POSTs", "[POST]"},
	{"check-in anywhere", "path: /attendance/check-in", "path: ▸/attendance/*", "routes[0].path", "one exact path", "/attendance/check-in"},
	{"check-in with an origin", "    identity: none", "    identity: none\n    origin: ▸lms", "routes[0].origin", "attendance.sinks", "remove it"},
	{"check-in with a cache", "    identity: none", "    identity: none\n    ▸cache: {}", "routes[0].cache", "never stored", "remove it"},

	// Limits and logs.
	{"tiny time", `ops: "127.0.0.1:9900"}`, `ops: "127.0.0.1:9900", drain: ▸1ms}`, "listen.drain", "not a sensible time", "such as 30s"},
	{"log level", "timezone:", "log: {▸acess: true}\ntimezone:", "log.acess", "unknown key", "did you mean access?"},
}

// text is the file with the mistake, and where its problem must point to.
func (m mistake) text(t *testing.T) (string, position) {
	t.Helper()
	text := m.new
	if m.old != "" {
		if strings.Count(good, m.old) == 0 {
			t.Fatalf("the good file does not hold %q", m.old)
		}
		text = strings.Replace(good, m.old, m.new, 1)
	}
	before, after, marked := strings.Cut(text, "▸")
	if !marked {
		return text, position{}
	}
	line := strings.Count(before, "\n") + 1
	last := before[strings.LastIndex(before, "\n")+1:]
	return before + after, position{line, len([]rune(last)) + 1}
}

func TestEveryMistakeIsNamedWithItsPlaceAndAWayOut(t *testing.T) {
	for _, m := range slices.Concat(mistakes, sinkMistakes, collectMistakes, liveMistakes) {
		t.Run(m.name, func(t *testing.T) {
			text, at := m.text(t)
			c, problems := Read("firstbell.yaml", []byte(text))
			errs := problems.Errors()
			if c != nil || len(errs) == 0 {
				t.Fatalf("the file was taken; want a problem about %q", m.path)
			}
			p := errs[0]
			if p.Line < 1 || p.Column < 1 || p.What == "" || p.Fix == "" {
				t.Errorf("got %q; want line, column, what is wrong and a way out", p)
			}
			if at.line > 0 && (p.Line != at.line || p.Column != at.column) {
				t.Errorf("got %d:%d, want %d:%d in: %s", p.Line, p.Column, at.line, at.column, p)
			}
			if p.Path != m.path {
				t.Errorf("got field %q, want %q in: %s", p.Path, m.path, p)
			}
			if !strings.Contains(p.What, m.what) || !strings.Contains(p.Fix, m.fix) {
				t.Errorf("got  %s\nwant %q, then %q", p, m.what, m.fix)
			}
			if len(errs) > 1 {
				t.Errorf("one mistake was shown %d times:\n%s", len(errs), errs.Error())
			}
		})
	}
}

func TestLimitsOfClientsAreSensible(t *testing.T) {
	read := func(limits string) (*Config, Problems) {
		return Read("firstbell.yaml", []byte(`listen: {http: ":8080"}
limits: {`+limits+`}
origins: {lms: {servers: ["http://10.0.0.5:8080"]}}
routes: [{hosts: ["*"], origin: lms}]
`))
	}
	c, problems := read("connections: 1000, connections_per_address: 100, header: 5s, idle: 1m, min_rate: 1KiB, grace: 10s")
	if c == nil || len(problems) > 0 {
		t.Fatalf("got problems, want none:\n%s", problems)
	}
	if l := c.Limits.Proxy(); l.Connections != 1000 || l.PerAddress != 100 || l.Header != 5*time.Second || l.Idle != time.Minute || l.MinRate != 1024 || l.Grace != 10*time.Second {
		t.Errorf("got %+v, want what the file says", l)
	}
	for limits, path := range map[string]string{
		"connections: 0":  "limits.connections",
		"connections: -3": "limits.connections",
		"connections: 10, connections_per_address: 20": "limits.connections_per_address",
		"header: 1ms":    "limits.header",
		"idle: 1000h":    "limits.idle",
		"grace: 1h":      "limits.grace",
		"min_rate: 1GiB": "limits.min_rate",
		"min_rate: 256":  "limits.min_rate",
	} {
		if _, problems := read(limits); len(problems) != 1 || problems[0].Path != path {
			t.Errorf("limits: {%s}: got %v, want a problem at %s", limits, problems, path)
		}
	}
}

func TestWhereContentsWait(t *testing.T) {
	read := func(spool, route string) (*Config, Problems) {
		return Read("/etc/firstbell/firstbell.yaml", []byte(`listen: {http: ":8080"}
spool: {`+spool+`}
timezone: Etc/UTC
origins: {lms: {servers: ["http://10.0.0.5:8080"]}}
attendance: {journal: /var/lib/firstbell/journal}
routes: [{hosts: ["*"], origin: lms`+route+`}]
`))
	}
	c, problems := read("path: spool, size: 1GiB", ", request_buffering: false, response_buffering: true")
	if c == nil {
		t.Fatalf("got problems, want none:\n%s", problems)
	}
	if s, r := c.Spool, c.Routes[0]; s.Path != "/etc/firstbell/spool" || s.Size != 1<<30 || *r.RequestBuffering || !*r.ResponseBuffering {
		t.Errorf("got %+v, %v, %v; want what the file says", s, *r.RequestBuffering, *r.ResponseBuffering)
	}
	for spool, path := range map[string]string{
		"size: 1MiB":                             "spool.size",
		"path: \"\"":                             "spool.path",
		"path: /var/lib/firstbell/journal/spool": "spool.path",
	} {
		if _, problems := read(spool, ""); len(problems.Errors()) != 1 || problems.Errors()[0].Path != path {
			t.Errorf("spool: {%s}: got %v, want a problem at %s", spool, problems, path)
		}
	}
}

func TestClientsAreTrustedAndLimitedSensibly(t *testing.T) {
	read := func(text, route string) (*Config, Problems) {
		return Read("firstbell.yaml", []byte(text+`
origins: {lms: {servers: ["http://10.0.0.5:8080"]}}
routes: [{hosts: ["*"], origin: lms`+route+`}]
`))
	}
	c, problems := read(`listen: {http: ":8080", proxy_protocol: true}
clients:
  trusted: ["10.0.0.0/8", "2001:db8::7"]
  forwarded: rfc7239
  deny: ["198.51.100.0/24"]
  ipv6_prefix: 56
  per_client: {rate: 50/s, at_once: 100}
  per_school: {rate: 30/m, burst: 5000, check_ins: false}`, `, allow: ["192.0.2.0/24"]`)
	if c == nil || len(problems) > 0 {
		t.Fatalf("got problems, want none:\n%s", problems)
	}
	if f := c.Clients; !c.Listen.Proxy || len(f.Trusted) != 2 || f.PerClient.Burst != 250 || f.PerClient.Every() != 20*time.Millisecond ||
		f.PerSchool.Burst != 5000 || f.PerSchool.Every() != 2*time.Second || c.Routes[0].Allow[0] != "192.0.2.0/24" {
		t.Errorf("got %+v, want what the file says", f)
	}
	for _, m := range []struct{ clients, path, what, fix string }{
		{`trusted: ["10.0.0.1/8"]`, "clients.trusted[0]", "bits behind its prefix", "10.0.0.0/8"},
		{`trusted: ["lb.example"]`, "clients.trusted[0]", "not an address", "192.0.2.0/24"},
		{`trusted: ["0.0.0.0/0"]`, "clients.trusted[0]", "everybody", "10.0.0.0/8"},
		{`trusted: ["10.0.0.1", "10.0.0.1"]`, "clients.trusted[1]", "twice", "remove"},
		{`trusted: []`, "clients.trusted", "empty", "leave it out"},
		{`trusted: ["10.0.0.1"], forwarded: both`, "clients.forwarded", "neither", "rfc7239"},
		{`forwarded: rfc7239`, "clients.forwarded", "nobody is trusted", "trusted"},
		{`ipv6_prefix: 8`, "clients.ipv6_prefix", "between 32 and 128", "64"},
		{`per_client: {rate: 50}`, "clients.per_client.rate", "rate", "50/s"},
		{`per_client: {burst: 50}`, "clients.per_client.burst", "there is none", "rate"},
		{`per_client: {check_ins: true}`, "clients.per_client", "nothing is limited", "at_once"},
		{`per_school: {at_once: -1}`, "clients.per_school.at_once", "number", "100"},
		{`per_school: {rate: 50/s, check_ins: true}`, "clients.per_school.check_ins", "within a minute", "burst"},
	} {
		_, problems := read(`listen: {http: ":8080"}`+"\nclients: {"+m.clients+"}", "")
		if len(problems) != 1 || problems[0].Path != m.path || !strings.Contains(problems[0].What, m.what) || !strings.Contains(problems[0].Fix, m.fix) {
			t.Errorf("clients: {%s}: got %v, want a problem at %s with %q and %q", m.clients, problems, m.path, m.what, m.fix)
		}
	}
	if _, problems := read(`listen: {http: ":8080", proxy_protocol: true}`, ""); len(problems) != 1 || problems[0].Path != "listen.proxy_protocol" {
		t.Errorf("the PROXY protocol of nobody: got %v, want a problem at listen.proxy_protocol", problems)
	}
	if _, problems := read(`listen: {http: ":8080"}`, `, deny: ["x"]`); len(problems) != 1 || problems[0].Path != "routes[0].deny[0]" {
		t.Errorf("a route that denies x: got %v, want a problem at routes[0].deny[0]", problems)
	}
}
