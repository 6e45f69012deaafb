package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// String writes s in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.bytes >= 1<<10 && u.binary && s != 0 && int64(s)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s)/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

var sizeUnits = []struct {
	name   string
	bytes  int64
	binary bool
}{
	{"TiB", 1 << 40, true}, {"GiB", 1 << 30, true}, {"MiB", 1 << 20, true}, {"KiB", 1 << 10, true},
	{"TB", 1e12, false}, {"GB", 1e9, false}, {"MB", 1e6, false}, {"KB", 1e3, false}, {"kB", 1e3, false},
	{"B", 1, false},
}

// parseSize reads 2GiB, 512MiB, 1.5GiB, 100MB or 4096B.
func parseSize(text string) (Size, error) {
	for _, u := range sizeUnits {
		number, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		switch {
		case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
			return 0, fmt.Errorf("%q is not a size", text)
		case v < 0:
			return 0, fmt.Errorf("a size cannot be negative")
		case v*float64(u.bytes) >= 1<<62:
			return 0, fmt.Errorf("%q is too large", text)
		}
		return Size(v * float64(u.bytes)), nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit", text)
	}
	return 0, fmt.Errorf("%q is not a size", text)
}

// parseDuration reads what time.ParseDuration reads, and refuses what is
// negative: nothing in the file runs backwards.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return 0, fmt.Errorf("%q has no unit", text)
		}
		if days, found := strings.CutSuffix(text, "d"); found {
			if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 10_000 {
				return 0, fmt.Errorf("%q: days have no unit of their own, write %dh", text, 24*n)
			}
		}
		return 0, fmt.Errorf("%q is not a duration", text)
	}
	if d < 0 {
		return 0, fmt.Errorf("a duration cannot be negative")
	}
	return d, nil
}
