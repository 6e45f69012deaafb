// Package ports finds ports of the loopback for servers that cannot be handed a
// listener: other programs, and what is to be started again where it was.
//
// It promises a port on which nobody listens, over TCP or UDP, and that it gives
// out once. It lies below those that systems take for outgoing connections and
// for whoever asks for any port, so that nobody is given it by chance before the
// server has it, or while that is dead.
//
// It does not promise that nobody takes it on purpose: two processes that look
// for one at the same moment find the same one out of [span] if they are very
// unlucky.
//
// Start reading at [Free].
package ports
