// Package seal proves that a record was written: one signature for a whole
// batch of records, and for each of them a short path that leads to it. It
// knows nothing of check-ins, files or time.
//
// # What it promises
//
//   - [Verify] needs the record, its place, the path, the signature and the
//     public key, and nothing else. It says yes only to what the holder of the
//     private key sealed, at that place, in a batch of that size.
//   - A path for one record tells nothing about the others but hashes.
//   - Sealing costs one SHA-256 over each record, one more for each inner node,
//     and one signature: half a microsecond a record and 40 a batch (BenchmarkSeal).
//     It does not allocate once a [Tree] has grown.
//
// # What it does not promise
//
// A seal says what was written and by whom, not when: the moment in a record is
// the writer's word. Nor does it say that nothing was left out: the journal's
// numbers and the digest of a day do that.
//
// # The bytes
//
// They stay for ever; who checks receipts elsewhere needs no more than this.
// The tree is that of RFC 9162 section 2.1 (the same as RFC 6962's), over
// SHA-256:
//
//	leaf  = SHA-256(00 | record)
//	node  = SHA-256(01 | left | right)
//	root  = of n leaves: node(root of the first k, root of the others), where k
//	        is the largest power of two below n; of one leaf: the leaf
//
// A path is the inclusion proof of RFC 9162 section 2.1.3. The signature is
// Ed25519 (RFC 8032) over 58 bytes:
//
//	 0 18  "firstbell batch 1\n"
//	18  8  number of leaves, little-endian
//	26 32  root
//
// The id of a key is the first 8 bytes of SHA-256 over the 32 bytes of its
// public key, as 16 hexadecimal digits in text.
//
// # Where to start reading
//
// tree.go, then key.go.
package seal
