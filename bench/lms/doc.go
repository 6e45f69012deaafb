// Package lms is a learning platform with a weak heart: the origin that falls
// at nine o'clock.
//
// It promises:
//
//   - answers as platforms give them: a lesson list that changes often, lesson
//     pages and media that do not, all with validators, a session cookie on
//     everything, a slow personal page that nobody else may see, a check-in that
//     is one write per student, a bulk endpoint that takes many at once and takes
//     each key once;
//   - the heart serves a few requests at a time and gets slower as more wait;
//     when it is full it refuses, and when it stays full it falls: what is inside
//     is cut off, what comes is refused or reset, and when it is up again it is
//     weak for a while;
//   - every request that arrives is counted by kind and by moment, with the most
//     that were ever inside at once. Nothing is counted twice or left out, a
//     request that is refused or cut off included;
//   - bounded memory: content is made once from the seed, and the register holds
//     one small row per key.
//
// It does not promise to be fast, to keep anything past its own life, or to
// resemble one product. Its service times are sleeps: the machine it stands for
// is another one, and the processor belongs to what is measured.
//
// Start reading at New, then heart.beat and the handlers in pages.go.
package lms
