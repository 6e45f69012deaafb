package main

import "github.com/prometheus/client_golang/prometheus"

// This file shows what is known of clients' connections.

var (
	mConnections = gauge("proxy_connections", "Connections of clients that are open.")
	mParted      = counter("proxy_parted_total", "Connections turned away (connections, address, unanswered) or cut off (idle, slow-content, slow-reading), by reason.", "reason")
)

// clientStatus is about clients' connections.
type clientStatus struct {
	Connections int              `json:"connections"` // open now
	Parted      map[string]int64 `json:"parted"`      // turned away or cut off, by reason
}

func collectClients(ch chan<- prometheus.Metric, s *server) {
	p := s.proxy.Stats()
	mConnections.send(ch, float64(p.Connections))
	for reason, n := range p.Parted {
		mParted.send(ch, float64(n), reason)
	}
}
