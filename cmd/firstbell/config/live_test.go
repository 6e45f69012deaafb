package config

import (
	"strings"
	"testing"
	"time"
)

const lastRoute = "  - hosts: [\"*.school.example\"]\n    origin: lms\n"

var liveMistakes = []mistake{
	{"websocket that is no truth", lastRoute, lastRoute + "    websocket: ▸2\n", "routes[2].websocket", "expected", "true or false"},
	{"websocket without GET", lastRoute, lastRoute + "    methods: [POST]\n    websocket: ▸true\n", "routes[2].websocket", "opened with GET", "add GET"},
	{"websocket for check-ins", "    identity: none\n", "    identity: none\n    websocket: ▸true\n", "routes[0].websocket", "this route asks none", "remove it"},
	{"live for check-ins", "    identity: none\n", "    identity: none\n    ▸live: {idle: 1m}\n", "routes[0].live", "answers at once", "remove it"},
	{"live and stored", "    cache: {anonymous: true, default_ttl: 10m}", "    cache: {anonymous: true, default_ttl: 10m}\n    ▸live: {idle: 1m}", "routes[1].live", "neither stored nor shared", "a route of its own"},
	{"live with a total", lastRoute, lastRoute + "    live: {}\n    timeouts: {total: ▸60s}\n", "routes[2].timeouts.total", "live.lifetime takes its place", "live: {lifetime: 2h}"},
	{"live without a value", lastRoute, lastRoute + "    ▸live:\n", "routes[2].live", "no value", "idle: 5m"},
	{"nobody may live", lastRoute, lastRoute + "    live: {max: ▸0}\n", "routes[2].live.max", "0 is no value", "such as 2000"},
	{"too many may live", lastRoute, lastRoute + "    live: {max: ▸99999999}\n", "routes[2].live.max", "is no bound", "such as 2000"},
	{"idle at once", lastRoute, lastRoute + "    live: {idle: ▸1ms}\n", "routes[2].live.idle", "not a sensible time", "write 1s"},
	{"living for ever", lastRoute, lastRoute + "    live: {lifetime: ▸9999h}\n", "routes[2].live.lifetime", "not a sensible time", "168h"},
	{"unknown key of live", lastRoute, lastRoute + "    live: {▸timeout: 60s}\n", "routes[2].live.timeout", "unknown key", ""},
	{"too many in all", "timezone:", "limits: {live: ▸99999999}\ntimezone:", "limits.live", "is no number of live", "65536"},
}

func TestWhatARouteSaysOfWhatLastsIsRead(t *testing.T) {
	c := readGood(t, "firstbell.yaml", strings.Replace(good, lastRoute, lastRoute+"    websocket: true\n    live: {max: 300, idle: 90s, lifetime: 2h}\n", 1)+"limits: {live: 500}\n")
	if c == nil {
		return
	}
	r := c.Routes[2]
	if !r.WebSocket || r.Live.Max != 300 || r.Live.Idle != 90*time.Second || r.Live.Lifetime != 2*time.Hour || c.Limits.Live != 500 {
		t.Errorf("got %v, %+v and %d in all, want what the file says", r.WebSocket, r.Live, c.Limits.Live)
	}
}
