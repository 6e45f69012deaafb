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
// It does not look into the revocation of certificates, ask clients for theirs,
// or speak to anybody by itself.
//
// Start reading at Store.choose; files.go reads and watches files, tickets.go
// keeps the keys of sessions.
package certs
