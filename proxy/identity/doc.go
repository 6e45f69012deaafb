// Package identity finds out who is asking: from a signed JSON Web Token
// ([JWT]), from a cookie that the learning platform signed ([Cookie]), or by
// asking the platform itself ([ForwardAuth]).
//
// # What it promises
//
//   - A [Person] comes only from a credential that was verified: its signature
//     by a key that the configuration names, with the one algorithm that fits
//     that key, within its times, for the issuer and audience asked for; or an
//     answer 2xx of the login service to that very credential.
//   - A credential that could be read in two ways is refused: two of them in
//     one request, a name twice in its JSON, bytes that are not UTF-8, claims of
//     a wrong type, extensions it calls critical.
//   - What was verified is remembered by digest until it ends, or until a key
//     is withdrawn: a second look costs no allocation, no lock that all share,
//     and no question to anybody. Credentials themselves are not kept, and
//     stand in no error, log line or figure.
//   - The issuer or the login service being down takes nothing from those who
//     are known: the last good key set is used for as long as it takes, across
//     restarts too ([KeySet]), and the answers of a login service for as long as
//     the file says ([ForwardAuth]).
//   - A key set that makes no sense (a page, wrong or weak keys, one id twice,
//     a private key) is refused as a whole, loudly, and the one before it stays.
//   - Everything is bounded: the length of a credential, the size of a key set,
//     the number of keys and of sessions remembered, each wait and each retry.
//
// # What it does not promise
//
//   - A token revoked before its end is known as such only when its key goes;
//     a session that ended at the login service is known for as long as the
//     positive answer may be used.
//   - Sessions that a login service vouched for are forgotten by a restart.
//   - It logs nobody in, issues nothing, encrypts nothing, and does not tell the
//     origin who was found.
//
// # The signed cookie
//
// Any platform makes one in a few lines. Its value is
//
//	firstbell1.PAYLOAD.MAC
//
// PAYLOAD is base64url without padding (RFC 4648 section 5) of a form
// (application/x-www-form-urlencoded, UTF-8) with the names student (required),
// school, class and exp (required: the last moment as seconds since 1970), each
// at most once and no others. MAC is base64url without padding of HMAC-SHA256
// over all that stands before the last dot, with the key's text as it stands on
// its line of the key file. In Python:
//
//	b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=")
//	form = urllib.parse.urlencode({"student": "s1", "school": "hangang", "exp": int(time.time()) + 3600})
//	text = b"firstbell1." + b64(form.encode())
//	cookie = text + b"." + b64(hmac.digest(key, text, "sha256"))
//
// The first key of the file is the newest; a cookie of any of them is taken, so
// keys are changed by putting a new one in front and removing the old one when
// its last cookie has ended.
//
// # Where to start reading
//
// [JWT.Verify], then keys.go (what is a good key set) and keyset.go (how it is
// kept); known.go is what is remembered.
package identity
