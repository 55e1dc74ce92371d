package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine's cgroup has two leaves: kill and freeze touch only the payload,
// never the supervisor.
const (
	payloadLeaf    = "payload"
	supervisorLeaf = "supervisor"
)

// cgroupPollTimeout bounds one wait for an event, so that a cancelled context
// is noticed.
const cgroupPollTimeout = 50 * time.Millisecond

// cgroupMount finds where cgroup2 is mounted. On a host with both versions that
// is not /sys/fs/cgroup itself.
func cgroupMount() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	// id parent major:minor root mountpoint options optional… - type source options
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		mount, filesystem, ok := strings.Cut(scanner.Text(), " - ")
		if !ok || !strings.HasPrefix(filesystem, "cgroup2 ") {
			continue
		}
		fields := strings.Fields(mount)
		if len(fields) < 5 {
			continue
		}
		return unescapeMount(fields[4]), nil
	}
	if err := scanner.Err(); err != nil {
		return "", err
	}
	return "", errors.New("no cgroup2 file system is mounted: mount one with \"mount -t cgroup2 none /sys/fs/cgroup\"")
}

// unescapeMount decodes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	for _, pair := range [][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, pair[0], pair[1])
	}
	return s
}

// ownCgroup is the directory of the cgroup that this process is in.
func ownCgroup() (string, error) {
	mount, err := cgroupMount()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(mount, path), nil
		}
	}
	return "", errors.New("this process is in no cgroup of version 2: /proc/self/cgroup has no line that begins with 0::")
}

// cgroup is the directory of one Machine's cgroup.
type cgroup string

func (c cgroup) leaf(name string) string { return filepath.Join(string(c), name) }

// create makes the cgroup and its leaves; what is there already stays.
func (c cgroup) create() error {
	for _, leaf := range []string{payloadLeaf, supervisorLeaf} {
		if err := os.MkdirAll(c.leaf(leaf), 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
	}
	return nil
}

// killPayload ends every process of the payload, frozen ones too.
func (c cgroup) killPayload() error { return kill(c.leaf(payloadLeaf)) }

// killAll ends the supervisor too.
func (c cgroup) killAll() error { return kill(string(c)) }

func kill(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if gone(err) {
		return nil
	}
	return err
}

// freeze stops or continues every process of the payload and waits until that
// is done.
func (c cgroup) freeze(ctx context.Context, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	leaf := c.leaf(payloadLeaf)
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.freeze"), []byte(value), 0); err != nil {
		return err
	}
	return waitEvent(ctx, leaf, "frozen", value)
}

// frozen says what freeze asked for last.
func (c cgroup) frozen() bool {
	b, err := os.ReadFile(filepath.Join(c.leaf(payloadLeaf), "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// remove waits until the cgroup is empty, then removes it. It is no error if
// there is none.
func (c cgroup) remove(ctx context.Context) error {
	if err := waitEvent(ctx, string(c), "populated", "0"); err != nil {
		return err
	}
	for _, dir := range []string{c.leaf(payloadLeaf), c.leaf(supervisorLeaf), string(c)} {
		if err := removeCgroup(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes one directory. "populated 0" can come a moment before
// the last dead process has left, so EBUSY is tried again.
func removeCgroup(ctx context.Context, dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || gone(err):
			return nil
		case !errors.Is(err, syscall.EBUSY):
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w%s", dir, ctx.Err(), occupants(dir))
		case <-time.After(time.Millisecond):
		}
	}
}

// occupants says what keeps a cgroup from being removed, for an error.
func occupants(dir string) string {
	processes, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	switch {
	case len(processes) > 0:
		return ": processes in it that are no Machine's: " + strings.Join(strings.Fields(string(processes)), ", ") + "; end them or move them elsewhere"
	case len(below) > 0:
		return ": there is a cgroup in it that is no Machine's: " + filepath.Dir(below[0]) + "; remove it"
	}
	return ""
}

// waitEvent returns when a key of cgroup.events has a value, or when the cgroup
// is gone.
func waitEvent(ctx context.Context, dir, key, value string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := f.ReadAt(buffer, 0)
		if n == 0 && gone(err) {
			return nil
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == key+" "+value {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %q to be %s in cgroup %s: %w", key, value, dir, ctx.Err())
		}
		// The kernel raises POLLPRI on every change of this file.
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		_, err = unix.Poll(poll, int(cgroupPollTimeout.Milliseconds()))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
}

// processes lists the process ids in one leaf, as this process sees them. They
// are for people and tests: a number may belong to someone else a moment later.
func (c cgroup) processes(leaf string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(c.leaf(leaf), "cgroup.procs"))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, field := range strings.Fields(string(b)) {
		id, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// gone tells the errors of a cgroup that was removed meanwhile.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
