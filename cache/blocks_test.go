package cache

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"firstbell/proxy/field"
)

// Parts of one content come at the same time, and each brings the head anew.
func TestABlockStaysWhileItsHeadIsReplaced(t *testing.T) {
	c, end := onDisk(t, t.TempDir())
	defer end()
	const blocks = 20
	head := func(after time.Duration) *Incomplete {
		at := nine.Add(after)
		r := request("http school.example /film")
		c.Begin(r)
		res := field.List{{Name: "Cache-Control", Value: "max-age=3600"}, {Name: "ETag", Value: `"v1"`}, {Name: "Date", Value: at.UTC().Format(httpDate)}}
		return c.OfBlocks(c.NewStored(r, Judge(r, &Policy{}, 200, res, at, at), 200, res, nil, at, at), blocks*BlockBytes)
	}
	of := head(0)
	if of == nil {
		t.Fatal("no head was made")
	}
	var others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if head(time.Duration(i)*2*reloadFloor) == nil {
				t.Error("a head was not made")
				return
			}
		}
	})
	content := make([]byte, BlockBytes)
	for n := range int64(blocks) {
		if !of.PutBlock(n, content) {
			t.Errorf("block %d was not stored", n)
		}
		if i, how := c.FindIncomplete(request("http school.example /film"), &Policy{}, nine); i == nil {
			t.Errorf("with block %d there, the head was not found: %s", n, fmt.Sprint(how.Outcome))
		}
	}
	close(stop)
	others.Wait()
	if all, _ := of.HasAll(0, blocks*BlockBytes); !all {
		t.Error("a block is gone")
	}
}
