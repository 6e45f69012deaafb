// Package sink delivers check-ins in bulk to an HTTP endpoint of the origin.
//
// # What is sent
//
// A POST with a JSON array of receipts, each with its "key" in front, and an
// Idempotency-Key. An empty 2xx accepts all of them; otherwise the answer says
// what became of each:
//
//	{"results":[{"key":"…","result":"stored|duplicate|rejected","reason":"…"}]}
//
// # What it promises
//
//   - Delivery is at least once: before a bulk is sent its bounds are on disk,
//     so that after a crash the same bulk comes with the same Idempotency-Key.
//     The receiver makes it once, by that or by each record's key.
//   - A record whose key was delivered before comes again when a better arrival
//     took its place: an earlier one, or a verified one.
//   - 400, 409, 413 and 422 to a bulk: it is halved, each half with an
//     Idempotency-Key of its own, until the records at fault stand alone. They
//     are parked with the reason, as are those that an answer names rejected.
//     All others are delivered.
//   - No answer, 408, 425, 429 and 5xx: the same bulk again, not before
//     Retry-After.
//   - Any other answer stops the sink: 401, 403, 404, a redirect, a 2xx that is
//     neither empty nor a verdict on every record (a login page, for instance).
//     Nothing is parked. It is tried again every five minutes, and at once when
//     the configuration is read again.
//   - So does parking too much: at least 20 records, and more than 1 % of the
//     last 10,000 to 20,000 delivered ([HTTPConfig.ParkMax]). The bulk that
//     goes beyond it is not parked; it waits for somebody to look.
//   - A record is parked on disk, in order, before the position moves past it.
//
// # What it does not promise
//
// A sink that is down holds nobody up: receipts, the store and other sinks go
// on. The journal keeps the records as long as its retention says.
//
// # Where to start reading
//
// [HTTP.Deliver], then verdict.go for what an answer means. [ReadParked] lists
// what was parked.
package sink
