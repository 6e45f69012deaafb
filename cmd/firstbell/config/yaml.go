package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on what is handed to the YAML library, whose parser recurses and takes
// time that grows with the square of a mapping's lines: 20,000 of them are two
// seconds, and thousands of routes. A country's schools belong into a CSV file.
const (
	fileBytesMax = 1 << 20
	linesMax     = 20_000
	lineBytesMax = 16 << 10
	flowDepthMax = 100
	nodesMax     = 200_000 // after anchors are followed
	depthMax     = 64
	problemsMax  = 200 // nobody reads further
)

// parse turns text into the one mapping a file must be. All that can go wrong
// here ends in one problem: behind a syntax error nothing can be trusted.
func parse(file string, text []byte) (ast.Node, *Problem) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if p := readable(file, text); p != nil {
		return nil, p
	}
	tree, err := parseYAML(text)
	if err != nil {
		return nil, syntaxProblem(file, err)
	}
	var body ast.Node
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if _, comment := doc.Body.(*ast.CommentGroupNode); comment {
			continue
		}
		if body != nil {
			at := place(doc.Body)
			return nil, &Problem{File: file, Line: at.line, Column: at.column,
				What: "a second document begins here, and it would not be read",
				Fix:  "put everything into one document and remove the line ---"}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, &Problem{File: file, Line: 1, Column: 1, What: "the file is empty",
			Fix: `begin with listen: {http: ":8080"}, origins and routes`}
	}
	return body, nil
}

// readable refuses what is not text of a sensible size and shape.
func readable(file string, text []byte) *Problem {
	if len(text) > fileBytesMax {
		return &Problem{File: file, What: fmt.Sprintf("the file has %d bytes, more than %d", len(text), fileBytesMax),
			Fix: "keep many schools in a CSV file named by schools:"}
	}
	depth, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		if number > linesMax {
			return &Problem{File: file, Line: number, Column: 1, What: fmt.Sprintf("the file has more than %d lines", linesMax),
				Fix: "keep many schools in a CSV file named by schools:"}
		}
		if !utf8.Valid(line) {
			return &Problem{File: file, Line: number, Column: invalidAt(line), What: "these bytes are not UTF-8",
				Fix: "save the file as UTF-8"}
		}
		if i := bytes.IndexByte(line, 0); i >= 0 {
			return &Problem{File: file, Line: number, Column: i + 1, What: "a NUL byte stands here", Fix: "remove it"}
		}
		if len(line) > lineBytesMax {
			return &Problem{File: file, Line: number, Column: 1, What: fmt.Sprintf("the line is longer than %d bytes", lineBytesMax),
				Fix: "break it into several lines"}
		}
		for i, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(depth-1, 0)
			}
			if depth > flowDepthMax {
				return &Problem{File: file, Line: number, Column: i + 1, What: "brackets are nested too deeply", Fix: "close the brackets that are open"}
			}
		}
	}
	return nil
}

func invalidAt(line []byte) int {
	column := 1
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		if r == utf8.RuneError && n == 1 {
			break
		}
		line = line[n:]
		column++
	}
	return column
}

// parseYAML calls the library, which has panicked on odd input before.
func parseYAML(text []byte) (tree *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			tree, err = nil, fmt.Errorf("the YAML reader gave up: %v", r)
		}
	}()
	// Duplicate keys are found in our own walk, with both places named.
	return parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
}

func syntaxProblem(file string, err error) *Problem {
	p := &Problem{File: file, Line: 1, Column: 1, What: "not YAML: " + err.Error(),
		Fix: "look for a missing quote, bracket, colon or space of indentation at or above this place"}
	if e, ok := errors.AsType[yaml.Error](err); ok {
		p.What = "not YAML: " + e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = max(t.Position.Line, 1), max(t.Position.Column, 1)
		}
	}
	switch {
	case strings.Contains(p.What, `'\t'`) || strings.Contains(p.What, "'\t'") || strings.Contains(p.What, "tab character"):
		p.What, p.Fix = "not YAML: a tab stands here", "indent with spaces"
	case strings.Contains(p.What, "mapping value is not allowed"):
		p.Fix = `align the line with its neighbours, or quote a value that holds a colon: "a: b"`
	}
	return p
}

// position is where something stands in the file.
type position struct{ line, column int }

// place is where n begins.
func place(n ast.Node) position {
	var t *token.Token
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return place(n.Values[0])
		}
		t = n.Start
	case *ast.MappingValueNode:
		if n.Key != nil {
			return place(n.Key)
		}
	default:
		t = n.GetToken()
	}
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}
