// Package certs holds the certificates that clients are shown: by the name in
// their handshake, from files that may change at any time.
//
// It promises: a name that no route serves is refused (unrecognized_name), and a
// name that one serves gets a certificate for it if there is one: the exact name
// goes before a wildcard, and the first certificate stands in for names that no
// certificate has. A file that changed is in use within seconds, without a
// restart; one that is damaged, does not match its key or has expired changes
// nothing, and is shown until it is mended. Session tickets are sealed with keys
// that change, and that several nodes can share by a file; early data is not
// taken.
//
// With ACME it gets certificates for the names it is told to want, and for no
// others, whoever asks for what: a few at a time, within what a CA bears, kept on
// disk, renewed with a third of their time left, each at a moment of its own. A
// CA that is down, slow or talks nonsense, and a disk that is full, cost nobody a
// handshake: what is there is shown, and the CA is asked more and more seldom. A
// name that a CA cannot verify holds up no other. Of an answer of a CA no more
// than 1 MiB is read, and 64 KiB of fields.
//
// It does not look into the revocation of certificates, ask clients for theirs,
// or order certificates for wildcards, for which a CA would want to see changes
// in DNS.
//
// Start reading at Store.choose; files.go reads and watches files, tickets.go
// keeps the keys of sessions, queue.go decides when a CA is asked for what, and
// acme.go asks it, within the bounds of bound.go.
package certs
