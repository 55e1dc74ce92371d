package dns

import "strings"

const (
	// maxString is the length a character-string may have, bytes (RFC 1035). No item
	// is longer, nor is one with its comma: names have at most 63.
	maxString = 255
	// maxText is what the strings of one TXT record may take in all, bytes: a
	// message of 65535 less its header, the longest name, the record's own fields,
	// and an OPT record.
	maxText = 65535 - 12 - 2*(255+4) - 10 - 11
)

// characterStrings joins items by commas into the strings of one TXT record. A
// string ends only between two items, with the comma, so that what a program
// gets by joining the strings is the list, and each string by itself is whole
// items. The strings are written as the library expects them, where a backslash
// escapes. Items beyond maxText are left out, and whole is false then.
func characterStrings(items []string) (all []string, whole bool) {
	var current string
	total := 0 // bytes in all, each string with the one of its length
	for i, item := range items {
		if i < len(items)-1 {
			item += ","
		}
		if len(current)+len(item) > maxString && current != "" {
			total += 1 + len(current)
			all, current = append(all, escape(current)), ""
		}
		if total+1+len(current)+len(item) > maxText {
			return appendString(all, current), false
		}
		current += item
	}
	return appendString(all, current), true
}

func appendString(all []string, last string) []string {
	if last == "" {
		return all
	}
	return append(all, escape(last))
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
