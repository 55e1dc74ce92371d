package dns

import "strings"

const (
	// maxString is the length a character-string may have, bytes (RFC 1035). No item
	// is longer, nor is one with its separator: names have at most 63.
	maxString = 255
	// maxText is what the strings of one TXT record may take in all, bytes: a
	// message of 65535 less its header, the longest name, the record's own fields,
	// and an OPT record.
	maxText = 65535 - 12 - 2*(255+4) - 10 - 11
)

// text is the data of one TXT record.
type text struct {
	strings []string // as the library expects them, where a backslash escapes
	cut     bool     // items beyond maxText are left out
}

// list joins items by a separator of one byte into one TXT record. A
// character-string ends only between two items, with the separator, so that what
// a program gets by joining the strings is the list, and each string by itself is
// whole items.
func list(items []string, separator string) (t text) {
	var current string
	total := 0 // bytes in all, each string with the one of its length
	for i, item := range items {
		if i < len(items)-1 {
			item += separator
		}
		if len(current)+len(item) > maxString && current != "" {
			total += 1 + len(current)
			t.end(current)
			current = ""
		}
		if total+1+len(current)+len(item) > maxText {
			t.cut = true
			break
		}
		current += item
	}
	t.end(current)
	return t
}

func (t *text) end(last string) {
	if last != "" {
		t.strings = append(t.strings, escape(last))
	}
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
