// Package config reads the file users write.
//
// It promises: a file is either understood whole or refused. Every key is
// known, every value has the right kind, every name that is referred to
// exists, and nothing that stands in the file is ignored: a key of a version
// to come is refused by name. All problems are shown at once, each with the
// line and the column it stands at, the path of the field, what is wrong and a
// way out. Reading never panics and never takes long, whatever the file holds.
//
// It does not open sockets, journals or stores, and it starts nothing:
// cmd/firstbell wires what it describes. Load reads the files it names (the
// schools, the roster) and looks whether directories can be written to.
//
// Start reading at [Load], then at the types in file.go, which are the file.
// decode.go walks the syntax tree, validate.go and its neighbours say what the
// values must mean together.
package config
