package attendance

import (
	"testing"

	"pgregory.net/rapid"
)

// A table is what a map would be, whatever is put and dropped, and however keys
// collide.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table
		model := map[ReceiptID]entry{}
		keys := rapid.IntRange(1, 400).Draw(t, "keys")
		crowded := rapid.Bool().Draw(t, "crowded") // few places and tags
		for range rapid.IntRange(1, 1500).Draw(t, "steps") {
			n := rapid.IntRange(0, keys-1).Draw(t, "key")
			id := ReceiptID{0: byte(n * 37), 1: byte(n >> 3), 4: byte(n), 9: byte(n), 10: byte(n >> 8)}
			if crowded {
				id[0], id[1], id[4] = byte(n%5), 0, byte(n%2)
			}
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				tab.drop(&id)
				delete(model, id)
			} else {
				e := entry{arrival: uint32(rapid.IntRange(0, 1<<30).Draw(t, "entry"))}
				tab.put(&id, e)
				model[id] = e
			}
			got, ok := tab.get(&id)
			if want, has := model[id]; ok != has || got != want {
				t.Fatalf("key %d: got %v %v, want %v %v", n, got, ok, want, has)
			}
		}
		if tab.keys != len(model) {
			t.Fatalf("got %d keys, want %d", tab.keys, len(model))
		}
		for id, want := range model {
			if got, ok := tab.get(&id); !ok || got != want {
				t.Fatalf("key %v: got %v %v, want %v", id, got, ok, want)
			}
		}
	})
}
