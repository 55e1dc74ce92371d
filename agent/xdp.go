package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// keepXDP takes ports from XDP whose devices have ceased to take its frames. Who is inside
// a Machine can bring that about at any time, and would lose what other hosts send to it:
// by switching generic receive offload off, which the kernel tells of; or while its device
// is down, of which the kernel says nothing, so that one whose carrier went counts as such.
//
// A port that was taken from XDP has its packets by tcx until it is set anew. So whoever
// goes back and forth costs this host one pass over the tables, and its neighbours nothing.
func (a *agent) keepXDP(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for what, hear := range map[string]func(context.Context) error{
		"XDP features": func(ctx context.Context) error { return a.loader.WatchXDP(ctx, a.lookAtXDP) },
		"carriers":     a.hearCarriers,
	} {
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := hear(ctx); err != nil {
					a.log.Debug("changes of devices cannot be heard", "of", what, "error", err)
				}
				select {
				case <-time.After(meshRetry):
				case <-ctx.Done():
				}
			}
			return nil
		})
	}
	group.Go(func() error { // for what was not heard
		ticker := time.NewTicker(a.config.Timeouts.Repair)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				a.lookAtXDP(0)
			}
		}
	})
	return group.Wait()
}

// lookAtXDP asks the kernel of a device that gets frames of XDP, or of each, 0, whether it
// takes them.
func (a *agent) lookAtXDP(ifindex uint32) {
	for _, device := range a.loop.XDPDevices() {
		if ifindex != 0 && ifindex != device {
			continue
		}
		if takes, err := a.loader.TakesXDP(device); err == nil && !takes {
			a.leaveXDP(device, "its other end has no queue for them: generic receive offload is off inside")
		}
	}
}

func (a *agent) leaveXDP(ifindex uint32, why string) {
	if a.loop.LeaveXDP(ifindex) {
		a.log.Info("a machine's device takes no frames of XDP any more: what other hosts send to it goes by tcx, until the machine starts again", "ifindex", ifindex, "why", why)
	}
}

// hearCarriers takes ports from XDP whose devices lose their carrier: the other end was
// down. It returns when the kernel sent more than was read.
func (a *agent) hearCarriers(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	links := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, ListExisting: true, // the channel is closed then
	}); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	defer drain(links)
	carrier := map[uint32]bool{} // devices that had one: before its first a device has lost none
	for {
		select {
		case link, ok := <-links:
			if !ok {
				return nil
			}
			ifindex := uint32(link.Attrs().Index)
			flags := link.Attrs().RawFlags
			has := flags&unix.IFF_LOWER_UP != 0 && link.Header.Type != unix.RTM_DELLINK
			if !has && flags&unix.IFF_UP != 0 && carrier[ifindex] {
				a.leaveXDP(ifindex, "its other end was set down")
			}
			if carrier[ifindex] = has; !has {
				delete(carrier, ifindex)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
