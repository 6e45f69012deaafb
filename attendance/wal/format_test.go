package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// resum gives a header its checksum anew.
func resum(p []byte) {
	binary.LittleEndian.PutUint32(p[headerBytes-4:], crc32.Checksum(p[:headerBytes-4], castagnoli))
}
