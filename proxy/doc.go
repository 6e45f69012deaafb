// Package proxy is the life of a request: from the bytes a client sent to the
// answer it gets, with the cache, the flights, admission, the origins and
// attendance in between.
//
// It promises that every request has one reading: route, cache key and what
// the origin is asked use the same bytes. A response is shared between clients
// only after its header section proved that it may be. A message cut off by
// either side is never passed on as complete; one that many share is resumed
// where its origin cut it, if that can be done without doubt. A check-in never waits behind
// anything but the disk. Every wait, queue and body has a bound, and the bound
// has an answer.
//
// It does not decide what may be stored (package cache), what a check-in means
// (package attendance) or how an origin is spoken to (package proxy/origin).
// A slow client holds no place at an origin: content.go takes requests in,
// backlog.go what is not taken of answers. What it may do otherwise, limits.go
// and pace.go say. Idle connections in plain are parked in lot_linux.go;
// busy ones share the goroutines of lane_linux.go, until one has to wait. An
// exchange over plain TCP whose client takes its time, with its content or its
// answer, waits in siding_linux.go, without a goroutine; siding.go goes on with it.
//
// Connections of HTTP/1 stay in door.go, conn.go, connout.go, http1.go, copy.go, upload.go, the lot, the lanes and the siding, those
// of HTTP/2 in h2.go over package http2, those
// of HTTP/3 in h3door.go, h3conn.go, h3.go and h3upload.go over package http3;
// everything else sees an exchange.
//
// Of a malformed request nothing goes further than packages http1, http2 and
// http3: each protocol has one reader of requests, and it is strict. It answers stored responses with ready
// bytes: a fresh 1 KiB page costs what a bare fasthttp server needs for it.
//
// What is passed on by itself makes no garbage: passage.go keeps all that it
// lives in for the next, and its fields are views of what the client sent.
//
// Stored pages are sent in the coding that suits the client. A coding is made
// once, in the background, for what was asked for twice; the first to ask get
// what is there.
//
// Parts of what is not stored whole are put together from blocks (media.go),
// each fetched by a flight of its own (blockfetch.go), where there is a disk.
//
// Start reading at Proxy.serve, then Proxy.forwardCollapsed and Proxy.fetch;
// touchdown.content begins what resumes, coder.do makes codings.
package proxy
