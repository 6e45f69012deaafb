package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors says on which floor a package lives. Imports go strictly down.
var floors = map[string]int{
	"cmd/firstbell":          5,
	"cmd/firstbell/config":   4,
	"cmd/firstbell/handover": 4,
	"proxy":                  3,
	"attendance/store":       2,
	"attendance/sink":        2,
	"attendance/export":      2,
	"proxy/identity":         2,
	"proxy/certs":            2,
	"cache":                  1,
	"attendance":             1,
	"proxy/origin":           1,
	"proxy/http2":            1,
	"coalesce":               0,
	"attendance/wal":         0,
	"attendance/pgtest":      0,
	"attendance/timetable":   0,
	"attendance/roster":      0,
	"proxy/admission":        0,
	"attendance/seal":        0,
	"proxy/http1":            0,
	"proxy/spool":            0,
	"proxy/http3":            0,
	"proxy/peer":             0,
	"proxy/websocket":        0,
	"proxy/head":             0,
	"proxy/datagrams":        0,
	"cache/disk":             0,
	"proxy/field":            -1, // the cellar: the words of field sections, which every floor uses
}

// modules says which modules from outside a package may import, beside the
// standard library. Test files may also use testModules.
var modules = map[string][]string{
	"cmd/firstbell":          {"github.com/prometheus/client_golang", "github.com/quic-go/quic-go", "golang.org/x/sys", "golang.org/x/term"},
	"cmd/firstbell/config":   {"github.com/goccy/go-yaml", "golang.org/x/net/idna"},
	"proxy/http2":            {"golang.org/x/net/http2/hpack"},
	"proxy":                  {"github.com/klauspost/compress", "github.com/molecule-man/go-brrr", "github.com/quic-go/quic-go", "golang.org/x/sys"},
	"proxy/datagrams":        {"golang.org/x/net/ipv4"},
	"proxy/http3":            {"github.com/quic-go/qpack", "golang.org/x/net/http2/hpack"},
	"proxy/identity":         {"github.com/golang-jwt/jwt/v5"},
	"proxy/certs":            {"github.com/caddyserver/certmagic", "github.com/mholt/acmez/v3", "go.uber.org/zap", "golang.org/x/net/publicsuffix"},
	"cache":                  {"golang.org/x/sys"},
	"cache/disk":             {"github.com/zeebo/xxh3"},
	"attendance/store":       {"modernc.org/sqlite", "github.com/jackc/pgx/v5"},
	"attendance/sink":        {"github.com/klauspost/compress"},
	"attendance/export":      {"github.com/xuri/excelize/v2"},
	"attendance/wal":         {"golang.org/x/sys"},
	"cmd/firstbell/handover": {"golang.org/x/sys"},
}

var testModules = []string{"github.com/fatih/color", "github.com/summerwind/h2spec", "golang.org/x/net/http2", "github.com/maypok86/otter/v2", "go.uber.org/goleak", "golang.org/x/sys", "pgregory.net/rapid", "github.com/valyala/fasthttp", "github.com/prometheus/client_golang", "github.com/go-jose/go-jose/v4", "github.com/miekg/dns", "github.com/quic-go/qpack", "github.com/coder/websocket"}

// benchModules are what bench may use, test or not: it measures beside them, and
// decodes what comes coded.
var benchModules = []string{"github.com/coder/websocket", "github.com/jackc/pgx/v5", "github.com/klauspost/compress", "github.com/molecule-man/go-brrr", "github.com/quic-go/quic-go", "github.com/valyala/fasthttp", "golang.org/x/net/http2", "golang.org/x/sys", "modernc.org/sqlite"}

// http1Files are the files of package proxy that know connections of HTTP/1;
// the rest of it sees an exchange.
var http1Files = []string{"proxy/door.go", "proxy/conn.go", "proxy/connout.go", "proxy/http1.go", "proxy/upload.go", "proxy/lot_linux.go", "proxy/lot_other.go", "proxy/lane_linux.go", "proxy/lane_other.go", "proxy/copy.go", "proxy/siding.go", "proxy/siding_linux.go", "proxy/siding_other.go"}

// A goFile is one file's place and what it imports.
type goFile struct {
	path    string // from the module's top, with slashes
	dir     string
	test    bool
	imports []goImport
	h1Uses  []int // lines of package proxy that name the HTTP/1 types h1 and conn
}

type goImport struct {
	path string
	line int
}

func moduleTop(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's directory")
		}
		dir = filepath.Dir(dir)
	}
}

func goFiles(t testing.TB) []goFile {
	t.Helper()
	top := moduleTop(t)
	var files []goFile
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != top || d.Name() == "testdata" || d.Name() == "morning") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		f, err := readGoFile(path, filepath.ToSlash(rel))
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func readGoFile(path, rel string) (goFile, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return goFile{}, err
	}
	f := goFile{path: rel, dir: rel[:max(0, strings.LastIndex(rel, "/"))], test: strings.HasSuffix(rel, "_test.go")}
	for _, i := range tree.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return f, err
		}
		f.imports = append(f.imports, goImport{p, set.Position(i.Pos()).Line})
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.StarExpr); ok && f.dir == "proxy" {
			if id, ok := s.X.(*ast.Ident); ok && (id.Name == "h1" || id.Name == "conn") {
				f.h1Uses = append(f.h1Uses, set.Position(s.Pos()).Line)
			}
		}
		return true
	})
	return f, nil
}

// breaches is every import that breaks a rule, one line each.
func (f *goFile) breaches() (list []string) {
	for _, i := range f.imports {
		if why := f.forbids(i.path); why != "" {
			list = append(list, fmt.Sprintf("%s:%d imports %s: %s", f.path, i.line, i.path, why))
		}
	}
	if !slices.Contains(http1Files, f.path) && !f.test {
		for _, line := range f.h1Uses {
			list = append(list, fmt.Sprintf("%s:%d names a type of HTTP/1's: only %s do, so that other protocols can fill an exchange too", f.path, line, strings.Join(http1Files, ", ")))
		}
	}
	return list
}

// forbids says why the file may not import path; empty when it may.
func (f *goFile) forbids(path string) string {
	ours, inside := strings.CutPrefix(path, "firstbell/")
	switch {
	case path == "unsafe" || path == "C" && !f.test:
		return f.forbidsByName(path)
	case inside && strings.HasPrefix(ours, "bench"):
		if f.dir == "bench" || strings.HasPrefix(f.dir, "bench/") {
			return ""
		}
		base := f.path[strings.LastIndex(f.path, "/")+1:]
		if f.dir == "cmd/firstbell" && (strings.HasPrefix(base, "demo") || strings.HasPrefix(base, "report")) && (ours == "bench/lms" || ours == "bench/bell") {
			return ""
		}
		if f.dir == "proxy" && f.test && (ours == "bench/leaks" || ours == "bench/raw/corpus") {
			return "" // they play both ends of the wire
		}
		if (f.test || f.dir == "attendance/pgtest") && ours == "bench/ports" {
			return "" // it is about the system, not about us
		}
		return "bench stands outside; only the demo of cmd/firstbell imports bench/lms and bench/bell"
	case inside:
		return f.forbidsOurs(ours)
	case !strings.Contains(strings.SplitN(path, "/", 2)[0], "."):
		return "" // standard library
	}
	return f.forbidsModule(path)
}

func (f *goFile) forbidsByName(path string) string {
	if path == "C" {
		return "no cgo: one static binary"
	}
	return ""
}

func (f *goFile) forbidsOurs(ours string) string {
	if strings.HasPrefix(f.dir, "bench") {
		return "bench stands outside and talks to firstbell over the wire"
	}
	from, known := floors[f.dir]
	if !known {
		return fmt.Sprintf("the package %s has no floor; give it one in floors_test.go and in the plan", f.dir)
	}
	to, known := floors[ours]
	switch {
	case !known:
		return fmt.Sprintf("the package %s has no floor; give it one in floors_test.go and in the plan", ours)
	case ours == f.dir && f.test:
		return "" // an external test of the package itself
	case to >= from:
		return fmt.Sprintf("floor %d may not import floor %d; imports go strictly down", from, to)
	}
	return ""
}

func (f *goFile) forbidsModule(path string) string {
	allowed := modules[f.dir]
	if f.test {
		allowed = append(slices.Clone(allowed), testModules...)
	}
	if strings.HasPrefix(f.dir, "bench") {
		allowed = append(slices.Clone(allowed), benchModules...)
	}
	if slices.ContainsFunc(allowed, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") }) {
		return ""
	}
	if len(allowed) == 0 {
		return f.dir + " uses the standard library alone"
	}
	return f.dir + " may use " + strings.Join(allowed, ", ") + " and the standard library"
}

func TestImportsGoStrictlyDown(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, b := range f.breaches() {
			t.Error(b)
		}
	}
}

func TestTheFloorsTestSeesABreach(t *testing.T) {
	for _, c := range []struct{ file, imports, want string }{
		{"cache/a.go", "firstbell/proxy", "strictly down"},
		{"cache/a.go", "firstbell/attendance", "strictly down"},
		{"cache/a.go", "firstbell/proxy/field", ""},
		{"cache/a.go", "github.com/valyala/fasthttp", "cache may use golang.org/x/sys"},
		{"coalesce/a.go", "github.com/zeebo/xxh3", "standard library alone"},
		{"bench/bell/a.go", "firstbell/attendance", "over the wire"},
		{"bench/bell/a.go", "firstbell/bench/lms", ""},
		{"proxy/a.go", "firstbell/bench/lms", "stands outside"},
		{"proxy/a.go", "firstbell/bench/leaks", "stands outside"},
		{"cmd/firstbell/serve.go", "firstbell/bench/lms", "stands outside"},
		{"cmd/firstbell/demo.go", "firstbell/bench/lms", ""},
		{"attendance/pgtest/a.go", "firstbell/bench/ports", ""},
		{"proxy/origin/a.go", "firstbell/bench/ports", "stands outside"},
		{"attendance/new/a.go", "firstbell/cache", "has no floor"},
		{"cmd/firstbell/serve.go", "github.com/goccy/go-yaml", "may use"},
	} {
		f := goFile{path: c.file, dir: c.file[:strings.LastIndex(c.file, "/")]}
		got := f.forbids(c.imports)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s imports %s: got %q, want %q", c.file, c.imports, got, c.want)
		}
	}
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	packages, docs := map[string]bool{}, map[string]bool{}
	for _, f := range goFiles(t) {
		if !f.test {
			packages[f.dir] = true
		}
		if strings.HasSuffix(f.path, "/doc.go") {
			docs[f.dir] = true
		}
	}
	for p := range packages {
		if !docs[p] {
			t.Errorf("%s has no doc.go; say there what the package promises, what it does not, and where to start reading", p)
		}
	}
}
