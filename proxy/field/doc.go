// Package field holds HTTP field sections (RFC 9110 section 5): a read side
// that a request's head satisfies without being imported, lines as they were
// received, and an owned list that may cross goroutines and be kept; and what
// all who read such sections share: tokens, lengths, and why one is refused.
//
// It promises that a List never changes after it was built, that names are
// compared without regard to case, and that the order of lines is kept. It
// does not judge values: what a Cache-Control means is for package cache.
//
// Start reading at Fields, then List and Lines.
package field
