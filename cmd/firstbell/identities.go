package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"firstbell/cmd/firstbell/config"
	"firstbell/proxy/identity"
)

// identities are the ways to find out who asks. Routes that say the same share
// one, with its keys and all that it remembers.
type identities struct {
	ofRoute []*verifier          // by the index of the route; nil where nobody is asked
	all     map[string]*verifier // by what they were made from
}

// verifier is one of them in use.
type verifier struct {
	identity.Verifier
	name string
	stop func() // ends its work
}

// openIdentities makes the verifiers of c. Those of old that are the same are
// kept, with the sessions that they know. fresh are those that need Run. Nothing
// of old changes.
func openIdentities(c *config.Config, log *slog.Logger, origins map[string]*upstream, old *identities) (all *identities, fresh []*verifier, err error) {
	all = &identities{ofRoute: make([]*verifier, len(c.Routes)), all: map[string]*verifier{}}
	claims := claimsOfRoutes(c)
	names := map[string]int{}
	var problems []error
	for n, r := range c.Routes {
		i := &r.Identity
		if i.Kind() == "" {
			continue
		}
		spec := specOf(i)
		key := spec + strings.Join(claims[spec], "\n")
		if v := all.all[key]; v != nil {
			all.ofRoute[n] = v
			continue
		}
		v := old.again(key, i, origins)
		if v == nil {
			made, err := verifierOf(c, i, claims[spec], log, origins)
			if err != nil {
				problems = append(problems, fmt.Errorf("routes[%d].identity: %w", n, err))
				continue
			}
			v = &verifier{Verifier: made}
			fresh = append(fresh, v)
		}
		v.name = nameOf(i)
		if names[v.name]++; names[v.name] > 1 {
			v.name = fmt.Sprintf("%s (%d)", v.name, names[v.name])
		}
		all.all[key], all.ofRoute[n] = v, v
	}
	return all, fresh, errors.Join(problems...)
}

// specOf tells identities apart that need verifiers of their own; secrets stand
// in it only as a digest.
func specOf(i *config.Identity) string {
	text, err := json.Marshal(struct {
		JWT         *config.JWT
		Cookie      *config.SignedCookie
		ForwardAuth *config.ForwardAuth
		Sessions    int
	}{i.JWT, i.Cookie, i.ForwardAuth, i.Sessions})
	if err != nil {
		panic(err) // strings, numbers and lists of them
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// claimsOfRoutes are the claims that routes with the same identity ask for.
func claimsOfRoutes(c *config.Config) map[string][]string {
	claims := map[string][]string{}
	for _, r := range c.Routes {
		if r.Identity.JWT == nil || r.CheckIn == nil {
			continue
		}
		spec := specOf(&r.Identity)
		for _, text := range []string{r.CheckIn.Student, r.CheckIn.Class, r.CheckIn.Period, r.CheckIn.Date, r.CheckIn.Attempt} {
			if name, ok := strings.CutPrefix(text, "claim:"); ok && !slices.Contains(claims[spec], name) {
				claims[spec] = append(claims[spec], name)
			}
		}
		slices.Sort(claims[spec])
	}
	return claims
}

// again is the verifier of old that was made from the same, on the connections
// of today.
func (old *identities) again(key string, i *config.Identity, origins map[string]*upstream) *verifier {
	if old == nil || old.all[key] == nil {
		return nil
	}
	v := *old.all[key]
	if f, ok := v.Verifier.(*identity.ForwardAuth); ok {
		u := origins[i.ForwardAuth.Origin]
		v.Verifier = f.With(u.Pool, u.Limit)
	}
	return &v
}

// retire ends those that are not in force any more.
func (old *identities) retire(is *identities) {
	for key, v := range old.all {
		if is.all[key] == nil {
			v.stop()
		}
	}
}

// nameOf is what people know an identity by. It holds no secret.
func nameOf(i *config.Identity) string {
	switch {
	case i.JWT != nil && i.JWT.JWKS != "":
		where := i.JWT.JWKS
		if u, err := url.Parse(where); err == nil && u.Host != "" {
			where = u.Scheme + "://" + u.Host + u.Path
		}
		return "jwt " + where
	case i.JWT != nil:
		return "jwt " + cmp.Or(i.JWT.SecretFile, "$"+i.JWT.SecretEnv)
	case i.Cookie != nil:
		return "cookie " + i.Cookie.Name
	}
	return "forward_auth " + i.ForwardAuth.Origin + i.ForwardAuth.Path
}

func verifierOf(c *config.Config, i *config.Identity, claims []string, log *slog.Logger, origins map[string]*upstream) (identity.Verifier, error) {
	switch {
	case i.JWT != nil:
		return jwtOf(c, i, claims, log)
	case i.Cookie != nil:
		return identity.NewCookie(identity.CookieConfig{Name: i.Cookie.Name, Keys: i.Cookie.Keys, School: i.Cookie.School, Sessions: i.Sessions})
	}
	f := i.ForwardAuth
	u := origins[f.Origin]
	if u == nil {
		return nil, fmt.Errorf("there is no origin %q", f.Origin)
	}
	return identity.NewForwardAuth(identity.ForwardAuthConfig{
		Asker: u.Pool, Limit: u.Limit, Target: f.Path, Pass: f.Pass,
		Student: f.Student, School: f.School, Class: f.Class,
		TTL: f.TTL, NegativeTTL: f.NegativeTTL, StaleIfError: *f.StaleIfError, Sessions: i.Sessions,
	})
}

func jwtOf(c *config.Config, i *config.Identity, claims []string, log *slog.Logger) (identity.Verifier, error) {
	j := i.JWT
	from, err := identity.ParseSource(j.From)
	if err != nil {
		return nil, err
	}
	out := identity.JWTConfig{
		From: from, Secrets: j.Secrets, Algorithms: j.Algorithms, Issuer: j.Issuer, Audience: j.Audience, Leeway: *j.Leeway,
		Student: j.Student, School: j.School, Class: j.Class, Claims: claims, Sessions: i.Sessions,
	}
	if j.JWKS != "" {
		keep := j.Keep
		if keep == "" && c.Attendance != nil && identity.IsURL(j.JWKS) {
			sum := sha256.Sum256([]byte(j.JWKS))
			keep = filepath.Join(c.Attendance.Journal, "jwks-"+hex.EncodeToString(sum[:4])+".json")
		}
		out.Keys, err = identity.OpenKeySet(identity.KeySetConfig{Location: j.JWKS, Keep: keep, Refresh: j.Refresh, Log: log})
		if err != nil {
			return nil, err
		}
	}
	return identity.NewJWT(out)
}

// runIdentities starts what verifiers do by themselves.
func (s *server) runIdentities(fresh []*verifier) {
	for _, v := range fresh {
		ctx, cancel := context.WithCancel(s.work)
		v.stop = cancel
		s.jobs.Go(func() {
			if err := v.Run(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("stopped working", "what", "the identity "+v.name, "error", err)
			}
		})
	}
}

// list is the verifiers by name.
func (i *identities) list() []*verifier {
	var all []*verifier
	for _, v := range i.all {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *verifier) int { return strings.Compare(a.name, b.name) })
	return all
}
