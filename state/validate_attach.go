package state

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
)

// maxPid is the highest process id that the kernel gives out (PID_MAX_LIMIT).
const maxPid = 1 << 22

// deviceName is what the kernel takes as one; it refuses "." and ".." too.
var deviceName = regexp.MustCompile(`^[^\s/:\x00]{1,15}$`)

// validateAttach checks a Machine that something else runs: what it is, and that
// nothing is asked of it that only who runs it could do.
func validateAttach(c MachineConfig) error {
	a := c.Attach
	if a == nil {
		return nil
	}
	const field = "config.attach"
	set := 0
	for _, given := range []bool{a.Device != "", a.NetNS != "", a.Pid != 0} {
		if given {
			set++
		}
	}
	if set != 1 {
		return refuse(Invalid, field, "%d of device, netns and pid are given: expected exactly one", set)
	}
	if d := a.Device; d != "" && (!deviceName.MatchString(d) || d == "." || d == ".." || d == "lo") {
		return refuse(Invalid, field+".device", "%.40q is not the name of a tap or a veth: expected one of those that `ip link` shows", d)
	}
	if p := a.NetNS; p != "" && (!filepath.IsAbs(p) || filepath.Clean(p) != p || len(p) > 4095 || strings.ContainsRune(p, 0)) {
		return refuse(Invalid, field+".netns", "%.80q is not a plain absolute path: expected one such as %q", p, "/run/netns/blue")
	}
	if a.Pid < 0 || a.Pid > maxPid {
		return refuse(Invalid, field+".pid", "%d is not a process: expected 1 to %d", a.Pid, maxPid)
	}
	if err := validateGuestMAC(*a); err != nil {
		return err
	}
	return validateElsewhere(c)
}

func validateGuestMAC(a Attach) error {
	const field = "config.attach.mac"
	if a.MAC == "" {
		return nil
	}
	if a.Device == "" {
		return refuse(Invalid, field, "the device in a network namespace gets its hardware address here: leave it out")
	}
	mac, err := net.ParseMAC(a.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return refuse(Invalid, field, "%.40q is not the hardware address of one device: expected six bytes such as %q", a.MAC, "52:54:00:12:34:56")
	}
	return nil
}

// validateElsewhere refuses what the process of a Machine would be told.
func validateElsewhere(c MachineConfig) error {
	for _, row := range []struct {
		field string
		given bool
	}{
		{"config.init.exec", len(c.Init.Exec) > 0},
		{"config.env", len(c.Env) > 0},
		{"config.workdir", c.WorkDir != ""},
		{"config.restart.policy", c.Restart.Policy != "" && c.Restart.Policy != "no"},
		{"config.restart.max_retries", c.Restart.MaxRetries != 0},
		{"config.stop_config", c.StopConfig != StopConfig{}},
		{"config.dns.nameservers", len(c.DNS.Nameservers) > 0},
		{"config.dns.searches", len(c.DNS.Searches) > 0},
		{"config.dns.options", len(c.DNS.Options) > 0},
		{"config.dns.hostname", c.DNS.Hostname != ""},
	} {
		if row.given {
			return refuse(Invalid, row.field, "an attached Machine has no process here that could heed it: leave it out")
		}
	}
	return nil
}
