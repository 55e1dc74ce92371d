package wireguard

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
)

// Reset removes the engine, its socket and its cgroup, and the device, from the
// network namespace of the calling thread, and says what it removed. It needs
// Config.Name, and Cgroup where Open had one. What is in Dir stays: it is the
// host's identity in the mesh. Another's device of that name stays, too. The
// loader must have let go of the device before.
func Reset(ctx context.Context, c Config) (removed []string, err error) {
	if c.Name == "" {
		return nil, errors.New("a mesh is reset by the agent's name")
	}
	setDefault(&c.StartTimeout, startTimeout)
	home, err := netns.Current()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	device := DeviceName(c.Name)
	running, err := findEngine(device, home)
	switch {
	case err == nil:
		defer running.close()
		if err := running.kill(ctx); err != nil {
			return nil, err
		}
		removed = append(removed, fmt.Sprintf("the mesh's engine, process %d", running.pid))
	case !errors.Is(err, errNoEngine):
		return nil, err
	}
	// A killed engine leaves its socket, one that ended by itself does not.
	err = os.Remove(socketPath(device))
	if err == nil {
		removed = append(removed, "socket "+socketPath(device))
	} else if !errors.Is(err, os.ErrNotExist) {
		return removed, err
	}
	what, err := removeDevice(home, c.Name)
	removed = append(removed, what...)
	if err != nil || c.Cgroup == "" {
		return removed, err
	}
	what, err = removeCgroup(ctx, c)
	return append(removed, what...), err
}

// removeDevice leaves one that is not the agent's.
func removeDevice(home *netns.Namespace, name string) (removed []string, err error) {
	err = home.Do(func() error {
		link, err := netlink.LinkByName(DeviceName(name))
		if errors.As(err, &netlink.LinkNotFoundError{}) || err == nil && !isOurs(link, name) {
			return nil
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove device %s: %w", DeviceName(name), err)
		}
		removed = append(removed, "device "+DeviceName(name))
		return nil
	})
	return removed, err
}

// removeCgroup tries again while the dead engine has not quite left it.
func removeCgroup(ctx context.Context, c Config) (removed []string, err error) {
	for {
		err := unix.Rmdir(c.Cgroup)
		switch {
		case err == nil:
			return []string{"cgroup " + c.Cgroup}, nil
		case errors.Is(err, unix.ENOENT):
			return nil, nil
		case !errors.Is(err, unix.EBUSY) || !pause(ctx, pollTimeout):
			return nil, &os.PathError{Op: "rmdir", Path: c.Cgroup, Err: err}
		}
	}
}
