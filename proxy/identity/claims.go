package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// depthMax bounds how deep JSON may be nested that strangers write.
const depthMax = 16

// checkJSON reports why text is not one JSON object that everybody reads alike:
// valid UTF-8, no name twice in one object, nothing behind it.
func checkJSON(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("is not a JSON object")
	}
	if err := checkObject(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("is more than a JSON object")
	}
	return nil
}

// checkObject reads on behind an opening brace until its end.
func checkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errors.New("is not JSON")
		}
		if seen[name] {
			return errors.New("has a name twice")
		}
		seen[name] = true
		if err := checkValue(d, depth); err != nil {
			return err
		}
	}
	return closing(d)
}

func checkValue(d *json.Decoder, depth int) error {
	token, err := d.Token()
	switch {
	case err != nil:
		return errors.New("is not JSON")
	case token == json.Delim('{') || token == json.Delim('['):
		if depth == depthMax {
			return errors.New("is nested too deep")
		}
	default:
		return nil
	}
	if token == json.Delim('{') {
		return checkObject(d, depth+1)
	}
	for d.More() {
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	return closing(d)
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("is not JSON")
	}
	return nil
}

// claimValue returns a claim as a text: of its name, or of a JSON pointer (RFC
// 6901) into it. What is neither a text nor a whole number is an error; what is
// not there is empty.
func claimValue(claims map[string]any, name string) (string, error) {
	v, there := claims[name]
	if !there && strings.HasPrefix(name, "/") {
		v = any(claims)
		for segment := range strings.SplitSeq(name[1:], "/") {
			v = step(v, strings.ReplaceAll(strings.ReplaceAll(segment, "~1", "/"), "~0", "~"))
		}
	}
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		if reason := unfit(v); reason != "" {
			return "", fmt.Errorf("its claim %s %s", name, reason)
		}
		return v, nil
	case json.Number:
		if text := v.String(); !strings.ContainsAny(text, ".eE-") && len(text) <= valueBytesMax {
			return text, nil
		}
		return "", fmt.Errorf("its claim %s is a number that is no id", name)
	}
	return "", fmt.Errorf("its claim %s is neither a text nor a number", name)
}

// step goes one segment of a pointer on; nil where it leads nowhere.
func step(v any, segment string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[segment]
	case []any:
		if i, err := strconv.Atoi(segment); err == nil && 0 <= i && i < len(v) {
			return v[i]
		}
	}
	return nil
}

// dateMax is the last second of the year 9999: what lies beyond is no date.
const dateMax = 253402300799

// checkDates reports which of the times of a token is no NumericDate (RFC 7519
// section 2).
func checkDates(claims map[string]any) error {
	for _, name := range [...]string{"exp", "nbf", "iat"} {
		v, there := claims[name]
		if !there {
			continue
		}
		number, ok := v.(json.Number)
		if !ok {
			return fmt.Errorf("its claim %s is not a number", name)
		}
		seconds, err := number.Float64()
		if err != nil || seconds < 0 || seconds > dateMax {
			return fmt.Errorf("its claim %s is no date", name)
		}
	}
	return nil
}
