// Package leaks looks for pages that a caching proxy gives to the wrong person.
//
// It plays both ends: many clients, who are many users on shared connections,
// and an origin that personalises, errs and lies. Every byte of the origin's
// contents says whom, for what and in which version it was made, so that any
// mixture shows, even of parts of contents; every header section has a number
// under which the origin remembers the request that it answered. Each answer is
// judged by what the origin permitted, which is written down by hand beside
// what it says (kinds.go): the oracle reads no Cache-Control.
//
// It promises:
//
//   - a Run is random by its seed: who asks what, when and how, and how the
//     origin answers. Which of those meet is up to the machine.
//   - a Finding names the rule that was broken and shows what happened to the
//     resource before;
//   - it needs nothing of the proxy but two addresses, and uses the time of the
//     package time alone: in a bubble of fake time it waits for nothing;
//   - it is bounded: in connections, in contents, and in time for each answer.
//
// The rules are those of RFC 9111 for shared caches and of RFC 5861, and four
// that are stricter: Set-Cookie is never shared; what came for a request with
// credentials and states no lifetime is not shared; no-cache lets nobody with
// credentials have another's content by validating it; and content in a GET
// tells it from others.
//
// It does not measure speed, and does not ask whether a proxy caches well: one
// that stores nothing leaks nothing. Report.Shared says how much was shared.
//
// Start reading at Run, then kinds, world.permits and asker.judge.
package leaks
