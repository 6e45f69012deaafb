package main

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy/spool"
)

// This file shows what is known of clients' connections, and of the contents
// that wait on account of slow ones.

var (
	mConnections  = gauge("proxy_connections", "Connections of clients that are open.")
	mInLanes      = gauge("proxy_connections_in_lanes", "Of those, busy ones that share a goroutine.")
	mResting      = gauge("proxy_connections_parked", "Of those, idle ones that take no more than a descriptor.")
	mWaiting      = gauge("proxy_connections_waiting", "Of those, ones whose slow client sends or takes a content, and is waited for without a goroutine.")
	mParted       = counter("proxy_parted_total", "Connections turned away (connections, address, unanswered) or cut off (idle, slow-content, slow-reading), or not let in (denied), by reason.", "reason")
	mSpools       = gauge("spool_contents", "Requests' contents on their way in, and answers that a slow client takes.")
	mSpoolMemory  = gauge("spool_memory_bytes", "Memory that they take.")
	mSpoolDisk    = gauge("spool_disk_bytes", "Disk that they take.")
	mSpoolFiles   = counter("spool_files_total", "Files that were begun for them.")
	mSpoolWritten = counter("spool_written_bytes_total", "What was written to these.")
	mSpoolFull    = counter("spool_full_total", "Times that a content found no room.")
	mSpoolFailed  = counter("spool_failures_total", "Times that the disk refused.")
)

// clientStatus is about clients' connections.
type clientStatus struct {
	Connections int              `json:"connections"` // open now
	InLanes     int              `json:"in_lanes"`    // of those, busy ones that share a goroutine
	Parked      int              `json:"parked"`      // of those, idle ones that take no more than a descriptor
	Waiting     int              `json:"waiting"`     // of those, ones whose slow client is waited for without a goroutine
	Parted      map[string]int64 `json:"parted"`      // turned away or cut off, by reason
	limitStatus
	Spool spoolStatus `json:"spool"`
}

// spoolStatus is about contents that wait on account of slow clients.
type spoolStatus struct {
	Contents int64  `json:"contents"`
	Memory   int64  `json:"memory_bytes"`
	Disk     int64  `json:"disk_bytes"`
	Files    int64  `json:"files"`
	Full     int64  `json:"full"` // times that there was no room
	Failures int64  `json:"failures"`
	Why      string `json:"why,omitempty"` // the last error of the disk
}

func (s *server) clientReport() clientStatus {
	p, sp := s.proxy.Stats(), s.spools.Stats()
	return clientStatus{
		Connections: p.Connections, InLanes: p.InLanes, Parked: p.Parked, Waiting: p.Waiting, Parted: p.Parted, limitStatus: limitReport(&p.Clients),
		Spool: spoolStatus{
			Contents: sp.Open, Memory: sp.Memory, Disk: sp.Disk, Files: sp.Files,
			Full: sp.Full, Failures: sp.Failures, Why: sp.Why,
		},
	}
}

func printClients(w io.Writer, c *clientStatus) {
	fmt.Fprintf(w, "clients   %d connections, %d of them in lanes, %d parked, %d slow", c.Connections, c.InLanes, c.Parked, c.Waiting)
	for _, reason := range config.SortedKeys(c.Parted) {
		if n := c.Parted[reason]; n > 0 {
			fmt.Fprintf(w, ", %s %d", reason, n)
		}
	}
	c.limitStatus.print(w)
	fmt.Fprintln(w)
	if s := &c.Spool; s.Contents+s.Full+s.Failures > 0 {
		fmt.Fprintf(w, "spool     %d contents wait, %d bytes of memory, %d of disk, %d times no room", s.Contents, s.Memory, s.Disk, s.Full)
		if s.Failures > 0 {
			fmt.Fprintf(w, "; THE DISK REFUSED %d TIMES: %s", s.Failures, s.Why)
		}
		fmt.Fprintln(w)
	}
}

func collectClients(ch chan<- prometheus.Metric, s *server) {
	c, stats := s.clientReport(), s.proxy.Stats()
	collectLimits(ch, &stats.Clients)
	mConnections.send(ch, float64(c.Connections))
	mInLanes.send(ch, float64(c.InLanes))
	mResting.send(ch, float64(c.Parked))
	mWaiting.send(ch, float64(c.Waiting))
	for reason, n := range c.Parted {
		mParted.send(ch, float64(n), reason)
	}
	mSpools.send(ch, float64(c.Spool.Contents))
	mSpoolMemory.send(ch, float64(c.Spool.Memory))
	mSpoolDisk.send(ch, float64(c.Spool.Disk))
	mSpoolFiles.send(ch, float64(c.Spool.Files))
	mSpoolWritten.send(ch, float64(s.spools.Stats().Written))
	mSpoolFull.send(ch, float64(c.Spool.Full))
	mSpoolFailed.send(ch, float64(c.Spool.Failures))
}

// spoolOf is what the spool is made of: it leaves the journal what is the
// journal's.
func spoolOf(c *config.Config) spool.Options {
	o := spool.Options{Dir: c.Spool.Path, Bytes: int64(c.Spool.Size)}
	if a := c.Attendance; a != nil {
		o.KeepFree = int64(*a.Disk.Reserve) + cacheGivesWay
	}
	return o
}
