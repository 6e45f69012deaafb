package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// loginOrigin is a learning platform that issues tokens and answers questions
// about its sessions.
type loginOrigin struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	down atomic.Bool
}

func newLoginOrigin(t *testing.T) *loginOrigin {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &loginOrigin{key: key}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.down.Load() {
			panic(http.ErrAbortHandler)
		}
		switch r.URL.Path {
		case "/jwks.json":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k1", Use: "sig"}}})
		case "/auth/me":
			if c, err := r.Cookie("moodle"); err != nil || !strings.HasPrefix(c.Value, "session-of-") {
				w.WriteHeader(http.StatusUnauthorized)
			} else {
				w.Header().Set("X-Student", strings.Split(strings.TrimPrefix(c.Value, "session-of-"), ".")[0])
			}
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "this is %s\n", r.URL.Path)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

// token is one of the student's.
func (o *loginOrigin) token(t *testing.T, student string, ends time.Duration) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: o.key}, (&jose.SignerOptions{}).WithHeader("kid", "k1"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(map[string]any{"sub": student, "school": "hangang", "exp": time.Now().Add(ends).Unix()}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// identityFile is an installation where tokens, cookies and the login service
// vouch, each for a route of its own.
func identityFile(t *testing.T, o *loginOrigin) (file, cookieKey, sinkToken string) {
	t.Helper()
	cookieKey, sinkToken = "planted-cookie-key-0123456789abcdef", "planted-sink-token-0123456789abcdef"
	file = writeFile(t, o.URL,
		`identity: none, check_in: {student: "json:/student_id", class: "json:/class_id"}`,
		fmt.Sprintf(`identity: {jwt: {jwks: "%s/jwks.json", school: school}}, check_in: {student: "json:/student_id", class: "json:/class_id"}}
  - {hosts: ["*"], path: /by-cookie, identity: {cookie: {key_file: cookie.keys}}, check_in: {student: "claim:student"}, reply: {status: 201, body: '{"no":"${receipt}"}'}}
  - {hosts: ["*"], path: /by-session, identity: {forward_auth: {origin: lms, path: /auth/me, pass: ["cookie:moodle"]}}, check_in: {student: "claim:student"}}
  - {hosts: ["*"], path: /members/*, origin: lms, cache: {}, identity: {login: /login, jwt: {jwks: "%s/jwks.json", school: school}}`, o.URL, o.URL),
		`url: "`+o.URL+`/bulk"`, `url: "`+o.URL+`/bulk", token_file: sink.token`)
	rewrite(t, filepath.Join(filepath.Dir(file), "cookie.keys"), cookieKey+"\n")
	rewrite(t, filepath.Join(filepath.Dir(file), "sink.token"), sinkToken+"\n")
	return file, cookieKey, sinkToken
}

func TestWhoAsksIsFoundOutFromEndToEndAndNoSecretIsShown(t *testing.T) {
	o := newLoginOrigin(t)
	file, cookieKey, sinkToken := identityFile(t, o)
	stdout, stderr, err := firstbell(t, "check", "-config", file)
	if err != nil || !strings.Contains(stdout, "for those whom jwt vouches for") || !strings.Contains(stdout, "identity means: ") {
		t.Fatalf("check: %v\n%s%s", err, stdout, stderr)
	}
	key := filepath.Join(filepath.Dir(file), "cookie.keys")
	cookie, _, err := firstbell(t, "cookie", "-key-file", key, "-student", "s2", "-for", "1h")
	if err != nil {
		t.Fatal(err)
	}
	cookie = strings.TrimSpace(cookie)
	if shown, _, err := firstbell(t, "cookie", "-key-file", key, "-show", cookie); err != nil || !strings.Contains(shown, "student s2") {
		t.Errorf("cookie -show: got %v and %s", err, shown)
	}

	r := serve(t, file, "-access-log=true")
	good, ended := o.token(t, "s1", time.Hour), o.token(t, "s1", -time.Hour)
	const host, session = "hangang.school.example", "session-of-s3.planted-session"
	answers := ""
	say := func(want int, method, path, body string, fields ...string) {
		t.Helper()
		status, answer := ask(t, method, "http://"+r.web+path, body, append([]string{"Host", host, "Sec-Fetch-Site", "same-origin"}, fields...)...)
		if status != want {
			t.Errorf("%s %s: got %d %s, want %d", method, path, status, answer, want)
		}
		answers += answer
	}
	say(200, "POST", "/check-in", `{"student_id":"s1"}`, "Authorization", "Bearer "+good)
	say(200, "POST", "/check-in", `{}`, "Authorization", "Bearer "+good)
	say(403, "POST", "/check-in", `{"student_id":"s9"}`, "Authorization", "Bearer "+good)
	say(401, "POST", "/check-in", `{}`, "Authorization", "Bearer "+ended)
	say(401, "POST", "/check-in", `{}`, "Authorization", "Bearer "+good+"planted-tail")
	say(401, "POST", "/check-in", `{}`, "Authorization", "Bearer planted-garbage", "Accept", "text/html")
	say(403, "POST", "/check-in", `{}`, "Authorization", "Bearer "+good, "Host", "other.school.example")
	say(201, "POST", "/by-cookie", ``, "Cookie", "firstbell_session="+cookie)
	say(401, "POST", "/by-cookie", ``, "Cookie", "firstbell_session="+cookie+"x")
	say(200, "POST", "/by-session", ``, "Cookie", "moodle="+session)
	say(401, "POST", "/by-session", ``, "Cookie", "moodle=planted-stranger")
	say(200, "GET", "/members/a", ``, "Authorization", "Bearer "+good)
	say(401, "GET", "/members/a", ``)
	say(401, "GET", "/members/a?access_token=planted-in-the-query", ``)

	// The issuer and the login service die; sessions that are known go on.
	o.down.Store(true)
	o.CloseClientConnections()
	say(200, "POST", "/by-session", ``, "Cookie", "moodle="+session)
	say(503, "POST", "/by-session", ``, "Cookie", "moodle=session-of-s4.planted-session")
	say(200, "POST", "/check-in", `{"student_id":"s5"}`, "Authorization", "Bearer "+o.token(t, "s5", time.Hour))

	_, status := ask(t, "GET", "http://"+r.ops+"/status", "")
	_, metrics := ask(t, "GET", "http://"+r.ops+"/metrics", "")
	_, page := ask(t, "GET", "http://"+r.ops+"/", "")
	for _, want := range []string{`firstbell_identity_contradictions_total{school="hangang"} 1`, `found="verified",identity="jwt `, `firstbell_identity_keys{identity="jwt `, `firstbell_identity_asked_total{identity="forward_auth lms/auth/me"} 3`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	var st statusReport
	if err := json.Unmarshal([]byte(status), &st); err != nil || st.Contradictions["hangang"] != 1 || len(st.Identities) != 3 {
		t.Errorf("/status: %v, got %+v and %+v", err, st.Contradictions, st.Identities)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	inspected, _, err := firstbell(t, "inspect", "-config", file, "-records")
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(inspected, `contradiction`) || !strings.Contains(inspected, `credential_of="s1" student="s9"	1 times`) {
		t.Errorf("inspect -records lacks the contradiction:\n%s", inspected)
	}
	contradictions, _, err := firstbell(t, "attendance", "contradictions", "-config", file, "-school", "hangang", "-json")
	if err != nil || !strings.Contains(contradictions, `"student_id":"s1","differs_in":"student","claimed":"s9","times":1,`) || strings.Count(contradictions, "\n") != 1 {
		t.Errorf("attendance contradictions: got %v and %s, want one of s1 for s9", err, contradictions)
	}
	inspected += contradictions
	if listed, _, err := firstbell(t, "attendance", "contradictions", "-config", file); err != nil || !strings.Contains(listed, "s9") {
		t.Errorf("attendance contradictions: got %v and %s", err, listed)
	}
	if listed, _, err := firstbell(t, "attendance", "contradictions", "-config", file, "-date", "2020-04-06"); err != nil || listed != "nothing\n" {
		t.Errorf("attendance contradictions of another day: got %v and %s, want nothing", err, listed)
	}
	stdout, _, _ = firstbell(t, "check", "-config", file)
	everything := answers + status + metrics + page + r.log.String() + inspected + stdout
	for name, secret := range map[string]string{
		"the token's signature": good[strings.LastIndex(good, ".")+1:], "the token's content": strings.Split(good, ".")[1],
		"an ended token": ended[strings.LastIndex(ended, ".")+1:], "the cookie": cookie[len(cookie)-20:], "the session": "planted-session",
		"the cookie key": cookieKey, "the sink's token": sinkToken, "garbage": "planted-",
	} {
		if at := strings.Index(everything, secret); at >= 0 {
			t.Errorf("%s is shown: …%s…", name, everything[max(0, at-100):min(len(everything), at+100)])
		}
	}
	if !strings.Contains(r.log.String(), "speaks for somebody else") || !strings.Contains(r.log.String(), "outcome=unidentified") {
		t.Errorf("the log lacks the evidence:\n%s", r.log)
	}

	// Another start, the issuer still dead: the keys were kept.
	r = serve(t, file)
	say(200, "POST", "/check-in", `{"student_id":"s6"}`, "Authorization", "Bearer "+o.token(t, "s6", time.Hour))
	say(503, "POST", "/by-session", ``, "Cookie", "moodle="+session)
}

func TestAReloadKeepsTheSessionsThatAreKnown(t *testing.T) {
	o := newLoginOrigin(t)
	file, _, _ := identityFile(t, o)
	r := serve(t, file)
	press := func() int {
		status, _ := ask(t, "POST", "http://"+r.web+"/by-session", "", "Host", "hangang.school.example", "Sec-Fetch-Site", "same-origin", "Cookie", "moodle=session-of-s3")
		return status
	}
	if got := press(); got != 200 {
		t.Fatalf("a session: got %d", got)
	}
	o.down.Store(true)
	edit(t, file, "{max: 8}", "{max: 9}")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status != 200 {
		t.Fatalf("reload: %d %s", status, answer)
	}
	if got := press(); got != 200 {
		t.Errorf("after a reload, the login service down: got %d, want 200", got)
	}
	rewrite(t, filepath.Join(filepath.Dir(file), "cookie.keys"), "short\n")
	if status, answer := ask(t, "POST", "http://"+r.ops+"/reload", ""); status == 200 || strings.Contains(answer, `"short"`) {
		t.Errorf("a reload with a key that is too short: got %d %s", status, answer)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
}
