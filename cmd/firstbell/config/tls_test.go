package config

import (
	"fmt"
	"strings"
	"testing"
)

// secured is the good file with TLS: tls stands within tls, route within the
// second route.
func secured(tls, route string) string {
	text := strings.Replace(good, `{http: ":8080",`, `{http: ":8080", https: ":8443",`, 1)
	text = strings.Replace(text, "timezone:", "tls: {certificates: [{cert: a.pem, key: a.key}]"+tls+"}\ntimezone:", 1)
	return strings.Replace(text, "    cache: {anonymous", "    tls: {"+route+"}\n    cache: {anonymous", 1)
}

func TestMistakesAboutTLSAreNamed(t *testing.T) {
	for _, c := range []struct{ tls, route, path, what string }{
		{", redirect: 302", "", "tls.redirect", "302 does not send to https for good"},
		{"", "redirect: 307", "routes[1].tls.redirect", "307 does not"},
		{", hsts: {subdomains: true}", "", "tls.hsts", "for how long"},
		{", hsts: {max_age: 1500ms}", "", "tls.hsts.max_age", "not whole seconds"},
		{", hsts: {max_age: 8760h, preload: true}", "", "tls.hsts.preload", "all subdomains"},
		{"", "hsts: {}", "routes[1].tls.hsts", "for how long"},
		{", certificate: [a]", "", "tls.certificate", "unknown key"},
	} {
		conf, problems := Read("firstbell.yaml", []byte(secured(c.tls, c.route)))
		errs := problems.Errors()
		if conf != nil || len(errs) != 1 || errs[0].Path != c.path || !strings.Contains(errs[0].What, c.what) || errs[0].Fix == "" {
			t.Errorf("tls %q, route %q: got %v; want one problem about %s: %s", c.tls, c.route, problems, c.path, c.what)
		}
	}
}

func TestARouteGoesBeforeTheRestAboutTLS(t *testing.T) {
	for _, c := range []struct{ tls, route, first, second string }{
		{"", "", `<nil> ""`, `<nil> ""`},
		{", redirect: 308, hsts: {max_age: 1h}", "", `&{308 8443} "max-age=3600"`, `&{308 8443} "max-age=3600"`},
		{", redirect: 308, hsts: {max_age: 8760h, subdomains: true, preload: true}", "redirect: 0, hsts: {max_age: 0s}",
			`&{308 8443} "max-age=31536000; includeSubDomains; preload"`, `<nil> "max-age=0"`},
		{"", "redirect: 301", `<nil> ""`, `&{301 8443} ""`},
	} {
		conf := readGood(t, "firstbell.yaml", secured(c.tls, c.route))
		if conf == nil {
			continue
		}
		for i, want := range []string{c.first, c.second} {
			to, hsts := conf.OverTLS(conf.Routes[i])
			if got := fmt.Sprintf("%v %q", to, hsts); got != want {
				t.Errorf("tls %q, route %q: routes[%d] is %s, want %s", c.tls, c.route, i, got, want)
			}
		}
	}
}
