package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/netns"
)

// Reset removes everything of this agent's name from the kernel: each device is
// set down before it loses its router, and none is raised. It needs no Loader,
// and says what it removed, also when it fails half-way.
func Reset(ctx context.Context, config Config) (removed []string, err error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	l := &Loader{config: config}
	err = l.in(func() error {
		devices, err := netns.Whole(netlink.LinkList)
		if err != nil {
			return fmt.Errorf("list devices: %w", err)
		}
		for _, device := range devices {
			if err := ctx.Err(); err != nil {
				return err
			}
			found, err := l.resetDevice(device)
			if err != nil && !isNoDevice(err) {
				return fmt.Errorf("reset device %s: %w", device.Attrs().Name, err)
			}
			if found {
				removed = append(removed, "router and drop filter of device "+device.Attrs().Name)
			}
		}
		return nil
	})
	if err != nil {
		return removed, err
	}
	links, err := l.resetLinks()
	removed = append(removed, links...)
	if err != nil {
		return removed, err
	}
	if _, err := os.Stat(config.PinRoot); errors.Is(err, os.ErrNotExist) {
		return removed, nil
	}
	if err := os.RemoveAll(config.PinRoot); err != nil {
		return removed, fmt.Errorf("remove pins: %w", err)
	}
	_ = os.Remove(filepath.Dir(config.PinRoot)) // stays if other agents' pins are in it
	return append(removed, "pins below "+config.PinRoot), nil
}

func (l *Loader) resetDevice(device netlink.Link) (found bool, err error) {
	xdp, err := l.detachXDP(device)
	if err != nil {
		return false, err
	}
	own, err := l.ownLink(uint32(device.Attrs().Index))
	if errors.Is(err, ErrForeign) {
		return xdp, nil
	}
	if err != nil {
		return xdp, err
	}
	filter, agent, err := filterOf(device)
	if err != nil {
		return xdp, err
	}
	if own.id == 0 && (filter == nil || agent != l.config.Name) {
		return xdp, nil
	}
	return true, closeDown(device, own, l.config.Name, l.config.step)
}

// resetLinks detaches what is pinned and was not met: devices that moved to
// another namespace keep their drop filter, and are closed.
func (l *Loader) resetLinks() (removed []string, err error) {
	dir := filepath.Join(l.config.PinRoot, linksDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pinned links: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		x, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return removed, fmt.Errorf("open %s: %w", path, err)
		}
		ifindex, here, err := l.device(x)
		if err == nil && ifindex != 0 && !here {
			l.config.Log.Warn("a device of this agent is in another network namespace: it loses its router and stays closed", "pin", path)
			removed = append(removed, "router of a device in another namespace")
			err = x.Detach()
		}
		_ = x.Close()
		if err != nil && !isNoDevice(err) {
			return removed, fmt.Errorf("detach %s: %w", path, err)
		}
	}
	return removed, nil
}
