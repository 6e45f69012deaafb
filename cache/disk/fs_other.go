//go:build !(linux || darwin || freebsd)

package disk

// defaultFS is nil: Open says that this system has none.
func defaultFS() FS { return nil }
