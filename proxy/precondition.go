package proxy

import (
	"firstbell/cache"
	"firstbell/proxy/field"
)

// The entity tags that clients have may be firstbell's: derived from the
// origin's for another coding, or generated. The origin gets its own only.

// originConditions are the fields of a request with the entity tags in its
// preconditions as the origin knows them. It reports false when an If-Match
// names nothing but tags that the origin never gave: it cannot be true there
// (RFC 9110 section 13.1.1).
func originConditions(fields field.List) (field.List, bool) {
	kept := fields[:0]
	part := true
	for _, f := range fields {
		match := field.EqualName(f.Name, "If-Match")
		switch {
		case match, field.EqualName(f.Name, "If-None-Match"):
			if own, changed := cache.OriginTags([]byte(f.Value)); changed {
				if len(own) == 0 && match {
					return nil, false
				}
				if len(own) == 0 {
					continue
				}
				f.Value = string(own)
			}
		case field.EqualName(f.Name, "If-Range"):
			if _, changed := cache.OriginTags([]byte(f.Value)); changed {
				part = false // the bytes that it is about are not the origin's
				continue
			}
		}
		kept = append(kept, f)
	}
	if !part {
		kept = kept.Without(func(name string) bool { return field.EqualName(name, "Range") })
	}
	return kept, true
}

// clientTag gives a 304 of the origin the entity tag that the client asked
// about.
func (x *exchange) clientTag(status int, fields field.List) field.List {
	asked := x.fields.Peek("If-None-Match")
	etag := fields.Get("ETag")
	if status != 304 || asked == nil || etag == "" || x.route.Cache == nil {
		return fields
	}
	if tag := cache.ClientTag(asked, etag); tag != etag {
		fields = fields.Without(func(name string) bool { return field.EqualName(name, "ETag") })
		fields = append(fields, field.Field{Name: "ETag", Value: tag})
	}
	return fields
}
