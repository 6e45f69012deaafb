//go:build !race

package identity

import (
	"context"
	"testing"
	"time"
)

// The race detector makes pools forget, so allocations are counted without it.

func TestASecondLookAllocatesNothing(t *testing.T) {
	i := newIssuer(t)
	text, err := SignCookie(&Person{Student: "s1", Expires: time.Now().Add(time.Hour)}, newKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		v Verifier
		r *Request
	}{
		"jwt":          {newJWT(t, JWTConfig{Keys: fileKeys(t, i.set("rsa"))}), line(bearer(i.token("rsa", claimsOf("s1"))))},
		"cookie":       {newCookie(t, CookieConfig{}), line(cookies("session=" + text))},
		"forward_auth": {newForward(t, &loginService{}, nil), line(cookies("session=s1"))},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := c.v.Verify(context.Background(), c.r); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: a second look allocates %v times, want 0", name, n)
		}
	}
}
