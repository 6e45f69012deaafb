package attendance

import (
	"iter"

	"firstbell/attendance/wal"
)

// Record is one record of the journal as it is read back.
type Record struct {
	Seq  uint64
	Data []byte // valid until the next record
}

// Journal reads records from a position on, in order, at least those that were
// on disk before the call; missing ones are skipped, for good. It may be called
// again for what came since, by one goroutine at a time.
type Journal func(from uint64) iter.Seq2[Record, error]

// ReadJournal makes a Journal of a reader, which from then on belongs to it.
func ReadJournal(r *wal.Reader) Journal {
	return func(from uint64) iter.Seq2[Record, error] {
		return func(yield func(Record, error) bool) {
			for rec, err := range r.Records(from) {
				if !yield(Record{Seq: rec.Seq, Data: rec.Data}, err) {
					return
				}
			}
		}
	}
}
