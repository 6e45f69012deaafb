package http2

import "encoding/binary"

// A frame (RFC 9113 section 4.1):
//
//	length (3) | type (1) | flags (1) | stream (4, the first bit is not used) | payload
const frameHeadBytes = 9

// frameMax is the largest payload that is taken, and sent: what every peer
// takes (section 6.5.2).
const frameMax = 16 << 10

type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

const (
	flagEnd       = 0x1 // END_STREAM, or ACK
	flagEndBlock  = 0x4
	flagPadded    = 0x8
	flagPriority  = 0x20
	settingTable  = 0x1
	settingPush   = 0x2
	settingMany   = 0x3
	settingWindow = 0x4
	settingFrame  = 0x5
	settingList   = 0x6
	settingExtend = 0x8 // RFC 8441
	settingNoTree = 0x9 // RFC 9218: priorities of RFC 7540 are not heeded
)

// preface is what a client's connection begins with (section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	windowFirst = 64<<10 - 1 // what windows are before anybody changes them
	windowMax   = 1<<31 - 1
	streamIDMax = 1<<31 - 1
)

type frameHead struct {
	length int
	kind   frameType
	flags  uint8
	stream uint32
}

func readFrameHead(b []byte) frameHead {
	_ = b[frameHeadBytes-1]
	return frameHead{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & streamIDMax,
	}
}

func appendFrameHead(b []byte, length int, kind frameType, flags uint8, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendBlock appends a header block as a HEADERS frame and as many
// CONTINUATION frames as it takes.
func appendBlock(b, block []byte, end bool, stream uint32) []byte {
	kind, flags := frameHeaders, uint8(0)
	if end {
		flags = flagEnd
	}
	for {
		n := min(len(block), frameMax)
		if n == len(block) {
			flags |= flagEndBlock
		}
		b = append(appendFrameHead(b, n, kind, flags, stream), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		kind, flags = frameContinuation, 0
	}
}

func appendReset(b []byte, stream, code uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHead(b, 4, frameReset, 0, stream), code)
}

func appendWindow(b []byte, stream uint32, n int64) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHead(b, 4, frameWindow, 0, stream), uint32(n))
}

func appendGoAway(b []byte, last, code uint32, detail string) []byte {
	b = appendFrameHead(b, 8+len(detail), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return append(binary.BigEndian.AppendUint32(b, code), detail...)
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// unpad returns what a frame's payload holds without its padding.
func unpad(h frameHead, p []byte) ([]byte, bool) {
	if h.flags&flagPadded == 0 {
		return p, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}
