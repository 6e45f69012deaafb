package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// DefaultLeeway is how far the clocks of issuer and firstbell may be apart.
	DefaultLeeway = time.Minute
	// candidatesMax bounds the keys tried for a token that does not name one.
	candidatesMax = 8
	// SecretBytesMin is the shortest secret that signs with SHA-256 (RFC 7518
	// section 3.2).
	SecretBytesMin = 32
)

// JWTConfig says which tokens are good. Exactly one of Keys and Secrets is set.
type JWTConfig struct {
	From       Source
	Keys       *KeySet
	Secrets    [][]byte // for HS256, each of at least SecretBytesMin bytes
	Algorithms []string // of a key set; empty: all of Algorithms
	Issuer     string   // empty: not asked for
	Audience   string   // empty: not asked for
	Leeway     time.Duration

	// Which claims say who it is: names, or JSON pointers. Student is required,
	// and so is School in every token as soon as it is set.
	Student, School, Class string
	Claims                 []string // further claims that are asked for

	Sessions int // remembered; 0: DefaultSessions
}

// JWT verifies signed JSON Web Tokens (RFC 7519).
type JWT struct {
	cfg    JWTConfig
	parser *jwt.Parser
	known  *known
	counts counts
}

// NewJWT returns a verifier, or what is wrong with its configuration.
func NewJWT(c JWTConfig) (*JWT, error) {
	switch {
	case (c.Keys == nil) == (len(c.Secrets) == 0):
		return nil, errors.New("making a token verifier: it needs a key set or secrets, and not both")
	case c.Student == "":
		return nil, errors.New("making a token verifier: no claim names the student")
	case len(c.Secrets) > candidatesMax:
		return nil, fmt.Errorf("making a token verifier: %d secrets are more than %d", len(c.Secrets), candidatesMax)
	}
	for i, s := range c.Secrets {
		if len(s) < SecretBytesMin {
			return nil, fmt.Errorf("making a token verifier: secret %d has fewer than %d bytes", i+1, SecretBytesMin)
		}
	}
	algorithms := c.Algorithms
	if c.Keys == nil {
		algorithms = []string{hs256}
	} else if len(algorithms) == 0 {
		algorithms = Algorithms
	}
	for _, a := range algorithms {
		if c.Keys != nil && !slices.Contains(Algorithms, a) {
			return nil, fmt.Errorf("making a token verifier: %q is no algorithm of a key set", a)
		}
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms), jwt.WithLeeway(c.Leeway), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithJSONNumber(),
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	return &JWT{cfg: c, parser: jwt.NewParser(options...), known: newKnown(c.Sessions)}, nil
}

// Credential implements Verifier.
func (v *JWT) Credential() Credential { return v.cfg.From.credential() }

// Session implements Verifier.
func (v *JWT) Session(dst []byte, r *Request) []byte { return v.cfg.From.session(dst, r.Fields) }

// Stats implements Verifier.
func (v *JWT) Stats() Stats {
	s := v.counts.stats("jwt", v.known)
	if v.cfg.Keys != nil {
		keys := v.cfg.Keys.Stats()
		s.Keys = &keys
	}
	return s
}

// Run implements Verifier: it looks after the key set and forgets sessions that
// have ended.
func (v *JWT) Run(ctx context.Context) error {
	if v.cfg.Keys == nil {
		return v.known.run(ctx)
	}
	swept := make(chan error, 1)
	go func() { swept <- v.known.run(ctx) }()
	err := v.cfg.Keys.Run(ctx)
	return errors.Join(err, <-swept)
}

// run sweeps until ctx ends.
func (k *known) run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			k.sweep(now)
		}
	}
}

// Verify implements Verifier.
func (v *JWT) Verify(ctx context.Context, r *Request) (*Person, error) {
	token, refusal := v.cfg.From.read(r.Fields)
	if refusal != nil {
		return nil, v.counts.refused(refusal)
	}
	d := v.known.digestOf(token)
	if e, ok := v.known.get(&d); ok && e.epoch == v.epoch() && time.Now().UnixMilli() < e.until {
		v.known.countWarm(&d)
		return e.person, nil
	}
	r.mayWait()
	epoch := v.epoch() // before the keys are used: a later one makes what follows old
	person, refusal := v.verify(ctx, string(token))
	if refusal != nil {
		return nil, v.counts.refused(refusal)
	}
	v.counts.verified.Add(1)
	v.known.put(d, entry{person: person, epoch: epoch, until: person.Expires.UnixMilli()})
	return person, nil
}

func (v *JWT) epoch() uint32 {
	if v.cfg.Keys == nil {
		return 0
	}
	return v.cfg.Keys.epoch()
}

// verify reads a token that is not known yet.
func (v *JWT) verify(ctx context.Context, token string) (*Person, *Refusal) {
	if err := checkToken(token); err != nil {
		return nil, invalid("the token " + err.Error())
	}
	claims := jwt.MapClaims{}
	parsed, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if err := checkDates(claims); err != nil {
			return nil, invalid("the token is refused: " + err.Error())
		}
		return v.keysFor(ctx, t)
	})
	if err != nil || !parsed.Valid {
		return nil, tokenRefusal(err)
	}
	return v.person(claims)
}

// checkToken looks at what the library does not: whether a token could be read
// in two ways, before anything is computed for it.
func checkToken(token string) error {
	parts := bytes.Split([]byte(token), []byte("."))
	if len(parts) != 3 {
		return errors.New("is no signed JSON Web Token")
	}
	for i, name := range [...]string{"header", "content"} {
		text, err := base64.RawURLEncoding.Strict().DecodeString(string(parts[i]))
		if err != nil {
			return errors.New("is not base64url")
		}
		if err := checkJSON(text); err != nil {
			return fmt.Errorf("has a %s that %w", name, err)
		}
		if i == 0 {
			if err := checkHeader(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkHeader refuses extensions that must be understood and are not (RFC 7515
// section 4.1.11), and a key id that is none.
func checkHeader(text []byte) error {
	var h map[string]any
	if err := json.Unmarshal(text, &h); err != nil {
		return errors.New("has a header that is not JSON")
	}
	if _, critical := h["crit"]; critical {
		return errors.New("asks for extensions that are not known here")
	}
	if kid, there := h["kid"]; there {
		if text, ok := kid.(string); !ok || unfit(text) != "" {
			return errors.New("names its key in no way that can be read")
		}
	}
	return nil
}

// keysFor returns the keys a token may be signed with. The library then takes
// only such as are of its algorithm's type, and its algorithm is one of those
// configured.
func (v *JWT) keysFor(ctx context.Context, t *jwt.Token) (any, error) {
	var set jwt.VerificationKeySet
	if v.cfg.Keys == nil {
		for _, s := range v.cfg.Secrets {
			set.Keys = append(set.Keys, s)
		}
		return set, nil
	}
	id, _ := t.Header["kid"].(string)
	found, refusal := v.cfg.Keys.find(ctx, t.Method.Alg(), id)
	if refusal != nil {
		return nil, refusal
	}
	for _, k := range found[:min(len(found), candidatesMax)] {
		set.Keys = append(set.Keys, k.public)
	}
	return set, nil
}

// tokenRefusal says in our words why the library refused a token. Its own may
// hold parts of it.
func tokenRefusal(err error) *Refusal {
	if own, ok := errors.AsType[*Refusal](err); ok {
		return own
	}
	for _, c := range [...]struct {
		is     error
		reason string
	}{
		{jwt.ErrTokenSignatureInvalid, "the token's signature or algorithm is not one of those taken here"},
		{jwt.ErrTokenRequiredClaimMissing, "the token lacks a claim that is asked for here"},
		{jwt.ErrTokenExpired, "the token has expired; log in again"},
		{jwt.ErrTokenNotValidYet, "the token is not valid yet"},
		{jwt.ErrTokenUsedBeforeIssued, "the token was issued in the future"},
		{jwt.ErrTokenInvalidAudience, "the token is for somebody else"},
		{jwt.ErrTokenInvalidIssuer, "the token is of another issuer"},
	} {
		if errors.Is(err, c.is) {
			return invalid(c.reason)
		}
	}
	return invalid("the token cannot be read")
}

// person is whom the claims name.
func (v *JWT) person(claims jwt.MapClaims) (*Person, *Refusal) {
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return nil, invalid("the token does not say when it ends")
	}
	p := &Person{Expires: expires.Add(v.cfg.Leeway)}
	for _, c := range [...]struct {
		name string
		to   *string
	}{{v.cfg.Student, &p.Student}, {v.cfg.School, &p.School}, {v.cfg.Class, &p.Class}} {
		if c.name == "" {
			continue
		}
		if *c.to, err = claimValue(claims, c.name); err != nil {
			return nil, invalid("the token is refused: " + err.Error())
		}
	}
	for _, name := range v.cfg.Claims {
		value, err := claimValue(claims, name)
		if err != nil {
			return nil, invalid("the token is refused: " + err.Error())
		}
		p.claims = append(p.claims, claim{name, value})
	}
	switch {
	case p.Student == "":
		return nil, invalid("the token names no student in its claim " + v.cfg.Student)
	case v.cfg.School != "" && p.School == "":
		return nil, invalid("the token names no school in its claim " + v.cfg.School)
	}
	return p, nil
}
