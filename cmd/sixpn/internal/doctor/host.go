package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/loader"
)

// Kernel that has tcx, the newest of what the router needs.
const wantMajor, wantMinor = 6, 6

func (c *Config) read(parts ...string) (string, error) {
	text, err := os.ReadFile(c.path(parts...))
	return strings.TrimSpace(string(text)), err
}

func (c *Config) kernel() []Finding {
	const check = "kernel"
	remedy := fmt.Sprintf("boot Linux %d.%d or later", wantMajor, wantMinor)
	release, err := c.read("proc/sys/kernel/osrelease")
	if err != nil {
		return []Finding{fail(check, remedy, "its version cannot be read: %v", err)}
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return []Finding{fail(check, remedy, "its version %q cannot be read: %v", release, err)}
	}
	// A distribution may have what the router needs in an older one: ask it, if we may.
	if c.root() && c.Root == "/" {
		err := loader.Probe()
		if errors.Is(err, loader.ErrKernel) {
			return []Finding{fail(check, remedy, "Linux %s has no tcx: %v", release, err)}
		}
		if err != nil {
			return []Finding{fail(check, "give this process CAP_BPF and CAP_NET_ADMIN", "Linux %s does not say what it can: %v", release, err)}
		}
		return []Finding{ok(check, "Linux %s, with tcx", release)}
	}
	if major < wantMajor || major == wantMajor && minor < wantMinor {
		return []Finding{fail(check, remedy, "Linux %s is older than %d.%d", release, wantMajor, wantMinor)}
	}
	return []Finding{ok(check, "Linux %s", release)}
}

func (c *Config) types() []Finding {
	const check = "btf"
	if _, err := os.Stat(c.path("sys/kernel/btf/vmlinux")); err != nil {
		return []Finding{fail(check, "boot a kernel that is built with CONFIG_DEBUG_INFO_BTF=y", "the kernel's types are missing: %v", err)}
	}
	return []Finding{ok(check, "the kernel has its types")}
}

func (c *Config) bpffs() []Finding {
	const check = "bpffs"
	dir := existing(c.PinDir)
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return []Finding{fail(check, "give a directory of a bpf file system with --pin-dir", "%s: %v", dir, err)}
	}
	if uint32(stat.Type) != unix.BPF_FS_MAGIC {
		return []Finding{fail(check, "mount -t bpf bpf /sys/fs/bpf", "%s is on no bpf file system", c.PinDir)}
	}
	return []Finding{ok(check, "%s is on a bpf file system", c.PinDir)}
}

func (c *Config) cgroups() []Finding {
	const check = "cgroups"
	mounts, err := c.read("proc/self/mountinfo")
	if err != nil {
		return []Finding{fail(check, "mount -t proc proc /proc", "the mounts cannot be read: %v", err)}
	}
	mount := cgroup2(mounts)
	if mount == "" {
		return []Finding{fail(check, "mount -t cgroup2 none /sys/fs/cgroup", "no cgroup2 file system is mounted")}
	}
	// The root has no such file: any cgroup below it will do.
	entries, err := os.ReadDir(c.path(mount))
	if err != nil {
		return []Finding{fail(check, "mount -t cgroup2 none /sys/fs/cgroup", "%s: %v", mount, err)}
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if _, err := os.Stat(c.path(mount, entry.Name(), "cgroup.freeze")); err == nil {
			return []Finding{ok(check, "cgroup2 on %s, with the freezer", mount)}
		}
	}
	return []Finding{warn(check, "boot Linux 5.2 or later, or make any cgroup and look again", "cgroup2 on %s, where no freezer is seen: Machines cannot be suspended", mount)}
}

// cgroup2 finds the mount point in mountinfo (proc_pid_mountinfo(5)).
func cgroup2(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		mount, filesystem, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); ok && strings.HasPrefix(filesystem, "cgroup2 ") && len(fields) > 4 {
			return fields[4]
		}
	}
	return ""
}

func (c *Config) userNamespaces() []Finding {
	const check = "user namespaces"
	text, err := c.read("proc/sys/user/max_user_namespaces")
	limit, parseErr := strconv.Atoi(text)
	switch {
	case err != nil, parseErr != nil:
		return []Finding{fail(check, "boot a kernel that is built with CONFIG_USER_NS=y", "there are none: %v", errors.Join(err, parseErr))}
	case limit == 0:
		return []Finding{fail(check, "sysctl -w user.max_user_namespaces=65536", "user.max_user_namespaces is 0, so no Machine can be made")}
	}
	return []Finding{ok(check, "up to %d", limit)}
}

// sysctls looks at settings of the kernel that the router feels.
func (c *Config) sysctls() []Finding {
	const check = "sysctls"
	var findings []Finding
	if _, err := os.Stat(c.path("proc/sys/net/ipv6")); err != nil {
		findings = append(findings, fail(check, "boot without ipv6.disable=1", "the kernel has no IPv6: %v", err))
	}
	// Absent in a network namespace other than the first, and where it cannot be set.
	if jit, err := c.read("proc/sys/net/core/bpf_jit_enable"); err == nil && jit == "0" {
		findings = append(findings, warn(check, "sysctl -w net.core.bpf_jit_enable=1", "net.core.bpf_jit_enable is 0: the router is interpreted, and slow"))
	}
	if harden, err := c.read("proc/sys/net/core/bpf_jit_harden"); err == nil && harden == "2" {
		findings = append(findings, warn(check, "sysctl -w net.core.bpf_jit_harden=1", "net.core.bpf_jit_harden is 2: the router is slower than it could be"))
	}
	if len(findings) == 0 {
		findings = append(findings, ok(check, "as they should be"))
	}
	return findings
}

// Free space of the state directory. The store needs room for a log of some 64 MiB
// and for a copy of itself.
const (
	leastSpace = 256 << 20
	goodSpace  = 1 << 30
)

func (c *Config) space() []Finding {
	const check = "disk"
	dir := existing(c.StateDir)
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return []Finding{warn(check, useSudo, "%s: %v", dir, err)}
	}
	free := stat.Bavail * uint64(stat.Bsize)
	if !c.root() {
		free = min(free, stat.Bfree*uint64(stat.Bsize))
	}
	remedy := fmt.Sprintf("make room on the file system of %s, or use another with --state-dir", dir)
	switch {
	case free < leastSpace:
		return []Finding{fail(check, remedy, "%d MiB are free for %s: the store stops when it is full", free>>20, c.StateDir)}
	case free < goodSpace:
		return []Finding{warn(check, remedy, "%d MiB are free for %s", free>>20, c.StateDir)}
	}
	return []Finding{ok(check, "%d MiB are free for %s", free>>20, c.StateDir)}
}

// released is before any clock that is right.
var released = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *Config) clock() []Finding {
	const check, remedy = "clock", "run a time service, such as chrony or systemd-timesyncd"
	now := time.Now()
	if now.Before(released) {
		return []Finding{fail(check, remedy, "it says %s, which cannot be", now.Format(time.RFC3339))}
	}
	var state unix.Timex
	word, err := unix.Adjtimex(&state)
	if err != nil {
		return []Finding{warn(check, remedy, "whether it is right cannot be asked: %v", err)}
	}
	if word == unix.TIME_ERROR || state.Status&unix.STA_UNSYNC != 0 {
		return []Finding{warn(check, remedy, "%s, set by nobody: times of events and leases may jump", now.Format(time.RFC3339))}
	}
	return []Finding{ok(check, "%s, kept right", now.Format(time.RFC3339))}
}
