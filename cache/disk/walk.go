package disk

import (
	"fmt"
	"os"
	"path/filepath"
)

// Walk calls f for every record in a directory until f returns false, with no
// order. It takes no lock and changes nothing; a process may use the directory
// meanwhile. The record is valid during the call; its content is not verified.
// bad counts the files that are no records.
func Walk(dir string, f func(*Record) bool) (bad int, err error) {
	system := defaultFS()
	if _, err := os.Stat(filepath.Join(dir, "r")); err != nil {
		return 0, err
	}
	for n := range shards {
		sh := &shard{number: n}
		for name, err := range system.Names(sh.dir(dir)) {
			if err != nil {
				return bad, err
			}
			k, ok := parseName(name)
			if !ok {
				bad++
				continue
			}
			file, err := system.Open(sh.path(dir, &k), false)
			if err != nil {
				continue // it has just been removed
			}
			r := &Record{k: k, file: file}
			if r.front, err = readFront(file); err == nil {
				err = r.front.isNamed(&k)
			}
			r.Meta, r.Seq, r.Length = r.front.meta, r.front.seq, r.front.length
			goOn := true
			if err != nil {
				bad++
			} else {
				goOn = f(r)
			}
			if err := file.Close(); err != nil {
				return bad, fmt.Errorf("closing %s: %w", name, err)
			}
			if !goOn {
				return bad, nil
			}
		}
	}
	return bad, nil
}
