package config

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const top = "../../.."

// readGood wants a text that is a file without errors.
func readGood(t *testing.T, name, text string) *Config {
	t.Helper()
	c, problems := Read(name, []byte(text))
	if c == nil {
		t.Errorf("%s has mistakes:\n%s", name, problems.Errors())
	}
	return c
}

func TestEveryFileInDeployIsGood(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(top, "deploy", "*.y*ml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in deploy: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("\nkind:")) {
			readManifest(t, file, text)
			continue
		}
		c := readGood(t, file, string(text))
		if c == nil || c.Schools.File == "" {
			continue
		}
		schools, err := os.ReadFile(c.Schools.File)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, problems := parseSchools(c.Schools.File, schools, c); len(problems) > 0 {
			t.Errorf("%s", problems)
		}
	}
}

// readManifest wants the files within a Kubernetes manifest to be good.
func readManifest(t *testing.T, file string, text []byte) {
	t.Helper()
	found := 0
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		var m struct {
			Kind string            `yaml:"kind"`
			Data map[string]string `yaml:"data"`
		}
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Errorf("%s is not YAML: %v", file, err)
			continue
		}
		if m.Kind != "ConfigMap" {
			continue
		}
		for name, data := range m.Data {
			found++
			readGood(t, file+":"+name, data)
		}
	}
	if found == 0 {
		t.Errorf("%s holds no configuration", file)
	}
}

// TestEveryYAMLSnippetInTheDocumentsIsGood: a snippet with listen: is a whole
// file, any other is a part whose keys and values must be known.
func TestEveryYAMLSnippetInTheDocumentsIsGood(t *testing.T) {
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".md") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, snippet := range snippets(string(text)) {
			name := fmt.Sprintf("%s, snippet %d", path, i+1)
			if strings.HasPrefix(snippet, "listen:") || strings.Contains(snippet, "\nlisten:") {
				readGood(t, name, snippet)
				continue
			}
			readPart(t, name, snippet)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// snippets are the texts between ```yaml and ```.
func snippets(text string) (list []string) {
	for {
		_, rest, found := strings.Cut(text, "```yaml\n")
		if !found {
			return list
		}
		snippet, after, closed := strings.Cut(rest, "```")
		if !closed {
			return list
		}
		list = append(list, snippet)
		text = after
	}
}

func readPart(t *testing.T, name, text string) {
	t.Helper()
	root, p := parse(name, []byte(text))
	if p != nil {
		t.Error(p)
		return
	}
	d := newDecoder(name)
	d.decode(root, "", position{1, 1}, reflect.ValueOf(&Config{}).Elem(), structField{})
	for _, p := range d.problems {
		t.Error(p)
	}
}
