package state

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules about names, each in one place. All are pure, and all errors are of
// kind Invalid.

// label is one DNS label without capitals: names become parts of host names.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

const labelRule = "expected 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'"

// reservedApps would make a name under .internal or .flycast mean two things.
var reservedApps = []string{
	"all", "flycast", "global", "internal", "kv", "localhost", "nearest", "of", "process",
	"regions", "top", "vm", "vms",
}

// ValidateOrgSlug checks what an org is called by.
func ValidateOrgSlug(slug string) error { return validateLabel("slug", slug, "acme") }

// ValidateOrgName checks the name of an org for people.
func ValidateOrgName(name string) error {
	if n := utf8.RuneCountInString(name); n > 100 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return refuse(Invalid, "name", "%.120q is not a name for an org: expected at most 100 printable characters", name)
	}
	return nil
}

// ValidateNetworkName checks the name of a network in its org.
func ValidateNetworkName(name string) error { return validateLabel("network", name, "staging") }

// ValidateAppName checks the name of an app.
func ValidateAppName(name string) error {
	if err := validateLabel("name", name, "web"); err != nil {
		return err
	}
	if slices.Contains(reservedApps, name) {
		return refuse(Invalid, "name", "%q has a meaning of its own in .internal names: choose another, such as %q", name, "my-"+name)
	}
	return nil
}

// ValidateHostName checks the name of a host.
func ValidateHostName(name string) error { return validateLabel("host", name, "host-1") }

// ValidateMachineName checks the name of a Machine.
func ValidateMachineName(name string) error { return validateLabel("name", name, "web-1") }

func validateLabel(field, name, example string) error {
	if !label.MatchString(name) {
		return refuse(Invalid, field, "%.80q is not a valid name: %s, for example %q", name, labelRule, example)
	}
	return nil
}

// machineIDLength is in hexadecimal digits.
const machineIDLength = 14

// ValidateMachineID checks the id of a Machine.
func ValidateMachineID(id string) error {
	_, err := hex.DecodeString(id)
	if len(id) != machineIDLength || err != nil || id != strings.ToLower(id) {
		return refuse(Invalid, "id", "%.40q is not a Machine id: expected %d digits of 0-9 and a-f; `sixpn machine list` shows them", id, machineIDLength)
	}
	return nil
}

// ValidateRegion checks the code of a region.
func ValidateRegion(code string) error {
	if _, ok := LookupRegion(code); !ok {
		return refuse(Invalid, "region", "%.20q is not a region: expected a three-letter code such as %q, %q or %q", code, "fra", "iad", "nrt")
	}
	return nil
}

// ValidateMachineState checks a state of a Machine.
func ValidateMachineState(s MachineState) error {
	if !slices.Contains(machineStates, s) {
		return refuse(Invalid, "state", "%.40q is not a state of a Machine: expected one of %q", s, machineStates)
	}
	return nil
}

var machineStates = []MachineState{Created, Starting, Started, Stopping, Stopped, Suspending, Suspended, Failed, Destroying, Destroyed}

// ValidateDesired checks what a Machine can be asked to become.
func ValidateDesired(s MachineState) error {
	if !slices.Contains(wishes, s) {
		return refuse(Invalid, "desired", "a Machine cannot be asked to become %.40q: expected one of %q", s, wishes)
	}
	return nil
}

var wishes = []MachineState{Started, Stopped, Suspended, Destroyed}

var requestID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// ValidateRequestID checks what a client calls a request by that it may repeat.
func ValidateRequestID(id string) error {
	if !requestID.MatchString(id) {
		return refuse(Invalid, "id", "%.80q is not an id for a request: expected 1 to 64 letters, digits, '_', '-' and '.'", id)
	}
	return nil
}
