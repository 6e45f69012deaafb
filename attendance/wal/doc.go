// Package wal is the journal of attendance: numbered records in segment files,
// each on disk when Append returns.
package wal
