// Package bell is nine o'clock: a generated roster of schools, classes and
// students, and a morning in which they all arrive at once.
//
// It promises:
//
//   - the same seed gives the same roster and the same plan of the morning: who
//     comes when, who presses twice, who is late, who never comes;
//   - students are played over real TCP connections by a client of its own,
//     bounded in number, that believes nothing: lesson content is compared by
//     length and CRC-32C with what it has to be, a personal page and a receipt
//     have to be the student's own, a short body is a failure, another's
//     session cookie is a leak;
//   - a request that is refused or cut off is tried again as a browser's script
//     would: same attempt, cookies kept, Retry-After honoured, growing pauses, an
//     end to its patience;
//   - every receipt is kept, so that somebody can ask for it afterwards;
//   - time spent waiting for one of the bell's own connections counts as time
//     the student waited, so a slow server cannot hide behind a slow client.
//
// It does not promise that a morning can be repeated to the microsecond: the
// plan is the same, the network is real. It asks for the identity content
// coding and does not run scripts or keep a browser cache.
//
// Start reading at Play, then Player.run (what a student does next) and judge
// (what is accepted as an answer).
package bell
