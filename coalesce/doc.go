// Package coalesce lets many callers share one piece of work: a Group brings
// everyone who asks for the same key onto one Flight, and a Body is what a
// flight delivers while it is still under way: one writer, many readers, each
// at its own pace, all reading the same bytes without a copy.
//
// It promises that a flight lands exactly once and wakes everyone, that a
// reader never sees a body end cleanly unless its writer said so, that leaving
// costs nobody else anything, and that a body too large to be kept holds no
// more than its window in memory.
//
// It does not know HTTP: what a key is, who may share what and what an error
// means are the caller's. It does not start goroutines and keeps no time but
// the patience a writer has with its slowest reader.
//
// Start reading at Group.Join, then Body.Fill and Reader.Next.
package coalesce
