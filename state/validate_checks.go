package state

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/http/httpguts"
)

// Limits of health checks: what a Machine may make its host's agent do.
const (
	MaxChecks        = 32 // of a Machine, those of its services included
	MinCheckInterval = time.Second
	MaxCheckInterval = time.Hour
	MinCheckTimeout  = 10 * time.Millisecond
	MaxCheckTimeout  = time.Minute
	MaxGracePeriod   = time.Hour
	MaxCheckPath     = 1024 // bytes
	MaxCheckHeaders  = 32
)

var checkMethods = []string{"", "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

// validateCheck checks one health check. hasPort says that it needs none of its own.
func validateCheck(field string, c Check, hasPort bool) error {
	if c.Type != "tcp" && c.Type != "http" {
		return refuse(Invalid, field+".type", "%.20q is not a kind of check: expected %q or %q", c.Type, "tcp", "http")
	}
	if c.Port == 0 && !hasPort {
		return refuse(Invalid, field+".port", "the check has no port, and the Machine no service whose port it could take: expected 1 to 65535")
	}
	for _, d := range []struct {
		name       string
		value      time.Duration
		first, end time.Duration
	}{
		{"interval", c.Interval, MinCheckInterval, MaxCheckInterval},
		{"timeout", c.Timeout, MinCheckTimeout, MaxCheckTimeout},
		{"grace_period", c.GracePeriod, 0, MaxGracePeriod},
	} {
		if d.value != 0 && (d.value < d.first || d.value > d.end) {
			return refuse(Invalid, field+"."+d.name, "%v is out of range: expected %v to %v, or none for the default", d.value, d.first, d.end)
		}
	}
	if c.Type != "http" {
		if c.Method != "" || c.Path != "" || c.Protocol != "" || len(c.Headers) > 0 || c.TLSServerName != "" || c.TLSSkipVerify {
			return refuse(Invalid, field+".type", "a check by TCP only connects: leave out method, path, protocol, headers and the settings of TLS, or choose %q", "http")
		}
		return nil
	}
	return validateRequest(field, c)
}

// validateRequest checks what a check by HTTP asks.
func validateRequest(field string, c Check) error {
	if !slices.Contains(checkMethods, c.Method) {
		return refuse(Invalid, field+".method", "%.20q is not a method: expected one of %q", c.Method, checkMethods[1:])
	}
	if c.Protocol != "" && c.Protocol != "http" && c.Protocol != "https" {
		return refuse(Invalid, field+".protocol", "%.20q is not a protocol of a check: expected %q or %q", c.Protocol, "http", "https")
	}
	if p := c.Path; p != "" && (!strings.HasPrefix(p, "/") || len(p) > MaxCheckPath || strings.ContainsFunc(p, func(r rune) bool { return unicode.IsControl(r) || r == ' ' })) {
		return refuse(Invalid, field+".path", "%.80q is not a path: expected at most %d bytes without spaces, beginning with '/'", p, MaxCheckPath)
	}
	if len(c.Headers) > MaxCheckHeaders {
		return refuse(Invalid, field+".headers", "%d headers are too many: expected at most %d", len(c.Headers), MaxCheckHeaders)
	}
	for _, header := range c.Headers {
		if !httpguts.ValidHeaderFieldName(header.Name) {
			return refuse(Invalid, field+".headers", "%.80q is not the name of a header: expected letters, digits and '-'", header.Name)
		}
		for _, value := range header.Values {
			if len(value) > MaxMetadataValue || !httpguts.ValidHeaderFieldValue(value) {
				return refuse(Invalid, field+".headers", "%.80q is not a value for the header %s: expected at most %d bytes of printable text", value, header.Name, MaxMetadataValue)
			}
		}
	}
	return nil
}

// validateChecks checks all health checks of a configuration.
func validateChecks(c MachineConfig) error {
	total := len(c.Checks)
	for i, service := range c.Services {
		total += len(service.Checks)
		for j, check := range service.Checks {
			if err := validateCheck(fmt.Sprintf("config.services[%d].checks[%d]", i, j), check, true); err != nil {
				return err
			}
		}
	}
	for name, check := range c.Checks {
		if len(name) > MaxMetadataKey || !metadataKey.MatchString(name) {
			return refuse(Invalid, "config.checks", "%.80q is not a name for a check: expected 1 to %d letters, digits, '_', '-' and '.'", name, MaxMetadataKey)
		}
		if err := validateCheck("config.checks."+name, check, len(c.Services) > 0); err != nil {
			return err
		}
	}
	if total > MaxChecks {
		return refuse(Invalid, "config.checks", "%d health checks are too many: expected at most %d, those of the services included", total, MaxChecks)
	}
	return nil
}
