package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// setup makes the inside of a Machine out of fresh namespaces: host name,
// loopback, mounts, settings of the network. It runs as init, root of the
// Machine's user namespace.
func setup(spec Spec) error {
	// The agent's would be inherited; here, the modes below are meant as they are.
	unix.Umask(0)
	defer unix.Umask(0o022)
	steps := []struct {
		what string
		do   func() error
	}{
		{"set the host name", func() error { return unix.Sethostname([]byte(spec.Hostname)) }},
		{"raise lo", loopbackUp},
		{"make the mounts private", makePrivate},
		{"mount the private directories", mountDirectories},
		{"mount /dev", mountDevices},
		{"mount over /etc/hosts", func() error { return coverFile("/etc/hosts", spec.Hosts) }},
		{"mount over /etc/resolv.conf", func() error { return coverFile("/etc/resolv.conf", spec.ResolvConf) }},
		{"set the network's settings", networkSettings},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return os.Chdir("/")
}

// makePrivate lets nothing that is mounted here be seen outside, and makes all
// that comes from the host read-only: being nobody keeps root from the host's
// own files, this from the directories that everybody may write to. What the
// host unmounts still goes away here, so no Machine keeps a disk busy.
func makePrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

const hardened = unix.MS_NOSUID | unix.MS_NODEV

func mountDirectories() error {
	mounts := []struct {
		target, filesystem string
		flags              uintptr
		data               string
	}{
		{"/proc", "proc", hardened | unix.MS_NOEXEC, ""},
		{"/sys", "sysfs", hardened | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
		{"/run", "tmpfs", hardened, "mode=755"},
		{"/tmp", "tmpfs", hardened, "mode=1777"},
		{"/var/tmp", "tmpfs", hardened, "mode=1777"},
	}
	for _, m := range mounts {
		err := unix.Mount(m.filesystem, m.target, m.filesystem, m.flags, m.data)
		if errors.Is(err, unix.EPERM) && (m.filesystem == "proc" || m.filesystem == "sysfs") {
			// The kernel allows a fresh one only where the host's is all visible.
			return fmt.Errorf("%s: %w: parts of the host's %s are covered, as in an unprivileged container; run the agent where they are not", m.target, err, m.target)
		}
		if err != nil && !(errors.Is(err, unix.ENOENT) && m.target == "/var/tmp") {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	return os.MkdirAll("/run/lock", 0o777|os.ModeSticky)
}

// mountDevices puts the few harmless devices of the host into a /dev of its own.
func mountDevices() error {
	// Built aside, as the host's /dev is needed until the end.
	const aside = "/tmp/dev"
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", aside, "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		target := filepath.Join(aside, name)
		if err := os.WriteFile(target, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
	}
	for _, m := range []struct {
		name, filesystem string
		flags            uintptr
		data             string
	}{
		{"pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
		{"shm", "tmpfs", hardened | unix.MS_NOEXEC, "mode=1777"},
		{"mqueue", "mqueue", hardened | unix.MS_NOEXEC, ""},
	} {
		target := filepath.Join(aside, m.name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.filesystem, target, m.filesystem, m.flags, m.data)
		if errors.Is(err, unix.ENODEV) && m.filesystem == "mqueue" {
			continue // a kernel without POSIX message queues
		}
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", m.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(aside, name)); err != nil {
			return err
		}
	}
	if err := unix.Mount(aside, "/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move to /dev: %w", err)
	}
	return os.Remove(aside)
}

// coverFile makes path read as content without touching the host's file.
func coverFile(path, content string) error {
	if content == "" {
		return nil
	}
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		// Often a link into /run, which is private and empty here.
		target, err = coveredLink(path)
	}
	if err != nil {
		return err
	}
	source := "/run/." + filepath.Base(path)
	if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return os.Remove(source)
}

// coveredLink creates the file that a link into /run leads to.
func coveredLink(path string) (string, error) {
	link, err := os.Readlink(path)
	if err != nil {
		return "", fmt.Errorf("the host has no %s to mount over: create an empty one (%w)", path, err)
	}
	if !filepath.IsAbs(link) {
		link = filepath.Join(filepath.Dir(path), link)
	}
	if rest, ok := strings.CutPrefix(link, "/var/run/"); ok {
		link = "/run/" + rest
	}
	if !strings.HasPrefix(link, "/run/") {
		return "", fmt.Errorf("%s is a link to %s, which does not exist: create an empty file there", path, link)
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return "", err
	}
	return link, os.WriteFile(link, nil, 0o644)
}

// networkSettings lets every user inside ping and serve any port: the namespace
// is the Machine's alone.
func networkSettings() error {
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ping_group_range":           "0 65535",
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}
