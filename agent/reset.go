package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/wireguard"
)

// resetTimeout is how long a reset after an agent's end may take.
const resetTimeout = time.Minute

// Reset stops the Machines of an agent that does not run any more and removes all
// that it made in the kernel and the run directory. The state directory stays, for
// a later agent, unless withState says otherwise. It says what it removed, also
// when it fails half-way, and may be called again.
func Reset(ctx context.Context, c Config, withState bool) (removed []string, err error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := needRoot(); err != nil {
		return nil, err
	}
	// Even without a state directory there can be something to remove, and then the
	// lock has to be somewhere: until the end.
	if unmake, err := makeDirectories(c.StateDir); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	} else if unmake != nil {
		withState = false
		defer unmake()
	}
	lock, err := loader.Lock(c.StateDir)
	if err != nil {
		return nil, fmt.Errorf("reset agent %q: %w", c.Name, err)
	}
	defer lock.Close()
	if removed, err = reset(ctx, c); err != nil || !withState {
		return removed, err
	}
	if err := os.RemoveAll(c.StateDir); err != nil {
		return removed, fmt.Errorf("remove the state: %w", err)
	}
	return append(removed, "state directory "+c.StateDir), nil
}

// makeDirectories is os.MkdirAll for a state directory that may be missing. unmake
// takes away what was made and all that is in it; nil if nothing was.
func makeDirectories(dir string) (unmake func(), err error) {
	var first string // of those that are missing
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
			break
		}
		first = at
	}
	if err := os.MkdirAll(dir, 0o700); err != nil || first == "" {
		return nil, err
	}
	return func() { _ = os.RemoveAll(first) }, nil
}

// reset is Reset under the lock that its caller holds.
func reset(ctx context.Context, c Config) (removed []string, err error) {
	for _, step := range []struct {
		name string
		do   func() ([]string, error)
	}{
		// The Machines first, while their networks still work.
		{"machines", func() ([]string, error) { return resetMachines(ctx, c) }},
		// Whose they are is known by the router.
		{"routes to other hosts", func() ([]string, error) { return removeRoutes(c.Name) }},
		{"router", func() ([]string, error) { return loader.Reset(ctx, c.router()) }},
		{"mesh", func() ([]string, error) { return wireguard.Reset(ctx, c.mesh()) }},
		{"private namespace", func() ([]string, error) { return netns.DeletePrivate(c.private()) }},
		{"route", openPrivateRange},
		{"devices", func() ([]string, error) { return resetDevices(c) }},
		{"run directory", func() ([]string, error) { return resetRunDir(c) }},
	} {
		more, err := step.do()
		removed = append(removed, more...)
		if err != nil {
			return removed, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return removed, nil
}

func resetMachines(ctx context.Context, c Config) ([]string, error) {
	driver, err := machine.NewDriver(c.driver())
	if err != nil {
		return nil, err
	}
	return driver.Reset(ctx, c.Timeouts.Stop)
}

func resetDevices(c Config) (removed []string, err error) {
	devices, err := machineDevices(c.Name)
	if err != nil {
		return nil, err
	}
	for id, device := range devices {
		if err := machine.DeleteVeth(id); err != nil {
			return removed, err
		}
		removed = append(removed, "device "+device.Name)
	}
	slices.Sort(removed)
	return removed, nil
}

// resetRunDir removes this agent's files, and directories that are empty then.
func resetRunDir(c Config) (removed []string, err error) {
	err = os.Remove(c.socket())
	switch {
	case err == nil:
		removed = append(removed, "socket "+c.socket())
	case !errors.Is(err, os.ErrNotExist):
		return removed, err
	}
	if err := removeMountPoint(c.netnsDir()); err != nil {
		return removed, err
	}
	// These stay if another agent has something in them.
	for _, dir := range []string{filepath.Dir(c.machineRun()), c.netnsDir(), c.RunDir} {
		_ = os.Remove(dir)
	}
	return removed, nil
}

// removeMountPoint takes away the mount that the directory of namespaces is, when
// no agent has a namespace there any more.
func removeMountPoint(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) { // it is no mount point, or not any more
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}
