package dns

import "strings"

const (
	// maxString is the length a character-string may have, bytes (RFC 1035).
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
// escapes. Items beyond maxText are left out.
func characterStrings(items []string) (all []string) {
	var b strings.Builder
	length, total := 0, 0
	flush := func() {
		if length > 0 {
			all = append(all, b.String())
			b.Reset()
			length = 0
		}
	}
	for i, item := range items {
		if i < len(items)-1 {
			item += ","
		}
		if length+len(item) > maxString {
			flush()
		}
		if total += len(item) + 1; total > maxText {
			break
		}
		for len(item) > maxString {
			all = append(all, escape(item[:maxString]))
			item = item[maxString:]
		}
		b.WriteString(escape(item))
		length += len(item)
	}
	flush()
	return all
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
