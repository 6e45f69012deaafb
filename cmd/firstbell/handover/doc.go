// Package handover is how one process takes over from another without anybody
// noticing: listening sockets by name, the two ends of the talk between the old
// process and the new, and what systemd wants to hear. It knows nothing of HTTP
// nor of what is handed over beside sockets.
//
// It promises:
//
//   - A socket is never closed and opened again on the way: who connects waits
//     in the kernel's queue at worst. TCP and Unix listeners and UDP sockets go
//     alike, each under the name and the address that the file gives it; a new
//     process takes those whose address its own file has, opens the others, and
//     the rest ends with the old process.
//   - Beside the sockets there is a relay, on which the two may pass on packets
//     of a socket of UDP (package datagrams).
//   - Sockets that systemd hands over (LISTEN_FDS) are taken by their name
//     (FileDescriptorName=), or by the address that they listen on.
//   - What a process got so is not passed on by accident: the descriptors close
//     on exec, and the environment is cleared of what was said about them.
//   - A call to the other process ends with its context, and with an error when
//     the other process ends.
//
// It does not promise that two versions of firstbell understand each other's
// calls: a field that one of them does not know is left out, a call that it
// does not know is an error, and then the old process goes on.
//
// Start reading at Sockets.Listen, then Start (the old process's side) and
// Inherit (the new one's).
package handover
