package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// cookieMagic begins every signed cookie, and what is signed.
const cookieMagic = "firstbell1."

// cookieKeysMax bounds the keys tried for a cookie.
const cookieKeysMax = 8

// CookieConfig says which cookies are good.
type CookieConfig struct {
	Name     string   // of the cookie
	Keys     [][]byte // the newest first, each of at least SecretBytesMin bytes
	School   bool     // a cookie must name its school
	Sessions int      // remembered; 0: DefaultSessions
}

// Cookie verifies cookies that a platform signed; doc.go draws them.
type Cookie struct {
	cfg    CookieConfig
	from   Source
	known  *known
	counts counts
}

// NewCookie returns a verifier, or what is wrong with its configuration.
func NewCookie(c CookieConfig) (*Cookie, error) {
	from, err := ParseSource("cookie:" + c.Name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("making a cookie verifier: %w", err)
	case len(c.Keys) == 0 || len(c.Keys) > cookieKeysMax:
		return nil, fmt.Errorf("making a cookie verifier: it takes 1 to %d keys, not %d", cookieKeysMax, len(c.Keys))
	}
	for i, k := range c.Keys {
		if len(k) < SecretBytesMin {
			return nil, fmt.Errorf("making a cookie verifier: key %d has fewer than %d bytes", i+1, SecretBytesMin)
		}
	}
	return &Cookie{cfg: c, from: from, known: newKnown(c.Sessions)}, nil
}

// Credential implements Verifier.
func (v *Cookie) Credential() Credential { return v.from.credential() }

// Session implements Verifier.
func (v *Cookie) Session(dst []byte, r *Request) []byte { return v.from.session(dst, r.Fields) }

// Stats implements Verifier.
func (v *Cookie) Stats() Stats { return v.counts.stats("cookie", v.known) }

// Run implements Verifier: it forgets sessions that have ended.
func (v *Cookie) Run(ctx context.Context) error { return v.known.run(ctx) }

// Verify implements Verifier.
func (v *Cookie) Verify(_ context.Context, r *Request) (*Person, error) {
	value, refusal := v.from.read(r.Fields)
	if refusal != nil {
		return nil, v.counts.refused(refusal)
	}
	d := v.known.digestOf(value)
	now := time.Now()
	if e, ok := v.known.get(&d); ok && now.UnixMilli() < e.until {
		v.known.countWarm(&d)
		return e.person, nil
	}
	p, err := OpenCookie(value, v.cfg.Keys)
	switch {
	case err != nil:
		return nil, v.counts.refused(invalid("the session cookie " + err.Error()))
	case !now.Before(p.Expires):
		return nil, v.counts.refused(invalid("the session has ended; log in again"))
	case v.cfg.School && p.School == "":
		return nil, v.counts.refused(invalid("the session cookie names no school"))
	}
	v.counts.verified.Add(1)
	v.known.put(d, entry{person: p, until: p.Expires.UnixMilli()})
	return p, nil
}

// SignCookie returns the cookie for a person, signed with the key.
func SignCookie(p *Person, key []byte) (string, error) {
	form := url.Values{"student": {p.Student}, "exp": {strconv.FormatInt(p.Expires.Unix(), 10)}}
	if p.Student == "" {
		return "", errors.New("signing a cookie: it needs a student")
	}
	for _, f := range [...]struct{ name, value string }{{"student", p.Student}, {"school", p.School}, {"class", p.Class}} {
		if reason := unfit(f.value); reason != "" {
			return "", fmt.Errorf("signing a cookie: the %s %s", f.name, reason)
		}
		if f.value != "" {
			form.Set(f.name, f.value)
		}
	}
	if len(key) < SecretBytesMin {
		return "", fmt.Errorf("signing a cookie: the key has fewer than %d bytes", SecretBytesMin)
	}
	text := cookieMagic + base64.RawURLEncoding.EncodeToString([]byte(form.Encode()))
	return text + "." + base64.RawURLEncoding.EncodeToString(macOf([]byte(text), key)), nil
}

func macOf(text, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// OpenCookie returns whom a cookie names whose MAC is by one of the keys. That
// it has not ended yet is for the caller to see.
func OpenCookie(value []byte, keys [][]byte) (*Person, error) {
	dot := bytes.LastIndexByte(value, '.')
	if !bytes.HasPrefix(value, []byte(cookieMagic)) || dot < len(cookieMagic) {
		return nil, errors.New("is not one that was signed for firstbell")
	}
	strict := base64.RawURLEncoding.Strict()
	mac, err := strict.DecodeString(string(value[dot+1:]))
	if err != nil {
		return nil, errors.New("is not base64url")
	}
	good := false
	for _, k := range keys {
		good = hmac.Equal(mac, macOf(value[:dot], k)) || good
	}
	if !good {
		return nil, errors.New("is signed with no key of ours")
	}
	form, err := strict.DecodeString(string(value[len(cookieMagic):dot]))
	if err != nil {
		return nil, errors.New("is not base64url")
	}
	return personOf(string(form))
}

// personOf reads the form within a cookie.
func personOf(form string) (*Person, error) {
	values, err := url.ParseQuery(form)
	if err != nil {
		return nil, errors.New("does not hold a form")
	}
	p, ends := &Person{}, ""
	for name, all := range values {
		to := map[string]*string{"student": &p.Student, "school": &p.School, "class": &p.Class, "exp": &ends}[name]
		switch {
		case to == nil:
			return nil, errors.New("holds a name that has no meaning")
		case len(all) != 1:
			return nil, fmt.Errorf("names its %s twice", name)
		}
		if reason := unfit(all[0]); reason != "" {
			return nil, fmt.Errorf("has a %s that %s", name, reason)
		}
		*to = strings.Clone(all[0])
	}
	seconds, err := strconv.ParseInt(ends, 10, 64)
	switch {
	case p.Student == "":
		return nil, errors.New("names no student")
	case err != nil || seconds < 0 || seconds > dateMax:
		return nil, errors.New("does not say when it ends")
	}
	p.Expires = time.Unix(seconds, 0)
	p.claims = []claim{{"student", p.Student}, {"school", p.School}, {"class", p.Class}}
	return p, nil
}
