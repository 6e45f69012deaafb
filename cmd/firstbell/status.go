package main

import (
	"os"
	"time"

	"firstbell/attendance"
	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
	"firstbell/proxy/origin"
)

// statusReport is what GET /status answers. Names are for scripts: they stay.
type statusReport struct {
	Build      version          `json:"build"`
	Started    time.Time        `json:"started"`
	Uptime     string           `json:"uptime"`
	Ready      bool             `json:"ready"`
	NotReady   string           `json:"not_ready,omitempty"`
	Process    processStatus    `json:"process"`
	Config     configStatus     `json:"config"`
	Requests   map[string]int64 `json:"requests"` // by outcome
	SentBytes  int64            `json:"sent_bytes"`
	Clients    clientStatus     `json:"clients"`
	Live       liveStatus       `json:"live"`
	Codings    codingStatus     `json:"codings"`
	Flights    flightStatus     `json:"flights"`
	Cache      cacheStatus      `json:"cache"`
	Origins    []originStatus   `json:"origins"`
	Attendance *attendStatus    `json:"attendance,omitempty"`
	Identities []identityStatus `json:"identities,omitempty"`
	TLS        *tlsStatus       `json:"tls,omitempty"`
	HTTP3      *http3Status     `json:"http3,omitempty"`

	// Contradictions counts by school the check-ins that named another student
	// than their credential does.
	Contradictions map[string]uint64 `json:"contradictions,omitempty"`
}

// processStatus is which process this is, of those that took over from one
// another.
type processStatus struct {
	PID        int `json:"pid"`
	Generation int `json:"generation"` // 1, and one more with each upgrade

	// Before is the process before this one, while it answers what it has left.
	Before int `json:"before,omitempty"`

	LastUpgrade    *upgraded `json:"last_upgrade,omitempty"` // of this process, which it outlived
	UpgradesFailed uint64    `json:"upgrades_failed"`

	// Check-ins that had to wait because the journal changed hands.
	Waited     uint64 `json:"waited"`
	TurnedAway uint64 `json:"turned_away"` // of those, in vain
}

type configStatus struct {
	File       string    `json:"file"`
	Digest     string    `json:"digest"`
	Loaded     time.Time `json:"loaded"`
	Reloads    uint64    `json:"reloads"`
	Failed     uint64    `json:"reloads_failed"`
	LastReload *reloaded `json:"last_reload,omitempty"`
}

// codingStatus is about the variants of stored responses that are made here.
type codingStatus struct {
	Made       map[string]int64 `json:"made"` // by content coding
	Left       int64            `json:"left"` // not worth it
	Dropped    int64            `json:"dropped"`
	Refused    int64            `json:"decodings_refused"` // as too much was being decoded
	SavedBytes int64            `json:"saved_bytes"`
}

type flightStatus struct {
	Begun   int64 `json:"begun"`
	Now     int   `json:"now"`
	Broken  int64 `json:"broken"`
	Resumed int64 `json:"resumed"`

	// Blocks of large content, fetched for who asks for parts.
	Blocks        int64 `json:"blocks"`
	BlocksAhead   int64 `json:"blocks_ahead"`
	BlocksChanged int64 `json:"blocks_changed"`
}

type cacheStatus struct {
	Objects   int64  `json:"objects"`
	Bytes     int64  `json:"bytes"`
	MaxBytes  int64  `json:"max_bytes"`
	Paged     int64  `json:"paged_bytes"` // of large bodies, outside of the heap
	Hits      uint64 `json:"hits"`
	Stale     uint64 `json:"stale"`
	Misses    uint64 `json:"misses"`
	Bypasses  uint64 `json:"bypasses"`
	Evictions uint64 `json:"evictions"`

	Pinned         int64  `json:"pinned"` // keys that are never pushed out
	PinnedBytes    int64  `json:"pinned_bytes"`
	PinnedMaxBytes int64  `json:"pinned_max_bytes"`
	PinsRefused    uint64 `json:"pins_refused"` // times that there was no room among them

	Disk      *diskStatus    `json:"disk,omitempty"`
	Purges    uint64         `json:"purges"` // selectors
	LastPurge *purgeAnswered `json:"last_purge,omitempty"`
}

// diskStatus is the cache below memory.
type diskStatus struct {
	Objects   int64             `json:"objects"`
	Bytes     int64             `json:"bytes"`
	MaxBytes  int64             `json:"max_bytes"`
	Rebuilt   float64           `json:"rebuilt"` // the part of the index that is there
	Hits      uint64            `json:"hits"`
	Stored    uint64            `json:"stored"`
	Evictions uint64            `json:"evictions"`
	Refused   uint64            `json:"refused"`
	Queued    int               `json:"queued"` // responses on their way to disk
	Alarms    map[string]uint64 `json:"alarms,omitempty"`
	Paused    bool              `json:"paused,omitempty"`
	Why       string            `json:"why,omitempty"` // the last error of a write
}

type originStatus struct {
	Name    string         `json:"name"`
	Max     int            `json:"max"`
	InUse   int            `json:"in_use"`
	Waiting int            `json:"waiting"`
	Refused uint64         `json:"refused"` // the queue was full, or the wait too long
	Servers []serverStatus `json:"servers"`
}

type serverStatus struct {
	Address  string `json:"address"`
	Healthy  bool   `json:"healthy"`
	InFlight int    `json:"in_flight"`
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"`
}

type attendStatus struct {
	Receipts uint64        `json:"receipts"`
	Again    uint64        `json:"again"`
	Refused  uint64        `json:"refused"`
	Invalid  uint64        `json:"invalid"`
	Waiting  int           `json:"waiting"`
	OnRoll   int           `json:"on_roll"`
	Journal  journalStatus `json:"journal"`
	Collect  collectStatus `json:"collect"`
	Store    storeStatus   `json:"store"`
	Sinks    []sinkStatus  `json:"sinks"`
}

type journalStatus struct {
	State    string    `json:"state"`
	Why      string    `json:"why,omitempty"`
	Since    time.Time `json:"since"`
	Amber    []string  `json:"amber,omitempty"`
	Damage   []string  `json:"damage,omitempty"`
	Next     uint64    `json:"next"`
	Segment  string    `json:"segment"`
	Bytes    int64     `json:"bytes"`
	Free     int64     `json:"free"`                 // on the file system; -1: not known
	Capacity int64     `json:"capacity"`             // bytes that disk.max and disk.reserve leave to it
	Share    float64   `json:"share"`                // of that, in use
	LeftHour float64   `json:"hours_left,omitempty"` // at the present rate; absent: it does not grow
	Batches  uint64    `json:"batches"`
	Key      string    `json:"key"` // that seals batches
	KeyMade  time.Time `json:"key_made"`
	Failures uint64    `json:"failures"`
}

type storeStatus struct {
	Location   string         `json:"location"` // without a password
	Statements uint64         `json:"statements"`
	Delivery   deliveryStatus `json:"delivery"`
}

// collectStatus is about small writes that are no check-ins.
type collectStatus struct {
	Records   uint64 `json:"records"`
	Repeats   uint64 `json:"repeats"`
	Differing uint64 `json:"differing"` // repeats with another body: the first counts
	Refused   uint64 `json:"refused"`
	Invalid   uint64 `json:"invalid"`
	OnRoll    int    `json:"on_roll"`
	Forgotten uint64 `json:"forgotten"` // keys forgotten before their time
}

type sinkStatus struct {
	Name     string         `json:"name"`
	Kind     string         `json:"kind"`  // http, xapi, caliper or replay
	Takes    string         `json:"takes"` // check_ins or collected
	URL      string         `json:"url"`
	Requests uint64         `json:"requests"`
	Parked   int            `json:"parked"` // records that somebody must deal with: firstbell attendance parked
	Age      float64        `json:"age"`
	Delivery deliveryStatus `json:"delivery"`
}

type deliveryStatus struct {
	Next       uint64  `json:"next"` // first record not delivered
	Rows       uint64  `json:"rows"`
	Duplicates uint64  `json:"duplicates"`
	Parked     uint64  `json:"parked"`
	Writes     uint64  `json:"writes"`
	Failures   uint64  `json:"failures"`
	Lag        uint64  `json:"lag"`        // records of the journal that it has not come to
	FromStore  uint64  `json:"from_store"` // rows that the journal no longer had
	Lost       uint64  `json:"lost"`       // records that a full disk took before they were delivered
	Age        float64 `json:"age"`        // seconds that the oldest record waits
	Stopped    bool    `json:"stopped"`
	Error      string  `json:"error,omitempty"`
}

// report gathers what the parts say about themselves.
func (s *server) report() *statusReport {
	now := s.now.Load()
	p := s.proxy.Stats()
	why := s.notReady()
	r := &statusReport{
		Process: s.processReport(),
		Build:   buildVersion(), Started: s.started, Uptime: time.Since(s.started).Round(time.Second).String(),
		Ready: why == "", NotReady: why,
		Config: configStatus{
			File: s.options.file, Digest: now.config.Digest, Loaded: now.loaded,
			Reloads: s.reloads.good.Load(), Failed: s.reloads.bad.Load(), LastReload: s.reloads.latest.Load(),
		},
		Requests: p.Outcomes, SentBytes: p.SentBytes,
		Live:    liveReport(&p.Live),
		Clients: s.clientReport(),
		Codings: codingStatus{Made: p.Coded, Left: p.CodingsLeft, Dropped: p.CodingsDropped, Refused: p.DecodeRefused, SavedBytes: p.SavedBytes},
		Flights: flightStatus{Begun: p.Flights, Now: p.FlightsNow, Broken: p.FlightsBroken, Resumed: p.FlightsResumed,
			Blocks: p.Blocks, BlocksAhead: p.BlocksAhead, BlocksChanged: p.BlocksChanged},
		Origins: []originStatus{},
	}
	c := s.cache.Stats()
	r.Cache = cacheStatus{
		Objects: c.Objects, Bytes: c.Bytes(), MaxBytes: c.MaxBytes,
		Hits: c.Hits, Stale: c.StaleHits, Misses: c.Misses, Bypasses: c.Bypasses, Evictions: c.Evictions,
		Paged: c.PagedBytes, Pinned: c.PinnedKeys, PinnedBytes: c.PinnedBytes, PinnedMaxBytes: c.PinnedMaxBytes, PinsRefused: c.PinsRefused,
		Purges: c.Purges, LastPurge: s.purged.Load(),
	}
	if c.Disk != nil {
		r.Cache.Disk = diskReport(c.Disk)
	}
	for _, name := range config.SortedKeys(now.origins) {
		r.Origins = append(r.Origins, originReport(name, now.origins[name]))
	}
	if takes := s.takes.Load(); takes != nil {
		r.Attendance = takes.report()
	}
	for _, v := range now.who.list() {
		r.Identities = append(r.Identities, identityReport(v))
	}
	r.Contradictions = p.Contradictions
	r.TLS = tlsStatusOf(s, &p)
	r.HTTP3 = http3StatusOf(s, &p)
	return r
}

func (s *server) processReport() processStatus {
	p := processStatus{
		PID: os.Getpid(), Generation: s.generation, LastUpgrade: s.upgrades.latest.Load(), UpgradesFailed: s.upgrades.bad.Load(),
		Waited: s.clerk.waited.Load(), TurnedAway: s.clerk.refused.Load(),
	}
	if before := s.inherited.before; before != nil {
		select {
		case <-s.alone:
		default:
			p.Before = before.PID
		}
	}
	return p
}

func diskReport(d *cache.DiskStats) *diskStatus {
	out := &diskStatus{
		Objects: d.Objects, Bytes: d.Bytes, MaxBytes: d.MaxBytes, Rebuilt: d.Rebuilt, Hits: d.Hits, Stored: d.Stored,
		Evictions: d.Evicted, Refused: d.Refused, Queued: d.Queued, Paused: d.Paused, Why: d.Why,
	}
	for kind, n := range diskAlarms(d) {
		if n > 0 {
			if out.Alarms == nil {
				out.Alarms = map[string]uint64{}
			}
			out.Alarms[kind] = n
		}
	}
	return out
}

// diskAlarms are what was found wrong with the cache on disk, by kind.
func diskAlarms(d *cache.DiskStats) map[string]uint64 {
	return map[string]uint64{"torn": d.Torn, "damaged": d.Damaged, "foreign": d.Foreign, "read": d.FailedReads, "write": d.FailedWrites}
}

func originReport(name string, u *upstream) originStatus {
	l := u.Limit.Stats()
	o := originStatus{Name: name, Max: l.Max, InUse: l.InUse, Waiting: l.Waiting, Refused: l.Refused + l.TimedOut, Servers: []serverStatus{}}
	for _, sv := range u.Pool.Stats().Servers {
		o.Servers = append(o.Servers, serverReport(&sv))
	}
	return o
}

func serverReport(sv *origin.ServerStats) serverStatus {
	return serverStatus{Address: sv.Address, Healthy: sv.Healthy, InFlight: sv.InFlight, Requests: sv.Requests, Failures: sv.Failures}
}

func (a *attendant) report() *attendStatus {
	st, h := a.recorder.Stats(), a.journal.Health()
	r := &attendStatus{
		Receipts: st.Receipts, Again: st.Again, Refused: st.Busy + st.Down, Invalid: st.Invalid,
		Waiting: st.Waiting, OnRoll: st.OnRoll,
		Journal: journalStatus{
			State: h.State.String(), Since: h.Since, Amber: h.Amber, Next: h.Next, Segment: h.Segment,
			Bytes: h.Bytes, Free: h.Free, Batches: h.Stats.Appends, Failures: h.Stats.Failures,
		},
		Store:   storeStatus{Location: a.place, Statements: a.store.Writes(), Delivery: deliveryReport(a.toStore.Stats(), h.Next)},
		Collect: collectReport(a.recorder.CollectStats()),
		Sinks:   []sinkStatus{},
	}
	if h.Why != nil {
		r.Journal.Why = h.Why.Error()
	}
	room := a.room.see(&h, time.Now())
	r.Journal.Capacity, r.Journal.Share, r.Journal.LeftHour = room.Capacity, room.Share, room.Left.Hours()
	if text := room.warning(); text != "" {
		r.Journal.Amber = append(r.Journal.Amber, text)
	}
	if key, made := a.keys.Current(); key != nil {
		r.Journal.Key, r.Journal.KeyMade = key.ID.String(), made
	}
	for _, d := range a.journal.Damage() {
		if d.Alarm() {
			r.Journal.Damage = append(r.Journal.Damage, d.String())
		}
	}
	for _, s := range a.sinks {
		d := deliveryReport(s.delivery.Stats(), h.Next)
		d.Lost = s.lost.Load()
		r.Sinks = append(r.Sinks, sinkStatus{
			Name: s.name, Kind: s.kind, Takes: s.takes(), URL: s.url,
			Requests: d.Writes, Parked: s.target.ParkedNow(), Age: d.Age, Delivery: d,
		})
	}
	return r
}

func collectReport(c attendance.CollectStats) collectStatus {
	return collectStatus{
		Records: c.Records, Repeats: c.Repeats, Differing: c.Differing, Refused: c.Refused,
		Invalid: c.Invalid, OnRoll: c.OnRoll, Forgotten: c.Forgotten,
	}
}

// lagOf is how many records lie before the journal's end that a delivery has
// not come to.
func lagOf(d *attendance.DeliveryStats, next uint64) uint64 { return next - min(next, max(1, d.Seen)) }

func deliveryReport(d attendance.DeliveryStats, next uint64) deliveryStatus {
	r := deliveryStatus{
		Next: d.Next, Rows: d.Rows, Duplicates: d.Duplicates, Parked: d.Parked, Writes: d.Writes,
		Failures: d.Failures, Lag: lagOf(&d, next), FromStore: d.FromPast, Age: ageOf(d.Oldest), Stopped: d.Stopped,
	}
	if d.Err != nil {
		r.Error = d.Err.Error()
	}
	return r
}

// ageOf is how many seconds ago a moment was, to the tenth; 0 when there is
// none.
func ageOf(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(0, float64(time.Since(t)/(100*time.Millisecond))/10)
}
