package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// A decoder fills the types of file.go from a syntax tree and goes on after
// every problem, so that all are shown at once.
type decoder struct {
	file     string
	problems Problems
	at       map[string]position // path -> where it stands
	bad      map[string]bool     // paths a problem was shown for: no second one about what follows from it
	anchors  map[string]ast.Node // name -> what it stands for
	places   map[string]string   // known key -> where it belongs, to help those who put it elsewhere
	nodes    int                 // walked so far
	stopped  bool                // a bound was passed: nothing more is walked
}

// A chooser is a value that may be written in more than one form.
type chooser interface {
	choose(d *decoder, n ast.Node, path string)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	chooserType  = reflect.TypeFor[chooser]()
)

func newDecoder(file string) *decoder {
	d := &decoder{file: file, at: map[string]position{}, bad: map[string]bool{}, anchors: map[string]ast.Node{}, places: map[string]string{}}
	gatherKeys(reflect.TypeFor[Config](), "", d.places)
	return d
}

// problem notes an error at path, which stands at pos.
func (d *decoder) problem(pos position, path, what, fix string) {
	d.bad[path] = true
	if len(d.problems) >= problemsMax {
		d.stopped = true
		return
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: pos.line, Column: pos.column, Path: path, What: what, Fix: fix})
}

// resolve follows anchors and aliases to what they stand for.
func (d *decoder) resolve(n ast.Node, path string) (ast.Node, bool) {
	for range depthMax {
		switch v := n.(type) {
		case *ast.AnchorNode:
			name := v.Name.String()
			if _, found := d.anchors[name]; !found {
				d.anchors[name] = v.Value
			} else if d.anchors[name] != v.Value {
				d.problem(place(n), path, fmt.Sprintf("the anchor &%s is set twice", name), "give one of them another name")
				return nil, false
			}
			n = v.Value
		case *ast.AliasNode:
			name := v.Value.String()
			value, found := d.anchors[name]
			if !found {
				d.problem(place(n), path, fmt.Sprintf("there is no anchor &%s above", name), "set it with &"+name+" before it is used, or quote the value")
				return nil, false
			}
			n = value
		case *ast.TagNode:
			d.problem(place(n), path, fmt.Sprintf("the tag %s has no meaning here", v.Start.Value), "remove it")
			return nil, false
		case nil:
			return nil, false
		default:
			return n, true
		}
	}
	d.problem(position{1, 1}, path, "anchors refer to each other in a circle", "write the value out")
	return nil, false
}

// decode fills into with what n says. pos is where problems about the value
// as a whole are shown.
func (d *decoder) decode(n ast.Node, path string, pos position, into reflect.Value, f structField) {
	eg := f.eg
	if d.stopped {
		return
	}
	if d.nodes++; d.nodes > nodesMax || strings.Count(path, ".")+strings.Count(path, "[") > depthMax {
		d.stopped = true
		d.problem(pos, path, "the file says too much here, perhaps through an anchor within itself", "write the values out")
		return
	}
	d.at[path] = pos
	n, ok := d.resolve(n, path)
	if !ok {
		d.bad[path] = true
		return
	}
	if into.CanAddr() && into.Addr().Type().Implements(chooserType) {
		into.Addr().Interface().(chooser).choose(d, n, path)
		return
	}
	if _, null := n.(*ast.NullNode); null {
		d.problem(pos, path, "no value is given", wayOut("write a value", eg)+", or remove the key")
		return
	}
	switch {
	case into.Type() == durationType:
		decodeText(d, n, path, pos, into, parseDuration, "write a number with its unit", or(eg, "10s, 5m or 24h"))
	case into.Type() == sizeType:
		decodeText(d, n, path, pos, into, parseSize, "write a number with its unit", or(eg, "64KiB, 512MiB or 2GiB"))
	case into.Kind() == reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.decode(n, path, pos, into.Elem(), f)
	case into.Kind() == reflect.Struct:
		d.decodeStruct(n, path, pos, into, eg)
	case into.Kind() == reflect.Map:
		d.decodeMap(n, path, pos, into, eg)
	case into.Kind() == reflect.Slice:
		d.decodeList(n, path, pos, into, eg)
	default:
		d.decodeScalar(n, path, pos, into, eg)
	}
	if into.IsZero() && into.CanInt() && !f.zero && !d.bad[path] {
		d.problem(pos, path, "0 is no value here", "leave the key out for the default"+orNothing(", or write one, such as ", eg))
	}
}

func orNothing(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func (d *decoder) decodeScalar(n ast.Node, path string, pos position, into reflect.Value, eg string) {
	switch into.Kind() {
	case reflect.String:
		text, ok := scalarText(n)
		if !ok {
			fix := wayOut("write a text", eg)
			if b, is := n.(*ast.BoolNode); is {
				fix = fmt.Sprintf("quote it: %q", b.Token.Value)
			}
			d.problem(pos, path, "expected a text, found "+kindOf(n), fix)
			return
		}
		into.SetString(text)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.problem(pos, path, "expected true or false, found "+kindOf(n), "write true or false")
			return
		}
		into.SetBool(b.Value)
	case reflect.Int:
		i, ok := n.(*ast.IntegerNode)
		if !ok {
			d.problem(pos, path, "expected a whole number, found "+kindOf(n), wayOut("write a number", eg))
			return
		}
		v, err := strconv.Atoi(i.Token.Value)
		if err != nil || v < 0 || (len(i.Token.Value) > 1 && i.Token.Value[0] == '0') {
			d.problem(pos, path, fmt.Sprintf("%s is not a plain whole number from 0 on", i.Token.Value), wayOut("write it in digits", eg))
			return
		}
		into.SetInt(int64(v))
	default:
		panic("config: no reading for " + into.Type().String())
	}
}

func decodeText[T any](d *decoder, n ast.Node, path string, pos position, into reflect.Value, read func(string) (T, error), fix, eg string) {
	text, ok := scalarText(n)
	if !ok {
		d.problem(pos, path, "expected a text, found "+kindOf(n), wayOut(fix, eg))
		return
	}
	v, err := read(text)
	if err != nil {
		d.problem(pos, path, err.Error(), wayOut(fix, eg))
		return
	}
	into.Set(reflect.ValueOf(v).Convert(into.Type()))
}

func (d *decoder) decodeList(n ast.Node, path string, pos position, into reflect.Value, eg string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		fix := wayOut("write a list", eg)
		if text, is := scalarText(n); is && into.Type().Elem().Kind() == reflect.String {
			fix = fmt.Sprintf("write a list: [%q]", text)
		}
		d.problem(pos, path, "expected a list, found "+kindOf(n), fix)
		return
	}
	list := reflect.MakeSlice(into.Type(), len(seq.Values), len(seq.Values))
	for i, v := range seq.Values {
		d.decode(v, fmt.Sprintf("%s[%d]", path, i), place(v), list.Index(i), structField{})
	}
	into.Set(list)
}

func (d *decoder) decodeMap(n ast.Node, path string, pos position, into reflect.Value, eg string) {
	entries, ok := d.entries(n, path, pos, eg)
	if !ok {
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for _, e := range entries {
		v := reflect.New(into.Type().Elem()).Elem()
		d.decode(e.value, join(path, e.key), valuePlace(e), v, structField{})
		into.SetMapIndex(reflect.ValueOf(e.key), v)
	}
}

func (d *decoder) decodeStruct(n ast.Node, path string, pos position, into reflect.Value, eg string) {
	entries, ok := d.entries(n, path, pos, eg)
	if !ok {
		return
	}
	fields := fieldsOf(into.Type())
	for _, e := range entries {
		f, known := fields[e.key]
		switch {
		case known && f.later != "":
			d.problem(e.at, join(path, e.key), "not in this version: "+f.later, "remove it for now")
		case known:
			d.decode(e.value, join(path, e.key), valuePlace(e), into.FieldByIndex(f.index), f)
		case path == "" && strings.HasPrefix(e.key, "x-"):
			d.anchorsOnly(e.value, e.key)
		default:
			d.unknownKey(e, path, fields)
		}
	}
}

// anchorsOnly walks what stands under a top-level x- key, which is there for
// its anchors.
func (d *decoder) anchorsOnly(n ast.Node, path string) {
	ast.Walk(anchorVisitor{d, path}, n)
}

type anchorVisitor struct {
	d    *decoder
	path string
}

func (v anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		v.d.resolve(a, v.path)
	}
	return v
}

func (d *decoder) unknownKey(e entry, path string, fields map[string]structField) {
	var known []string
	for name, f := range fields {
		if f.later == "" {
			known = append(known, name)
		}
	}
	slices.Sort(known)
	fix := "known here: " + strings.Join(known, ", ")
	if meant := nearest(e.key, known); meant != "" {
		d.bad[join(path, meant)] = true // what was meant is not missing too
		fix = fmt.Sprintf("did you mean %s?", meant)
	} else if home, ok := d.places[e.key]; ok {
		fix = fmt.Sprintf("it belongs to %s", home)
	}
	d.problem(e.at, join(path, e.key), "unknown key", fix)
}

// An entry is one key of a mapping and its value.
type entry struct {
	key       string
	at        position // of the key
	value     ast.Node
	inherited bool // came in through <<
}

// valuePlace is where problems about the value are shown: a scalar's own
// place, a mapping's or list's key.
func valuePlace(e entry) position {
	switch e.value.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode, *ast.NullNode, *ast.AnchorNode, nil:
		return e.at
	}
	return place(e.value)
}

// entries is the mapping n with its merge keys followed; a key that stands
// twice is a problem.
func (d *decoder) entries(n ast.Node, path string, pos position, eg string) ([]entry, bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.problem(pos, path, "expected keys and values, found "+kindOf(n), wayOut("write a mapping", or(eg, "{key: value}")))
		return nil, false
	}
	var list []entry
	have := map[string]int{}
	for _, v := range values {
		if d.nodes++; d.nodes > nodesMax {
			break
		}
		if _, merge := v.Key.(*ast.MergeKeyNode); merge {
			for _, e := range d.merged(v.Value, path) {
				if _, found := have[e.key]; !found {
					have[e.key] = len(list)
					list = append(list, e)
				}
			}
			continue
		}
		e := entry{at: place(v.Key), value: v.Value}
		key, ok := d.key(v.Key, path)
		if !ok {
			continue
		}
		e.key = key
		i, found := have[key]
		switch {
		case found && list[i].inherited:
			list[i] = e
		case found:
			d.problem(e.at, join(path, key), fmt.Sprintf("the key stands here a second time, first on line %d", list[i].at.line), "remove one of them")
		default:
			have[key] = len(list)
			list = append(list, e)
		}
	}
	return list, true
}

// merged is what <<: *name or <<: [*a, *b] brings in; the earlier wins.
func (d *decoder) merged(n ast.Node, path string) []entry {
	at := place(n)
	n, ok := d.resolve(n, path)
	if !ok {
		return nil
	}
	sources := []ast.Node{n}
	if seq, is := n.(*ast.SequenceNode); is {
		sources = seq.Values
	}
	var list []entry
	for _, s := range sources {
		s, ok := d.resolve(s, path)
		if !ok || d.nodes > nodesMax {
			continue
		}
		if m, is := s.(*ast.MappingNode); is && slices.ContainsFunc(m.Values, isMerge) {
			d.problem(at, path, "a merge within a merge", "merge both by a list: <<: [*a, *b]")
			continue
		}
		entries, ok := d.entries(s, path, at, "<<: *name")
		if !ok {
			continue
		}
		for _, e := range entries {
			e.inherited = true
			list = append(list, e)
		}
	}
	return list
}

func isMerge(v *ast.MappingValueNode) bool {
	_, merge := v.Key.(*ast.MergeKeyNode)
	return merge
}

func (d *decoder) key(n ast.MapKeyNode, path string) (string, bool) {
	var node ast.Node = n
	if k, ok := n.(*ast.MappingKeyNode); ok {
		node = k.Value
	}
	text, ok := scalarText(node)
	if b, is := node.(*ast.BoolNode); is {
		text, ok = b.Token.Value, true
	}
	if !ok || text == "" {
		d.problem(place(n), path, "a key must be a name, found "+kindOf(node), "write key: value")
		return "", false
	}
	return text, true
}

// scalarText is what was written for a text or a number.
func scalarText(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode:
		return v.Token.Value, true
	case *ast.FloatNode:
		return v.Token.Value, true
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch v := n.(type) {
	case *ast.StringNode:
		return fmt.Sprintf("the text %q", shorten(v.Value))
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.IntegerNode:
		return "the number " + shorten(v.Token.Value)
	case *ast.FloatNode:
		return "the number " + shorten(v.Token.Value)
	case *ast.BoolNode:
		return v.Token.Value
	case *ast.NullNode:
		return "nothing"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	}
	return "something else"
}

func shorten(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "…"
}

// A structField is one key of a mapping that file.go describes.
type structField struct {
	index []int  // as reflect's FieldByIndex takes it
	later string // set: a key of a version to come, and what it will be
	eg    string // an example value
	zero  bool   // 0 is a value of its own, not a mistake
}

// fieldsOf are the keys of a mapping, those of embedded structs included.
func fieldsOf(t reflect.Type) map[string]structField {
	fields := map[string]structField{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for name, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields[name] = inner
			}
			continue
		}
		if name := f.Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = structField{index: f.Index, later: f.Tag.Get("later"), eg: f.Tag.Get("eg"), zero: f.Tag.Get("zero") != ""}
		}
	}
	return fields
}

// gatherKeys notes for each key where it belongs; a key of two places is left
// out, as there would be two answers.
func gatherKeys(t reflect.Type, at string, places map[string]string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		if t.Kind() == reflect.Map {
			at += ".NAME"
		}
		if t.Kind() == reflect.Slice {
			at += "[]"
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	fields := fieldsOf(t)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		if f.later != "" {
			continue
		}
		home := or(at, "the top of the file")
		if before, found := places[name]; found && before != home {
			home = before + " or " + home
		}
		places[name] = home
		gatherKeys(t.FieldByIndex(f.index).Type, strings.TrimPrefix(at+"."+name, "."), places)
	}
}

// join is the path of key within path.
func join(path, key string) string {
	for _, r := range key {
		if !(r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 127) {
			return fmt.Sprintf("%s[%q]", path, shorten(key))
		}
	}
	if path == "" {
		return shorten(key)
	}
	return path + "." + shorten(key)
}

func wayOut(fix, eg string) string {
	if eg == "" {
		return fix
	}
	return fix + ", such as " + eg
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
