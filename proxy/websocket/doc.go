// Package websocket says what a WebSocket handshake (RFC 6455 section 4) must
// be on both of its sides, and where frames begin and end (section 5).
//
// It promises that a handshake it takes is read alike by client, proxy and
// origin, and that Frames knows at every byte whether a frame may be put in:
// that is all a proxy has to know to end a connection politely. Payloads are
// not looked into, extensions and subprotocols are agreed on by the ends; that
// what a server chooses was offered is checked.
//
// It does not read from connections, know time, assemble messages, or answer
// pings: those are for the ends.
//
// Start with CheckRequest; Frames.Scan follows one direction.
package websocket
