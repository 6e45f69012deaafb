// Package sink delivers elsewhere, each sink from a checkpoint of its own:
// check-ins in bulk by HTTP ([OpenHTTP]), as xAPI statements to a Learning
// Record Store ([OpenXAPI]), as Caliper events ([OpenCaliper]), or one request
// each at a bounded rate ([OpenReplay]); and what routes collect, by HTTP or
// replay.
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
//     not what the receiver must say (a login page, for instance). Nothing is
//     parked. It is tried again every five minutes, and at once when the
//     configuration is read again.
//   - So does parking too much: at least 20 records, and more than 1 % of the
//     last 10,000 to 20,000 delivered ([Config.ParkMax]). What would go beyond
//     it is not parked; it waits for somebody to look.
//   - A record is parked on disk, in order, before the position moves past it.
//     [Sink.Retry] and [Sink.Drop] deal with it beside the delivery, and leave a
//     line that says who asked, when and why.
//   - No credential of a client is ever here: only what a sink's own
//     configuration gives it. No error names the URL or the credential.
//
// # What is sent by HTTP
//
// A POST with a JSON array of receipts, each with its "key" in front, or with a
// line of JSON for each, perhaps coded by gzip or zstd, and an Idempotency-Key.
// An empty 2xx accepts all of them; otherwise the answer says what became of
// each, in one object or a line each:
//
//	{"results":[{"key":"…","result":"stored|duplicate|rejected","reason":"…"}]}
//
// What was collected has the members that attendance.Event.AppendCollectedJSON
// names.
//
// # What is sent to an LRS
//
// A POST of an array to URL/statements. The statement's id is the receipt's; the
// actor is an account of the school's home page. The answer must list the ids.
// An LRS takes an array whole or refuses it whole, so 400 and 409 are halved.
// 409 to one statement: it is fetched and compared by the rules of the
// specification. The same: a duplicate. The same check-in with another arrival:
// the old statement is voided and another follows, in one array, both under ids
// that are made of the content. Anything else under our id: parked.
//
// # What is sent to a Caliper endpoint
//
// Envelopes of Caliper 1.2 with Events of the General Profile, as there is no
// profile for attendance: a Person Started a Session that stands for date and
// period, with the class as group. The id is urn:uuid: and the receipt. A better
// arrival comes again under the same id.
//
// # What a paced replay does
//
// It writes one request for each record from a template, no faster than said,
// with an Idempotency-Key each. What became of each is noted as it happens
// (progress.go), so that a crash repeats what was under way and no more. One
// that fails for the moment comes again with the next try and holds up no other
// of its bulk, unless as many fail in a row as may be under way.
//
// # What it does not promise
//
// A sink that is down holds nobody up: receipts, the store and other sinks go
// on, and no segment of the journal is kept for it; what it missed comes from
// the store. What is collected has no copy there: for that, a sink does hold
// the journal, until its disk is about to be full.
//
// # Where to start reading
//
// [Sink.Deliver], then inBulk.carry for halving and verdict.go for what an
// answer means; replayRound for the pace.
package sink
