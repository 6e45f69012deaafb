package attendance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Many students press several times while the journal fails at random, losing
// or keeping what it was given: whoever has a receipt is on disk under it, and
// nobody is on disk who did not press.
func TestReceiptsHoldWhateverTheJournalDoes(t *testing.T) {
	const students, presses = 300, 6
	secret := mustSecret(t)
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			dice, disk := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)) // the second is the writer's
			l := &fakeLog{takes: 3 * time.Millisecond}
			l.onAppend = func() {
				switch disk.IntN(3) {
				case 0:
					l.set(errDisk, disk.IntN(2) == 0)
				default:
					l.set(nil, false)
				}
			}
			r := mustNew(t, Config{Log: l, Secret: secret, MaxBatch: 40})
			stop := run(t, r)
			var mu sync.Mutex
			receipts := make(map[string]Receipt)
			var pressing sync.WaitGroup
			for n := range students * presses {
				wait := time.Duration(dice.IntN(100)) * time.Millisecond
				verified := dice.IntN(10) == 0
				pressing.Go(func() {
					time.Sleep(wait)
					p := press(fmt.Sprint(n % students))
					p.Verified = verified
					got, err := r.Take(context.Background(), p)
					if err != nil {
						if !errors.Is(err, ErrDown) && !errors.Is(err, ErrBusy) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					defer mu.Unlock()
					if old, ok := receipts[p.Student]; !ok || (got.Verified && !old.Verified) {
						receipts[p.Student] = got
					} else if got.ID != old.ID {
						t.Errorf("student %s has receipts %s and %s", p.Student, old.ID, got.ID)
					}
				})
			}
			pressing.Wait()
			stop()
			onDisk := make(map[ReceiptID]Row)
			for _, row := range l.rows(t) {
				onDisk[row.ID] = row
			}
			if len(receipts) < students/2 || len(onDisk) > students {
				t.Errorf("seed %d: got %d receipts and %d rows of %d students", seed, len(receipts), len(onDisk), students)
			}
			for _, receipt := range receipts {
				row, ok := onDisk[receipt.ID]
				if !ok || row.Student != receipt.Student || (receipt.Verified && !row.Verified) ||
					(receipt.Verified == row.Verified && row.FirstArrival.After(receipt.FirstArrival)) {
					t.Errorf("seed %d: receipt %+v, on disk %+v", seed, receipt, row)
				}
			}
			if s := r.Stats(); s.Waiting != 0 || s.OnRoll > students || s.OnRoll < len(receipts) {
				t.Errorf("seed %d: got %+v afterwards with %d receipts", seed, s, len(receipts))
			}
		})
	}
}
