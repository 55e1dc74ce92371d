package dns

import (
	"net"
	"strings"

	miekg "github.com/miekg/dns"
)

// records are the answers that one name holds. They are shared by all replies
// that carry them.
type records struct {
	addresses  []net.IP // one AAAA record each
	addresses4 []net.IP // one A record each
	ordered    bool     // the order of the addresses says something
	text       text     // one TXT record, unless it is empty
	pointers   []string // one PTR record each
}

// zone is names, relative to where the zone hangs ("" is that place itself), and
// what they hold. A name that is in it exists, even if it holds nothing; so does
// every name above it (RFC 8020).
type zone map[string]*records

// at is what a name holds, to be added to.
func (z zone) at(name string) *records {
	if have, ok := z[name]; ok {
		return have
	}
	made := new(records)
	z[name] = made
	if name != "" {
		_, above := cutFirst(name)
		z.at(above)
	}
	return made
}

// cutFirst splits a name's first label off. A dot behind a backslash is part of a
// label.
func cutFirst(name string) (label, rest string) {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '.':
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// cutLast splits a name's last label off.
func cutLast(name string) (rest, label string) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] != '.' {
			continue
		}
		backslashes := 0
		for backslashes < i && name[i-1-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return name[:i], name[i+1:]
		}
	}
	return "", name
}

const (
	maxLabel = 63  // bytes (RFC 1035)
	maxName  = 255 // bytes of a whole name as messages carry it
)

// spell is how a text of the user's own stands in a name: each dot ends a label,
// case does not count, and what is special is escaped as the library does. ok is
// false for what no name can hold: a label of no or too many bytes.
func spell(text string) (name string, ok bool) {
	plain := true
	label := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			plain = false
		}
		if label++; label > maxLabel {
			return "", false
		}
	}
	if label == 0 || len(text) > maxName-2 {
		return "", false
	}
	if plain {
		return text, true
	}
	wire := make([]byte, 0, len(text)+2)
	for part := range strings.SplitSeq(text, ".") {
		wire = append(append(wire, byte(len(part))), part...)
	}
	name, _, err := miekg.UnpackDomainName(append(wire, 0), 0)
	if err != nil {
		return "", false
	}
	return strings.TrimSuffix(miekg.CanonicalName(name), "."), true
}
