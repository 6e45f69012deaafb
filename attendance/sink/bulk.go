package sink

import (
	"context"
	"fmt"
	"net/http"

	"firstbell/attendance"
)

// form is a way to send many records in one request.
type form interface {
	// post sends records, never none, in one request and judges its answer. idem
	// is the same whenever the same records come again.
	post(ctx context.Context, records []record, idem string) (verdict, error)
	setHeader(http.Header)
	close()
}

// inBulk is the carrier that sends many records at once, in halves where they
// are refused as a whole.
type inBulk struct{ form }

func (c inBulk) carry(ctx context.Context, s *Sink, p *passage, records []record) error {
	if len(records) == 0 {
		return nil
	}
	part := [2]uint64{records[0].Seq, records[len(records)-1].Seq}
	if p.settled[part] {
		return nil
	}
	p.done.Writes++
	v, err := c.post(ctx, records, s.idempotencyKey(&records[0], &records[len(records)-1]))
	if err != nil {
		return err
	}
	switch {
	case v.refused != "" && len(records) > 1:
		half := len(records) / 2
		if err := c.carry(ctx, s, p, records[:half]); err != nil {
			return err
		}
		return c.carry(ctx, s, p, records[half:])
	case v.refused != "":
		p.parked = append(p.parked, newParked(&records[0], v.refused))
	default:
		for i := range records {
			if reason, bad := v.rejected[records[i].key]; bad {
				p.parked = append(p.parked, newParked(&records[i], reason))
			}
		}
		p.done.Rows += len(records) - len(v.rejected) - v.duplicates
		p.done.Duplicates += v.duplicates
	}
	p.settled[part] = true
	if n := len(p.parked); n > 0 {
		return s.tooMany(p, 0, p.parked[n-1].Key, p.parked[n-1].Reason)
	}
	return nil
}

// parkAll parks what the passage has refused.
func (s *Sink) parkAll(p *passage) error {
	if err := s.park(p.parked); err != nil {
		return fmt.Errorf("parking %d records: %w", len(p.parked), err)
	}
	p.parkedNow += len(p.parked)
	p.parked = nil
	return nil
}

var _ attendance.Target = (*Sink)(nil)
