// Package attendance takes check-ins, makes them durable in batches and gives
// each a receipt; and it carries what the journal holds to stores and sinks.
//
// # What it promises
//
//   - A receipt means on disk. [Recorder.Take] returns a receipt only after
//     the journal has synced the batch that holds the check-in. Everything
//     else is an error that says that nothing was promised.
//   - The same check-in gets the same receipt: from any device, as often as it
//     is pressed, while its batch is still being written, and after a restart.
//     A check-in is known by its key: school, date, period and student, and
//     the class where the route says so (see [Press.ClassIsKey]).
//   - The first arrival counts. A press that had to be refused carries a token
//     ([Refused.FirstSeen]); the retry counts from the moment of the refused
//     press. While the process lives, a press of the same key is remembered
//     for as long without the token. Nobody is made late by us.
//   - Every batch is sealed with one signature, in its own append: whoever holds
//     a receipt and its proof ([Prove]) can have it checked with the public key
//     alone ([CheckReceipt]), also when firstbell and its disks are gone. The
//     proof is made from the journal, for as long as that holds the batch.
//   - What is recorded is never rewritten. A wrong timetable is mended by
//     corrections ([Recorder.Judge]) that take the place of what they correct and
//     say who made them, why, and what stood there before.
//   - What a day's rows come to ([Sum]) does not depend on where they are read
//     from nor in which order.
//   - A refused press leaves nothing behind but that memory.
//   - One process can follow another without a gap: a recorder made beside the one
//     that writes (Config.Until) needs only the rest when the journal is free
//     ([Recorder.CatchUp]), and says meanwhile when a press came ([Recorder.TurnAway]).
//   - Everything is bounded: a batch, the waiters, what is remembered, the
//     length of a field. A full one is [ErrBusy] in a [*Refused], with a
//     moment to come back at that differs from student to student.
//   - What is collected ([Recorder.Collect]: progress beacons, quiz answers) has
//     the same durability in the same journal, and a receipt by its school,
//     path and key. It never takes the room of check-ins. A key is remembered
//     for the grace at least; later, or after more than a million others, it is
//     recorded again under the same receipt. Of two bodies under one key the
//     first counts, and that there was another is told.
//   - Delivery reads the journal from the target's own checkpoint, in bulk, in
//     order, for ever: a target that is down is tried again with a growing,
//     bounded pause. What the journal no longer holds it reads from the store,
//     where it is given one. A target that takes each key once therefore holds each
//     check-in once.
//
// # What it does not promise
//
//   - Without an attempt ([Press.Attempt]) a retry after the period's end is a
//     new press and counts for what is on then.
//   - How often a key was pressed is evidence, not a promise: counts are
//     written with a later batch, and the last of them are lost with kill -9.
//   - So is that a check-in named somebody else than its credential
//     ([Recorder.Contradicted]): counts, told when they have doubled.
//   - An attempt is remembered for 15 minutes after its first arrival, less
//     when more presses than the bound arrive in that time. After a restart
//     only those attempts are known that led to a record.
//   - A seal is no clock: that a check-in was at nine is this machine's word.
//     Counts of presses and what is collected are not sealed.
//   - When a record of a batch is lost to damage, the others of it cannot be
//     proved any more, though they count.
//   - A record that a crash left on disk without its seal counts, and has no
//     proof. It could be sealed when it is found; but then whoever can write to
//     the file while firstbell is down would get a seal for what it puts there.
//     A seal says that the process itself took the check-in.
//   - It does not know who is on the roster: an unknown class or student is
//     recorded. Package roster is applied when the register is written.
//
// # Dates and periods
//
// Date and period are those of the server's clock in the school's zone at first
// arrival. A request may name them, but only what was or will be on within the
// grace (15 minutes) around that moment; anything else is a [*FieldError]. A
// period that the timetable does not have counts as outside, as does every
// moment without a period: one row per student and day.
//
// # Where to start reading
//
// [Recorder.Take] is the life of a check-in; [Recorder.Run] is the one writer.
// event.go draws the bytes of the journal, key.go those of a key, digest.go what
// is summed; proof.go is how a receipt is proved and checked. [Fold] is how
// events become rows, for store, export and tests alike. [Delivery] is the way
// out.
package attendance
