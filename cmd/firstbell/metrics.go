package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cache"
	"firstbell/cmd/firstbell/config"
)

// A collector shows the packages' own counters; nothing is counted twice, and
// no request touches a metric.
type collector struct{ s *server }

// Describe sends nothing: which series there are depends on the origins and
// sinks of the moment.
func (collector) Describe(chan<- *prometheus.Desc) {}

// series is one metric family.
type series struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) series {
	return series{prometheus.NewDesc("firstbell_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) series {
	return series{prometheus.NewDesc("firstbell_"+name, help, labels, nil), prometheus.GaugeValue}
}

func (m series) send(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

var (
	mBuild = gauge("build_info", "1, with the version.", "version", "go")
	mReady = gauge("ready", "1 when requests should come here.")

	mRequests     = counter("proxy_requests_total", "Requests answered, by what became of them.", "outcome")
	mStatuses     = counter("proxy_responses_total", "Responses sent, by the class of their status.", "class")
	mSent         = counter("proxy_sent_bytes_total", "Content sent to clients.")
	mSaved        = counter("proxy_saved_bytes_total", "Content not sent because a smaller coding of it was made here.")
	mCoded        = counter("proxy_codings_total", "Variants of stored responses made, by content coding.", "coding")
	mCodingsLeft  = counter("proxy_codings_left_total", "Variants of stored responses that saved too little, or could not be made.")
	mDecodeBusy   = counter("proxy_decodings_refused_total", "Hits answered 503, as too much was being decoded for clients that refuse the stored coding.")
	mCodingsDrop  = counter("proxy_codings_dropped_total", "Wishes for variants that found the queue full; they are made later.")
	mLatency      = prometheus.NewDesc("firstbell_proxy_request_duration_seconds", "From a request's head to the end of its answer.", nil, nil)
	mFlights      = counter("proxy_flights_total", "Fetches that several clients could share.")
	mFlightsNow   = gauge("proxy_flights", "Fetches under way that several clients can share.")
	mFlightsBad   = counter("proxy_flights_broken_total", "Fetches that ended without a whole body.")
	mResumed      = counter("proxy_flights_resumed_total", "Times that a body cut off by the origin was continued by a range request.")
	mBlocks       = counter("proxy_blocks_total", "Blocks of large content fetched, by range requests, for clients that ask for parts.")
	mBlocksAhead  = counter("proxy_blocks_ahead_total", "Of those, begun before a client came to them.")
	mBlocksOther  = counter("proxy_blocks_changed_total", "Times that a block was of other content than those before: answers under way end visibly.")
	mPanics       = counter("proxy_panics_total", "Exchanges lost to a mistake in firstbell.")
	mMalformed    = counter("proxy_malformed_total", "Requests refused because they have no single meaning, by reason.", "reason")
	mHandshakes   = counter("tls_handshakes_total", "TLS handshakes over TCP, by what became of them.", "outcome")
	mResumedTLS   = counter("tls_resumed_total", "TLS handshakes that resumed a session.")
	mGreeting     = gauge("tls_handshakes", "TLS handshakes under way.")
	mHTTP2Conns   = gauge("proxy_http2_connections", "Connections open that speak HTTP/2.")
	mHTTP2Streams = gauge("proxy_http2_streams", "Requests under way over HTTP/2.")
	mHTTP2Back    = counter("proxy_http2_taken_back_total", "Requests over HTTP/2 that clients took back before they had their answer.")
	mHTTP2Refused = counter("proxy_http2_refused_total", "Streams and connections of HTTP/2 ended for what their clients did, by reason.", "reason")
	mMisdirected  = counter("proxy_misdirected_total", "Requests for a host that their connection is not for.")
	mCertificate  = gauge("tls_certificate_expires_timestamp_seconds", "When a certificate in use expires.", "certificate")
	mCertificates = gauge("tls_certificates", "Certificates in use.")
	mACMEWanted   = gauge("tls_acme_names", "Names that certificates are got for.")
	mACMEMissing  = gauge("tls_acme_names_missing", "Of them, those without a certificate.")
	mACMEFailing  = gauge("tls_acme_names_failing", "Of them, those whose last order failed, or that must wait.")
	mACMEOrders   = counter("tls_acme_orders_total", "Orders of certificates, by what became of them.", "outcome")
	mACMEPaused   = gauge("tls_acme_paused", "1 while nothing is ordered, as the CA or the disk is at fault.")
	mCertProblem  = gauge("tls_certificate_problems", "Certificates that are not good, or whose files cannot be used.")
	mLookups      = counter("cache_lookups_total", "Look-ups, by outcome.", "outcome")
	mObjects      = gauge("cache_objects", "Stored responses.")
	mBytes        = gauge("cache_bytes", "Memory that stored responses take.")
	mMaxBytes     = gauge("cache_max_bytes", "Memory that they may take.")
	mPagedBytes   = gauge("cache_paged_bytes", "Memory outside of the heap that large bodies take, those that are about to go included.")
	mEvictions    = counter("cache_evictions_total", "Stored responses pushed out for room.")
	mPuts         = counter("cache_puts_total", "Responses stored.")
	mPutsRefused  = counter("cache_puts_refused_total", "Responses not stored: too large, or worse than what is there.")
	mPinnedBytes  = gauge("cache_pinned_bytes", "Memory that pinned responses take.")
	mPinsRefused  = counter("cache_pins_refused_total", "Times that a pinned response found no room among the pinned.")
	mDiskObjects  = gauge("cache_disk_objects", "Stored responses on disk.")
	mDiskBytes    = gauge("cache_disk_bytes", "What they take there.")
	mDiskMax      = gauge("cache_disk_max_bytes", "What they may take.")
	mDiskRebuilt  = gauge("cache_disk_rebuilt_ratio", "The part of the index that is there after a start.")
	mDiskHits     = counter("cache_disk_hits_total", "Look-ups answered from disk.")
	mDiskStored   = counter("cache_disk_stored_total", "Responses written to disk.")
	mDiskWritten  = counter("cache_disk_written_bytes_total", "Bytes of them.")
	mDiskEvicted  = counter("cache_disk_evictions_total", "Responses removed from disk for room.")
	mDiskRefused  = counter("cache_disk_refused_total", "Responses not written: no room, too large, or the disk takes nothing.")
	mDiskQueued   = gauge("cache_disk_queued", "Responses on their way to disk.")
	mDiskAlarms   = counter("cache_disk_alarms_total", "Files that were no answer (torn, damaged, foreign), and calls that failed (read, write).", "kind")
	mDiskPaused   = gauge("cache_disk_paused", "1 while nothing is stored on disk, as it is full or failed.")
	mPurges       = counter("cache_purges_total", "Selectors purged.")
	mLearnt       = counter("cache_uncacheable_learnt_total", "Keys found to be not shareable.")

	mAdmissionMax     = gauge("admission_max", "Requests that an origin is asked at once, at most.", "origin")
	mAdmissionInUse   = gauge("admission_in_use", "Requests that an origin is asked right now.", "origin")
	mAdmissionWaiting = gauge("admission_waiting", "Requests that wait for an origin.", "origin")
	mAdmitted         = counter("admission_admitted_total", "Requests let through to an origin.", "origin")
	mAdmissionRefused = counter("admission_refused_total", "Requests refused, by reason.", "origin", "reason")
	mRetries          = counter("origin_retries_total", "Requests sent again because an idle connection had died.", "origin")
	mHealthy          = gauge("origin_healthy", "1 when a server is taken for well.", "origin", "server")
	mInFlight         = gauge("origin_in_flight", "Requests whose response is not complete.", "origin", "server")
	mOriginRequests   = counter("origin_requests_total", "Requests sent to a server.", "origin", "server")
	mFailures         = counter("origin_failures_total", "Connects, responses and contents that failed or took too long.", "origin", "server")
	mOpened           = counter("origin_connections_opened_total", "Connections opened.", "origin", "server")

	mReceipts     = counter("attendance_receipts_total", "Check-ins made durable.")
	mAgain        = counter("attendance_duplicates_total", "Presses that got the receipt of an earlier one.")
	mRefused      = counter("attendance_refused_total", "Presses refused for the moment, by reason.", "reason")
	mInvalid      = counter("attendance_invalid_total", "Presses with a field that cannot be recorded.")
	mBatches      = counter("attendance_batches_total", "Batches made durable.")
	mPending      = gauge("attendance_pending", "Presses that wait for their batch.")
	mOnRoll       = gauge("attendance_on_roll", "Check-ins remembered for their receipts.")
	mJournalOpen  = gauge("wal_open", "1 when the journal takes records.")
	mJournalAmber = gauge("wal_warnings", "What needs a person although records are taken.")
	mDamage       = gauge("wal_damages", "Stretches of the journal where acknowledged records may be missing.")
	mJournalBytes = gauge("wal_bytes", "What all segments take on disk.")
	mJournalFree  = gauge("wal_free_bytes", "What the journal's file system has left.")
	mRoom         = gauge("wal_room_share", "Share of the room in use that disk.max and disk.reserve leave to the journal.")
	mRoomLeft     = gauge("wal_room_left_seconds", "Until the journal's room is used up at the present rate; 0 when it does not grow.")
	mSync         = counter("wal_sync_seconds_total", "Time spent in syncs.")
	mAppends      = counter("wal_appends_total", "Appends acknowledged.")
	mAppendErrors = counter("wal_append_failures_total", "Appends that reached the disk and failed.")
	mStatements   = counter("store_statements_total", "Statements that wrote to the store.")
	mAge          = gauge("delivery_oldest_seconds", "Age of the oldest check-in not delivered.", "to")
	mRows         = counter("delivery_rows_total", "Check-ins delivered.", "to")
	mDuplicates   = counter("delivery_duplicates_total", "Check-ins that the other side had already.", "to")
	mParked       = counter("delivery_parked_total", "Records put aside with a reason.", "to")
	mParkedNow    = gauge("delivery_parked", "Records put aside that somebody must deal with.", "to")
	mLag          = gauge("delivery_lag_records", "Records of the journal that a delivery has not come to.", "to")
	mFromStore    = counter("delivery_from_store_total", "Check-ins that a sink read from the store, as the journal no longer had them.", "to")
	mLost         = counter("delivery_lost_total", "Records that a full disk took from the journal before they were delivered.", "to")
	mCollected    = counter("collect_records_total", "Small writes made durable.")
	mRepeats      = counter("collect_repeats_total", "Small writes whose key was there already, by whether their body was the same.", "body")
	mCollectBad   = counter("collect_refused_total", "Small writes refused, by reason.", "reason")
	mCollectRoll  = gauge("collect_on_roll", "Keys of small writes that are remembered.")
	mForgotten    = counter("collect_forgotten_total", "Keys forgotten before their time, because too many came.")
	mWrites       = counter("delivery_writes_total", "Statements or requests.", "to")
	mDelFailures  = counter("delivery_failures_total", "Bulks that did not go through and were tried again.", "to")
	mStopped      = gauge("delivery_stopped", "1 when somebody must look.", "to")
	mReloads      = counter("config_reloads_total", "Files put in force while running.")
	mReloadsBad   = counter("config_reloads_failed_total", "Files refused while running.")
	mReloadBad    = gauge("config_reload_failed", "1 when the last file was refused and the one before it is in force.")
	mGeneration   = gauge("generation", "1, and one more with each process that took over from the one before.")
	mBefore       = gauge("upgrade_draining", "1 while the process before this one answers what it has left.")
	mUpgradesBad  = counter("upgrades_failed_total", "New processes that did not become ready and were given up.")
	mHandWaited   = counter("upgrade_checkin_waits_total", "Times that a check-in waited because the journal changed hands.")
	mHandTurned   = counter("upgrade_checkins_refused_total", "Check-ins that waited in vain, or were too many to wait.")
	mLoaded       = gauge("config_loaded_timestamp_seconds", "When the file in force was read.")
)

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	v := buildVersion()
	mBuild.send(ch, 1, v.Version, v.Go)
	mReady.send(ch, truth(s.notReady() == ""))
	collectProxy(ch, s)
	collectClients(ch, s)
	live := s.proxy.Stats().Live
	collectLive(ch, &live)
	collectCache(ch, s)
	collectOrigins(ch, s)
	if takes := s.takes.Load(); takes != nil {
		collectAttendance(ch, takes)
	}
	collectProcess(ch, s)
	collectIdentities(ch, s)
	mReloads.send(ch, float64(s.reloads.good.Load()))
	mReloadsBad.send(ch, float64(s.reloads.bad.Load()))
	last := s.reloads.latest.Load()
	mReloadBad.send(ch, truth(last != nil && !last.OK))
	mLoaded.send(ch, float64(s.now.Load().loaded.UnixMilli())/1000)
}

func collectProcess(ch chan<- prometheus.Metric, s *server) {
	p := s.processReport()
	mGeneration.send(ch, float64(p.Generation))
	mBefore.send(ch, truth(p.Before != 0))
	mUpgradesBad.send(ch, float64(p.UpgradesFailed))
	mHandWaited.send(ch, float64(p.Waited))
	mHandTurned.send(ch, float64(p.TurnedAway))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectProxy(ch chan<- prometheus.Metric, s *server) {
	p := s.proxy.Stats()
	for outcome, n := range p.Outcomes {
		mRequests.send(ch, float64(n), outcome)
	}
	for class, n := range p.Statuses {
		if class > 0 {
			mStatuses.send(ch, float64(n), string(rune('0'+class))+"xx")
		}
	}
	buckets, count := map[float64]uint64{}, uint64(0)
	for i, b := range p.Latency {
		count += uint64(b.Count)
		if i < len(p.Latency)-1 { // the last has no upper bound
			buckets[b.Below.Seconds()] = count
		}
	}
	ch <- prometheus.MustNewConstHistogram(mLatency, count, p.LatencySum.Seconds(), buckets)
	mSent.send(ch, float64(p.SentBytes))
	mSaved.send(ch, float64(p.SavedBytes))
	for coding, n := range p.Coded {
		mCoded.send(ch, float64(n), coding)
	}
	mCodingsLeft.send(ch, float64(p.CodingsLeft))
	mCodingsDrop.send(ch, float64(p.CodingsDropped))
	mDecodeBusy.send(ch, float64(p.DecodeRefused))
	mFlights.send(ch, float64(p.Flights))
	mFlightsNow.send(ch, float64(p.FlightsNow))
	mFlightsBad.send(ch, float64(p.FlightsBroken))
	mResumed.send(ch, float64(p.FlightsResumed))
	mBlocks.send(ch, float64(p.Blocks))
	mBlocksAhead.send(ch, float64(p.BlocksAhead))
	mBlocksOther.send(ch, float64(p.BlocksChanged))
	mPanics.send(ch, float64(p.Panics))
	mHTTP2Conns.send(ch, float64(p.HTTP2.Connections))
	mHTTP2Streams.send(ch, float64(p.HTTP2.Streams))
	mHTTP2Back.send(ch, float64(p.HTTP2.TakenBack))
	for reason, n := range p.HTTP2.Refused {
		mHTTP2Refused.send(ch, float64(n), reason)
	}
	for reason, n := range p.Malformed {
		mMalformed.send(ch, float64(n), reason)
	}
	if s.certs != nil {
		collectTLS(ch, s, &p)
	}
}

func collectCache(ch chan<- prometheus.Metric, s *server) {
	c := s.cache.Stats()
	mLookups.send(ch, float64(c.Hits), "hit")
	mLookups.send(ch, float64(c.StaleHits), "stale")
	mLookups.send(ch, float64(c.Misses), "miss")
	mLookups.send(ch, float64(c.Bypasses), "bypass")
	mObjects.send(ch, float64(c.Objects))
	mBytes.send(ch, float64(c.Bytes()))
	mMaxBytes.send(ch, float64(c.MaxBytes))
	mPagedBytes.send(ch, float64(c.PagedBytes))
	mEvictions.send(ch, float64(c.Evictions))
	mPuts.send(ch, float64(c.Puts))
	mPutsRefused.send(ch, float64(c.PutsRefused))
	mLearnt.send(ch, float64(c.Learnt))
	mPinnedBytes.send(ch, float64(c.PinnedBytes))
	mPinsRefused.send(ch, float64(c.PinsRefused))
	if c.Disk != nil {
		collectDisk(ch, c.Disk)
	}
	mPurges.send(ch, float64(c.Purges))
}

func collectDisk(ch chan<- prometheus.Metric, d *cache.DiskStats) {
	mDiskObjects.send(ch, float64(d.Objects))
	mDiskBytes.send(ch, float64(d.Bytes))
	mDiskMax.send(ch, float64(d.MaxBytes))
	mDiskRebuilt.send(ch, d.Rebuilt)
	mDiskHits.send(ch, float64(d.Hits))
	mDiskStored.send(ch, float64(d.Stored))
	mDiskWritten.send(ch, float64(d.StoredBytes))
	mDiskEvicted.send(ch, float64(d.Evicted))
	mDiskRefused.send(ch, float64(d.Refused))
	mDiskQueued.send(ch, float64(d.Queued))
	for kind, n := range diskAlarms(d) {
		mDiskAlarms.send(ch, float64(n), kind)
	}
	mDiskPaused.send(ch, truth(d.Paused))
}

func collectOrigins(ch chan<- prometheus.Metric, s *server) {
	origins := s.now.Load().origins
	for _, name := range config.SortedKeys(origins) {
		u := origins[name]
		l := u.Limit.Stats()
		mAdmissionMax.send(ch, float64(l.Max), name)
		mAdmissionInUse.send(ch, float64(l.InUse), name)
		mAdmissionWaiting.send(ch, float64(l.Waiting), name)
		mAdmitted.send(ch, float64(l.Admitted), name)
		mAdmissionRefused.send(ch, float64(l.Refused), name, "full")
		mAdmissionRefused.send(ch, float64(l.TimedOut), name, "waited")
		p := u.Pool.Stats()
		mRetries.send(ch, float64(p.Retries), name)
		for _, sv := range p.Servers {
			mHealthy.send(ch, truth(sv.Healthy), name, sv.Address)
			mInFlight.send(ch, float64(sv.InFlight), name, sv.Address)
			mOriginRequests.send(ch, float64(sv.Requests), name, sv.Address)
			mFailures.send(ch, float64(sv.Failures), name, sv.Address)
			mOpened.send(ch, float64(sv.Opened), name, sv.Address)
		}
	}
}

func collectAttendance(ch chan<- prometheus.Metric, a *attendant) {
	st := a.recorder.Stats()
	mReceipts.send(ch, float64(st.Receipts))
	mAgain.send(ch, float64(st.Again))
	mRefused.send(ch, float64(st.Busy), "busy")
	mRefused.send(ch, float64(st.Down), "journal")
	mInvalid.send(ch, float64(st.Invalid))
	mBatches.send(ch, float64(st.Batches))
	mPending.send(ch, float64(st.Waiting))
	mOnRoll.send(ch, float64(st.OnRoll))
	h, alarms := a.journal.Health(), 0
	for _, d := range a.journal.Damage() {
		if d.Alarm() {
			alarms++
		}
	}
	mJournalOpen.send(ch, truth(h.Why == nil))
	room := a.room.see(&h, time.Now())
	if room.warning() != "" {
		h.Amber = append(h.Amber, room.warning())
	}
	mRoom.send(ch, room.Share)
	mRoomLeft.send(ch, room.Left.Seconds())
	mJournalAmber.send(ch, float64(len(h.Amber)))
	mDamage.send(ch, float64(alarms))
	mJournalBytes.send(ch, float64(h.Bytes))
	mJournalFree.send(ch, float64(h.Free))
	mSync.send(ch, h.Stats.SyncTotal.Seconds())
	mAppends.send(ch, float64(h.Stats.Appends))
	mAppendErrors.send(ch, float64(h.Stats.Failures))
	mStatements.send(ch, float64(a.store.Writes()))
	c := a.recorder.CollectStats()
	mCollected.send(ch, float64(c.Records))
	mRepeats.send(ch, float64(c.Repeats-c.Differing), "same")
	mRepeats.send(ch, float64(c.Differing), "other")
	mCollectBad.send(ch, float64(c.Refused), "busy")
	mCollectBad.send(ch, float64(c.Invalid), "invalid")
	mCollectRoll.send(ch, float64(c.OnRoll))
	mForgotten.send(ch, float64(c.Forgotten))
	for i, d := range a.deliveries() {
		to := "store"
		if i > 0 {
			to = "sink " + d.Name
			mParkedNow.send(ch, float64(a.sinks[i-1].target.ParkedNow()), to)
			mFromStore.send(ch, float64(d.FromPast), to)
			mLost.send(ch, float64(a.sinks[i-1].lost.Load()), to)
		}
		mLag.send(ch, float64(lagOf(&d, h.Next)), to)
		mAge.send(ch, ageOf(d.Oldest), to)
		mRows.send(ch, float64(d.Rows), to)
		mDuplicates.send(ch, float64(d.Duplicates), to)
		mParked.send(ch, float64(d.Parked), to)
		mWrites.send(ch, float64(d.Writes), to)
		mDelFailures.send(ch, float64(d.Failures), to)
		mStopped.send(ch, truth(d.Stopped), to)
	}
}
