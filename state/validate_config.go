package state

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Limits of a Machine's configuration. A record stays far below what etcd takes in
// one request, 1.5 MiB.
const (
	MinMTU = 1280 // of IPv6
	MaxMTU = 9000

	MaxServices        = 64 // of a Machine
	MaxServicePorts    = 64 // entries of one service
	MaxArguments       = 1024
	MaxArgumentBytes   = 64 << 10 // of all together
	MaxVariables       = 256
	MaxVariableBytes   = 64 << 10
	MaxMetadata        = 64
	MaxMetadataKey     = 64
	MaxMetadataValue   = 1024
	MaxRestartRetries  = 1_000_000
	MaxStopTimeout     = 24 * time.Hour
	MaxConcurrentFlows = 1 << 18 // the size of the flow table
	MaxConfigBytes     = 1 << 20 // of all together, as JSON
	MaxCheckOutput     = 1024    // of CheckStatus.Output
	MaxImageBytes      = 512
	MaxGuestCPUs       = 1024
	MaxGuestMemory     = 1 << 24 // MiB
)

// ValidateMachineConfig checks everything that can be said of a configuration by
// itself. Field is a path from "config" on.
func ValidateMachineConfig(c MachineConfig) error {
	for _, check := range []func(MachineConfig) error{
		validateExec, validateEnvironment, validateMetadata, validateRestart, validateStop, validateMisc,
		validateAttach, validateDNS, validateKept, validateChecks,
	} {
		if err := check(c); err != nil {
			return err
		}
	}
	if err := ValidateServices(c.Services); err != nil {
		return err
	}
	// Each part is within its limits, and still all of them may be too much for a record.
	encoded, err := json.Marshal(c)
	if err != nil {
		return refuse(Invalid, "config", "it cannot be kept (%v)", err)
	}
	if len(encoded) > MaxConfigBytes {
		return refuse(Invalid, "config", "it is %d bytes long as JSON: expected at most %d; put long values in files", len(encoded), MaxConfigBytes)
	}
	return nil
}

func validateExec(c MachineConfig) error {
	const field = "config.init.exec"
	exec := c.Init.Exec
	if c.Attach != nil {
		return nil // validateAttach says that there must be none
	}
	if len(exec) == 0 || exec[0] == "" {
		return refuse(Invalid, field, "there is no command: give the one that the Machine shall run, after --")
	}
	if len(exec) > MaxArguments {
		return refuse(Invalid, field, "%d arguments are too many: expected at most %d", len(exec), MaxArguments)
	}
	size := 0
	for i, argument := range exec {
		size += len(argument)
		if err := validateText(fmt.Sprintf("%s[%d]", field, i), argument); err != nil {
			return err
		}
	}
	if size > MaxArgumentBytes {
		return refuse(Invalid, field, "the command is %d bytes long: expected at most %d; put long values in a file", size, MaxArgumentBytes)
	}
	return nil
}

// validateText refuses what execve and JSON cannot carry.
func validateText(field, s string) error {
	if strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
		return refuse(Invalid, field, "%.40q is not UTF-8 text without NUL: encode it, in base64 for instance", s)
	}
	return nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func validateEnvironment(c MachineConfig) error {
	if len(c.Env) > MaxVariables {
		return refuse(Invalid, "config.env", "%d variables are too many: expected at most %d", len(c.Env), MaxVariables)
	}
	size := 0
	for name, value := range c.Env {
		size += len(name) + len(value)
		if !variable.MatchString(name) {
			return refuse(Invalid, "config.env", "%.80q is not a name of a variable: expected letters, digits and '_', not beginning with a digit", name)
		}
		if err := validateText("config.env."+name, value); err != nil {
			return err
		}
	}
	if size > MaxVariableBytes {
		return refuse(Invalid, "config.env", "the variables are %d bytes long: expected at most %d; put long values in a file", size, MaxVariableBytes)
	}
	return nil
}

var metadataKey = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

func validateMetadata(c MachineConfig) error {
	if len(c.Metadata) > MaxMetadata {
		return refuse(Invalid, "config.metadata", "%d entries are too many: expected at most %d", len(c.Metadata), MaxMetadata)
	}
	for key, value := range c.Metadata {
		if len(key) > MaxMetadataKey || !metadataKey.MatchString(key) {
			return refuse(Invalid, "config.metadata", "%.80q is not a key: expected 1 to %d letters, digits, '_', '-' and '.'", key, MaxMetadataKey)
		}
		field := "config.metadata." + key
		if len(value) > MaxMetadataValue || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return refuse(Invalid, field, "%.40q is not a value: expected at most %d bytes of printable text", value, MaxMetadataValue)
		}
		// It is a label of <group>.process.<app>.internal.
		if slices.Contains(processGroupKeys, key) && value != "" && !processGroup.MatchString(value) {
			return refuse(Invalid, field, "%.80q is not a process group: expected 1 to 63 letters, digits, '_' and '-'", value)
		}
	}
	return nil
}

var processGroup = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)

var restartPolicies = []string{"no", "on-failure", "always"}

func validateRestart(c MachineConfig) error {
	if p := c.Restart.Policy; p != "" && !slices.Contains(restartPolicies, p) {
		return refuse(Invalid, "config.restart.policy", "%.40q is not a restart policy: expected one of %q", p, restartPolicies)
	}
	if n := c.Restart.MaxRetries; n < 0 || n > MaxRestartRetries {
		return refuse(Invalid, "config.restart.max_retries", "%d is out of range: expected 0 (no limit) to %d", n, MaxRestartRetries)
	}
	return nil
}

func validateStop(c MachineConfig) error {
	if s := c.StopConfig.Signal; s != "" && unix.SignalNum(s) == 0 {
		return refuse(Invalid, "config.stop_config.signal", "%.40q is not a signal: expected a name such as %q or %q", s, "SIGTERM", "SIGINT")
	}
	if t := c.StopConfig.Timeout; t < 0 || t > MaxStopTimeout {
		return refuse(Invalid, "config.stop_config.timeout", "%v is out of range: expected 0 (the default) to %v", t, MaxStopTimeout)
	}
	return nil
}

func validateMisc(c MachineConfig) error {
	if c.MTU != 0 && (c.MTU < MinMTU || c.MTU > MaxMTU) {
		return refuse(Invalid, "config.mtu", "%d is out of range: expected %d to %d, or 0 for the host's default", c.MTU, MinMTU, MaxMTU)
	}
	if d := c.WorkDir; d != "" && (!path.IsAbs(d) || path.Clean(d) != d || validateText("", d) != nil) {
		return refuse(Invalid, "config.workdir", "%.80q is not a directory of the Machine: expected an absolute path without '.', '..' or a '/' at its end", d)
	}
	return nil
}

var cpuKind = regexp.MustCompile(`^[a-z0-9_-]{0,32}$`)

// validateKept checks what has no meaning here and is kept for clients.
func validateKept(c MachineConfig) error {
	if s := c.Image; len(s) > MaxImageBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return refuse(Invalid, "config.image", "%.80q is not the name of an image: expected at most %d bytes without spaces", s, MaxImageBytes)
	}
	g := c.Guest
	switch {
	case g == nil:
	case !cpuKind.MatchString(g.CPUKind):
		return refuse(Invalid, "config.guest.cpu_kind", "%.40q is not a kind of CPU: expected one such as %q", g.CPUKind, "shared")
	case g.CPUs < 0 || g.CPUs > MaxGuestCPUs:
		return refuse(Invalid, "config.guest.cpus", "%d is out of range: expected 0 to %d", g.CPUs, MaxGuestCPUs)
	case g.MemoryMB < 0 || g.MemoryMB > MaxGuestMemory:
		return refuse(Invalid, "config.guest.memory_mb", "%d is out of range: expected 0 to %d", g.MemoryMB, MaxGuestMemory)
	}
	return nil
}
