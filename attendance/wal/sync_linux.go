package wal

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syncer has a thread of the kernel's do fdatasync and waits for it as for a
// connection (io_submit(2), IOCB_CMD_FDSYNC, since Linux 4.18). A goroutine
// that blocks in fdatasync itself takes a scheduler thread out of service each
// time, and makes the runtime's watchdog look after it every 20 us.
type syncer struct {
	ring   uintptr  // of io_setup(2), for one operation at a time
	bell   *os.File // an eventfd that counts what is done; read without blocking a thread
	bellFD int      // of bell: its Fd method would have reads block
	cb     iocb
	list   *iocb // what io_submit takes
	count  [8]byte
	done   ioEvent
}

// iocb and ioEvent are struct iocb and struct io_event of linux/aio_abi.h, with
// the members that are used.
type iocb struct {
	_               [16]byte // aio_data, aio_key, aio_rw_flags
	opcode          uint16
	_               int16 // aio_reqprio
	fd              uint32
	_               [32]byte // aio_buf, aio_nbytes, aio_offset, aio_reserved2
	flags, signalFD uint32
}

type ioEvent struct {
	_   [16]byte // data, obj
	res int64
	_   int64 // res2
}

const (
	iocbFdsync   = 3 // IOCB_CMD_FDSYNC
	iocbSignalFD = 1 // IOCB_FLAG_RESFD
)

// syncers are those not at work: at most one for the segment in use and one for
// the next being made. There are none where the kernel, a container's filter or
// /proc/sys/fs/aio-max-nr allows none.
var syncers struct {
	mu   sync.Mutex // guards what follows
	made int
	idle []*syncer
}

const syncersMax = 2

func takeSyncer() *syncer {
	syncers.mu.Lock()
	defer syncers.mu.Unlock()
	if n := len(syncers.idle); n > 0 {
		s := syncers.idle[n-1]
		syncers.idle = syncers.idle[:n-1]
		return s
	}
	if syncers.made == syncersMax {
		return nil
	}
	syncers.made++ // also when there is none to be had: it is not asked for each time
	return newSyncer()
}

func putSyncer(s *syncer) {
	syncers.mu.Lock()
	defer syncers.mu.Unlock()
	syncers.idle = append(syncers.idle, s)
}

func newSyncer() *syncer {
	s := new(syncer)
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&s.ring)), 0); errno != 0 {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Syscall(unix.SYS_IO_DESTROY, s.ring, 0, 0)
		return nil
	}
	s.bellFD, s.bell = fd, os.NewFile(uintptr(fd), "eventfd")
	return s
}

// syncAside is fdatasync by an idle syncer. It reports false when nothing was
// begun, because there is none or the file has no such operation.
func syncAside(fd uintptr) (begun bool, err error) {
	s := takeSyncer()
	if s == nil {
		return false, nil
	}
	if begun, err = s.sync(fd); s.bell != nil {
		putSyncer(s)
	}
	return begun, err
}

// sync returns when fd's data is on disk, or with the error that fdatasync
// would have returned.
func (s *syncer) sync(fd uintptr) (begun bool, err error) {
	s.cb = iocb{opcode: iocbFdsync, fd: uint32(fd), flags: iocbSignalFD, signalFD: uint32(s.bellFD)}
	s.list = &s.cb
	if _, _, errno := unix.RawSyscall(unix.SYS_IO_SUBMIT, s.ring, 1, uintptr(unsafe.Pointer(&s.list))); errno != 0 {
		return false, nil
	}
	if _, err := s.bell.Read(s.count[:]); err != nil {
		return true, s.lost(err)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, s.ring, 0, 1, uintptr(unsafe.Pointer(&s.done)), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return true, s.lost(errno)
		case n == 0:
			return true, s.lost(unix.EIO) // rung, and nothing there
		case s.done.res < 0:
			return true, unix.Errno(-s.done.res)
		default:
			return true, nil
		}
	}
}

// lost gives up a syncer of which it is not known what it is doing.
func (s *syncer) lost(err error) error {
	_ = s.bell.Close() // it is in nobody's way
	s.bell = nil
	return err
}
