// Package datagrams is a UDP socket of QUIC that changes hands between two
// processes while its connections go on.
//
// A connection of TCP is a descriptor of its own; all connections of QUIC share
// one socket, and a packet finds its own by the connection ID that it begins
// with. So each process begins the IDs that it gives away with a mark of its
// own, one of the two reads the socket, and passes on what bears the mark of the
// other. What a client sends before it knows such an ID (its first packets,
// under an ID that it made up) is passed on where the other process has seen
// that ID before.
//
// It promises:
//
//   - Before the socket is handed over, and once the other process is gone, a
//     Socket costs a look at the first bytes of a packet.
//   - One process at a time reads: HandOver returns when this one does not any
//     more. What arrives meanwhile waits in the kernel.
//   - A packet passed on arrives as it came: client's address, ECN bits, and the
//     address that it was sent to.
//   - Nothing waits for the other process: what finds no room on the way there
//     is lost and counted, as in any full socket. QUIC sends it again.
//   - When the process that took over is gone, the one before reads again.
//
// It does not know keys, or look further into packets than RFC 8999 lets
// anybody: version and connection IDs. How the two processes find each other is
// package handover's.
//
// Start reading at Socket, then Socket.HandOver (the old process's side) and
// Socket.TakeOver (the new one's).
package datagrams
