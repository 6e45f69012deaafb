package http2

// Error codes (RFC 9113 section 7).
const (
	CodeNo            = 0x0
	CodeProtocol      = 0x1
	CodeInternal      = 0x2
	CodeFlowControl   = 0x3
	CodeStreamClosed  = 0x5
	CodeFrameSize     = 0x6
	CodeRefusedStream = 0x7
	CodeCancel        = 0x8
	CodeCompression   = 0x9
	CodeEnhanceCalm   = 0xb
)

// A Refusal says what a client did that is not served. It is an error.
type Refusal struct {
	Index  int    // among Refusals
	Code   uint32 // the error code that the client is told
	Reason string // for a counter: a few words with hyphens
	Detail string // for people
}

// Error implements error.
func (r *Refusal) Error() string { return r.Detail }

// What ends the connection.
var (
	refusePreface      = refusal(CodeProtocol, "preface", "the connection does not begin with the HTTP/2 preface and SETTINGS")
	refuseFrameSize    = refusal(CodeFrameSize, "frame-size", "a frame is larger than allowed, or of another size than its type has")
	refuseFrame        = refusal(CodeProtocol, "frame", "a frame is malformed, or not allowed where it came")
	refuseIdle         = refusal(CodeProtocol, "idle-stream", "a frame came for a stream that was not begun")
	refuseClosed       = refusal(CodeStreamClosed, "closed-stream", "a frame came for a stream that its sender had ended")
	refuseContinuation = refusal(CodeProtocol, "continuation", "a header block was interrupted, or continued without having begun")
	refuseCompression  = refusal(CodeCompression, "compression", "a header block cannot be decompressed")
	refuseWindow       = refusal(CodeFlowControl, "flow-control", "flow-control windows were overrun or grew too large")
	refuseSettings     = refusal(CodeProtocol, "settings", "a setting has a value that it cannot have")

	refuseBlockSize = refusal(CodeEnhanceCalm, "header-block-size", "a header block is far larger than any head that is served")
	refuseFlood     = refusal(CodeEnhanceCalm, "control-flood", "too many frames came that carry nothing")
	refuseResets    = refusal(CodeEnhanceCalm, "rapid-reset", "too many requests were begun and taken back, or malformed")
	refuseHeadTime  = refusal(CodeEnhanceCalm, "head-time", "a header block, or a frame, did not arrive in time")
	refuseHello     = refusal(CodeProtocol, "preface-time", "no request, nor the settings before it, arrived in time")
)

// What ends a stream alone.
var (
	refuseStreamFrame  = refusal(CodeProtocol, "stream-frame", "a frame is not allowed on a stream, or its priority names the stream itself")
	refuseHalfClosed   = refusal(CodeStreamClosed, "half-closed-stream", "a frame came for a stream behind its end")
	refuseStreamWindow = refusal(CodeFlowControl, "stream-flow-control", "a stream's flow-control window was overrun or grew too large")
	refuseStreams      = refusal(CodeRefusedStream, "streams", "more streams are open at once than allowed")
	refuseStall        = refusal(CodeCancel, "window-stall", "the client opened no window for an answer in time")

	refuseTrailer = refusal(CodeProtocol, "trailer-section", "the trailer section is malformed, too large, or not the end of its stream")
)

// What is wrong with a head, or with a content's length, is counted by
// Config.Malformed.
var (
	refuseMalformed = &Refusal{-1, CodeProtocol, "request", "the request is malformed"}
	refuseLength    = &Refusal{-1, CodeProtocol, "content", "the content is not as long as its content-length says"}
)

var all []*Refusal

// Refusals returns every refusal there is, each at its Index.
func Refusals() []*Refusal { return all }

func refusal(code uint32, reason, detail string) *Refusal {
	r := &Refusal{len(all), code, reason, detail}
	all = append(all, r)
	return r
}
