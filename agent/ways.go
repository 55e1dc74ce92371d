package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// waysPause is how long changes of the host's routes are gathered: a routing protocol may
// make a great many in a row.
const waysPause = 200 * time.Millisecond

// watchWays tells when the uplink has changed, or a route by which another host may be
// reached. What cannot be heard of is seen by the look that is taken from time to time.
func (a *agent) watchWays(ctx context.Context, moved chan<- struct{}) {
	for ctx.Err() == nil {
		if err := a.hearWays(ctx, moved); err != nil {
			a.log.Debug("changes of routes cannot be heard", "error", err)
		}
		select {
		case <-time.After(meshRetry):
		case <-ctx.Done():
		}
	}
}

// hearWays returns when the kernel sent more than was read.
func (a *agent) hearWays(ctx context.Context, moved chan<- struct{}) error {
	done := make(chan struct{})
	defer close(done)
	links, addresses, routes := make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	closed := func(error) {} // the channel is closed then
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: closed}); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	defer drain(links)
	if err := netlink.AddrSubscribeWithOptions(addresses, done, netlink.AddrSubscribeOptions{ErrorCallback: closed}); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	defer drain(addresses)
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: closed}); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	defer drain(routes)
	due := time.After(0) // something may have changed before
	for {
		more, concerns := true, false
		select {
		case link, ok := <-links:
			device, _ := a.native.current()
			more, concerns = ok, ok && uint32(link.Attrs().Index) == device.ifindex
		case update, ok := <-addresses:
			address, _ := netip.AddrFromSlice(update.LinkAddress.IP)
			more, concerns = ok, address == a.native.address
		case update, ok := <-routes:
			more, concerns = ok, update.Family == netlink.FAMILY_V6 && update.Table != routeTable && update.Table != unix.RT_TABLE_LOCAL
		case <-due:
			due = nil
			select {
			case moved <- struct{}{}:
			default: // it is told already
			}
		case <-ctx.Done():
			return nil
		}
		if !more {
			return nil
		}
		if concerns && due == nil {
			due = time.After(waysPause)
		}
	}
}

// drain lets a subscription end, which may be about to send.
func drain[T any](updates <-chan T) {
	go func() {
		for range updates { //nolint:revive // nobody wants them
		}
	}()
}
