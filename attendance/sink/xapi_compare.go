package sink

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Two statements are compared as xAPI says (1.0.3 part 2, sections 2.2 and
// 2.3.1; IEEE 9274.1.1 4.2.1): what an LRS may add or write in another form
// makes no difference.

// plainStatement is a statement of ours as an LRS would give it back.
func plainStatement(s *statement) (map[string]any, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(text, &m)
}

// sameStatement reports whether the LRS keeps what was sent. Statements are
// changed in the course.
func sameStatement(sent, kept map[string]any) bool {
	return reflect.DeepEqual(bare(sent), bare(kept))
}

// bare takes out of a statement what plays no part: what the LRS sets
// (authority, stored, version), what may be shown differently (display names
// and definitions), defaults, and the form of moments, ids and of lists that
// may be written as one.
func bare(s map[string]any) map[string]any {
	for _, name := range [...]string{"authority", "stored", "version", "attachments"} {
		delete(s, name)
	}
	if id, ok := s["id"].(string); ok {
		s["id"] = strings.ToLower(id)
	}
	if text, ok := s["timestamp"].(string); ok {
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			s["timestamp"] = at.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
		}
	}
	if v, ok := s["verb"].(map[string]any); ok {
		delete(v, "display")
	}
	plainActivity(s["object"])
	if actor, ok := s["actor"].(map[string]any); ok {
		delete(actor, "objectType")
		delete(actor, "name")
	}
	if c, ok := s["context"].(map[string]any); ok {
		plainContext(c)
	}
	return s
}

func plainActivity(v any) {
	if m, ok := v.(map[string]any); ok {
		delete(m, "definition")
		if m["objectType"] == "Activity" {
			delete(m, "objectType")
		}
	}
}

// plainContext writes each kind of context activity as a list in one order.
func plainContext(c map[string]any) {
	kinds, ok := c["contextActivities"].(map[string]any)
	if !ok {
		return
	}
	for kind, v := range kinds {
		list, isList := v.([]any)
		if !isList {
			list = []any{v}
		}
		for _, a := range list {
			plainActivity(a)
		}
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(activityID(a), activityID(b)) })
		if len(list) == 0 {
			delete(kinds, kind)
		} else {
			kinds[kind] = list
		}
	}
	if len(kinds) == 0 {
		delete(c, "contextActivities")
	}
}

func activityID(v any) string {
	m, _ := v.(map[string]any)
	id, _ := m["id"].(string)
	return id
}

// sameCheckIn reports whether two statements are about one student and one
// activity, whatever else they say.
func sameCheckIn(sent, kept map[string]any) bool {
	return reflect.DeepEqual(sent["actor"], kept["actor"]) && reflect.DeepEqual(sent["verb"], kept["verb"]) &&
		activityID(sent["object"]) == activityID(kept["object"])
}
