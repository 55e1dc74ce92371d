package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/internal/nettest"
)

// nativeWorld is two more hosts, whose packets travel as they are over a router between
// them: a server of each org on either host.
type nativeWorld struct {
	fleet                     *nettest.Fleet
	near, far, spy, farOfSpys *nettest.Machine
}

// native makes that world with the first check that needs it.
func (w *world) native(ctx context.Context) (_ *nativeWorld, err error) {
	if w.fabric != nil {
		return w.fabric, nil
	}
	fleet, err := nettest.NewFleet(nettest.FleetConfig{Native: true, Host: nettest.Config{Prefix: "sixpn-demo-", Executable: w.executable}})
	if err != nil {
		return nil, err
	}
	n := &nativeWorld{fleet: fleet}
	defer func() {
		if err != nil {
			err = errors.Join(err, fleet.Close())
		}
	}()
	if err := fleet.Start(ctx); err != nil {
		return nil, err
	}
	for org, app := range map[string]string{orgAcme: appWeb, orgRival: appVault} {
		if err := errors.Join(fleet.Hosts[0].CreateOrg(ctx, org), fleet.Hosts[0].CreateApp(ctx, app, org)); err != nil {
			return nil, err
		}
	}
	if err := fleet.Settle(ctx); err != nil {
		return nil, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, m := range []struct {
		into      **nettest.Machine
		host      int
		app, name string
	}{{&n.near, 0, appWeb, "near-1"}, {&n.far, 1, appWeb, "far-1"}, {&n.spy, 0, appVault, "near-spy"}, {&n.farOfSpys, 1, appVault, "far-spy"}} {
		group.Go(func() (err error) {
			host := fleet.Hosts[m.host]
			// One with services has started when it listens, and not before.
			*m.into, err = host.Run(groupCtx, m.app, nettest.Options{Name: m.name, Services: services}, host.Payload(server()...)...)
			return err
		})
	}
	if err := errors.Join(group.Wait(), fleet.Settle(ctx)); err != nil {
		return nil, err
	}
	w.fabric = n
	return n, nil
}

// nativeSameOrg: what mesh.same_org says of an encrypted mesh, while the router between
// the hosts sees the Machines' own packets.
func nativeSameOrg(ctx context.Context, w *world) (string, error) {
	n, err := w.native(ctx)
	if err != nil {
		return "", err
	}
	capture, err := n.fleet.Underlay.Capture()
	if err != nil {
		return "", err
	}
	there, err := talks(ctx, n.near, n.far)
	back := ""
	if err == nil {
		back, err = talks(ctx, n.far, n.near)
	}
	if err := errors.Join(err, capture.Close()); err != nil {
		return "", err
	}
	plain := 0
	prefixes := [2]netip.Prefix{fields(n.near).Host.MeshPrefix(), fields(n.far).Host.MeshPrefix()}
	for _, frame := range capture.Frames() {
		if len(frame.Data) < ethernetHeader+ipv6Header {
			continue
		}
		from, to := netip.AddrFrom16([16]byte(frame.Data[22:38])), netip.AddrFrom16([16]byte(frame.Data[38:54]))
		if prefixes[0].Contains(from) && prefixes[1].Contains(to) || prefixes[1].Contains(from) && prefixes[0].Contains(to) {
			plain++
		}
	}
	if plain < 4*probes {
		return "", fmt.Errorf("only %d packets between the hosts' prefixes passed the fabric's router", plain)
	}
	return fmt.Sprintf("%s; %s; the router between the hosts saw %d packets from one host's prefix to the other's, as they are", there, back, plain), nil
}

// nativeCrossOrg: nor does the fabric lead from one org to another.
func nativeCrossOrg(ctx context.Context, w *world) (string, error) {
	n, err := w.native(ctx)
	if err != nil {
		return "", err
	}
	if _, err := talks(ctx, n.spy, n.farOfSpys); err != nil {
		return "", fmt.Errorf("inside one network: %w", err)
	}
	total, err := crossesNot(ctx, []attempt{{n.spy, n.far.Addr}, {n.farOfSpys, n.near.Addr}})
	return fmt.Sprintf("near-spy → far-1 and far-spy → near-1: no answer, other_network +%d; near-spy → far-spy works", total), err
}
