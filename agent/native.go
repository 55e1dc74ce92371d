package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
	"github.com/sixpn/sixpn/wireguard"
)

// native is the mesh of a host whose packets travel as they are: by the device that has
// the host's address on the underlay, and a route for each other host.
type native struct {
	address netip.Addr

	mu     sync.Mutex
	uplink uplink
	xdp    loader.XDP
}

// uplink is a device as it was found.
type uplink struct {
	name    string
	ifindex uint32
	mtu     uint16 // no more than a Machine's may be
}

func (n *native) current() (uplink, loader.XDP) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.uplink, n.xdp
}

// seen is the uplink, and how XDP takes packets from it now, as the kernel says.
func (n *native) seen() (uplink, loader.XDP) {
	device, _ := n.current()
	seen, err := loader.Look(device.ifindex)
	if err != nil {
		return device, loader.XDPNone // the device is gone, or no more to be read
	}
	return device, seen.XDP
}

func (n *native) set(u uplink, xdp loader.XDP) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uplink, n.xdp = u, xdp
}

// openNative finds the uplink. Machines may send what it takes.
func (a *agent) openNative() error {
	address := a.config.underlay().Addr()
	found, err := findUplink(address)
	if err != nil {
		return err
	}
	a.native = &native{address: address, uplink: found}
	setDefault(&a.config.MTU, found.mtu)
	a.log.Warn("the mesh is native: packets between hosts are not encrypted, and whoever is on the fabric can speak for any host; nobody but these hosts may be on it",
		"uplink", found.name, "mtu", found.mtu)
	return nil
}

func findUplink(address netip.Addr) (uplink, error) {
	device, err := deviceWith(address)
	if err != nil {
		return uplink{}, err
	}
	attributes := device.Attrs()
	return uplink{attributes.Name, uint32(attributes.Index), uint16(min(attributes.MTU, int(machine.MaxMTU)))}, nil
}

// keepNative has the uplink a port, also when its address moves to another device, and a
// route for every other host of the snapshots, by the way that the host's own routes
// say. What fails is tried again; what there was stays until then.
func (a *agent) keepNative(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	moved, hosts := make(chan struct{}, 1), make(chan []state.Host)
	group.Go(func() error { a.watchWays(ctx, moved); return nil })
	group.Go(func() error { return a.watchHosts(ctx, hosts) })
	group.Go(func() error {
		ticker := time.NewTicker(a.config.Timeouts.Repair)
		defer ticker.Stop()
		var others []state.Host // nil: not known yet
		var raised uplink
		said := ""
		for {
			err := a.raiseUplink(ctx, &raised)
			if err == nil && others != nil {
				err = a.routeTo(others, raised)
			}
			if ctx.Err() != nil {
				return nil
			}
			var again <-chan time.Time
			saying := ""
			if err != nil {
				again, saying = time.After(meshRetry), err.Error()
			}
			if saying != said && saying != "" {
				a.log.Error("the native mesh is not as it should be; what there is of it stays", "error", err)
			}
			said = saying
			select {
			case others = <-hosts:
			case <-moved:
			case <-again:
			case <-ticker.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// watchHosts passes on which hosts there are to be routes for, whenever it changes.
func (a *agent) watchHosts(ctx context.Context, hosts chan<- []state.Host) error {
	var before []state.Host
	for revision := int64(0); ; {
		snapshot, err := a.store.Wait(ctx, revision)
		if err != nil {
			return err
		}
		revision = snapshot.Revision
		a.warnOfModes(snapshot)
		others := nativeHosts(snapshot, a.host.ID)
		if before != nil && slices.Equal(others, before) {
			continue
		}
		before = others
		select {
		case hosts <- others:
		case <-ctx.Done():
			return nil
		}
	}
}

// raiseUplink makes the device with the host's address a port; it may be one already.
// The device is the host's own, so it is neither closed nor raised. raised is what was
// made a port last.
func (a *agent) raiseUplink(ctx context.Context, raised *uplink) error {
	found, err := findUplink(a.native.address)
	if err != nil {
		return err
	}
	_, before := a.native.current()
	if found != *raised {
		a.native.set(found, before)
		if err := a.loop.SetMeshPort(ctx, a.meshPort()); err != nil {
			return fmt.Errorf("uplink %s: %w", found.name, err)
		}
	}
	xdp, err := a.loader.AttachUplink(found.ifindex)
	if err != nil {
		return fmt.Errorf("uplink %s: %w", found.name, err)
	}
	if found != *raised || xdp != before {
		a.sayUplink(found, xdp)
	}
	a.native.set(found, xdp)
	*raised = found
	return a.leaveUplinks()
}

func (a *agent) sayUplink(u uplink, xdp loader.XDP) {
	a.log.Info("uplink", "device", u.name, "mtu", u.mtu, "xdp", xdp)
	if xdp != loader.XDPDriver {
		a.log.Warn("packets from the fabric take a slower way, since the uplink's driver has no XDP of its own or it is in use: give the host a device whose driver has, or take what is on it off",
			"device", u.name, "xdp", xdp)
	}
}

// routeTo makes a route for each host by the uplink. One that the host has already, from
// the operator or a routing protocol, is left to do its work.
func (a *agent) routeTo(hosts []state.Host, by uplink) error {
	var want []hostRoute
	var errs []error
	unknown := map[netip.Prefix]bool{} // what there is stays
	for _, host := range hosts {
		endpoint, err := netip.ParseAddrPort(host.Endpoint)
		if err != nil || !endpoint.Addr().Is6() {
			errs = append(errs, fmt.Errorf("host %s is at %s: a native mesh needs IPv6 addresses", host.Name, host.Endpoint))
			continue
		}
		if routedAlready(host.ID.MeshPrefix(), int(by.ifindex)) {
			continue
		}
		way, err := wayTo(host.ID, endpoint.Addr(), int(by.ifindex))
		if err != nil {
			errs, unknown[host.ID.MeshPrefix()] = append(errs, err), true
			continue
		}
		want = append(want, way)
	}
	changed, err := setRoutes(a.config.Name, want, unknown)
	if len(changed) > 0 {
		a.log.Info("routes to other hosts", "hosts", len(want), "changed", changed)
	}
	return errors.Join(append(errs, err)...)
}

// leaveUplinks takes the router off devices that were the uplink before.
func (a *agent) leaveUplinks() error {
	var now uint32 // none
	if a.native != nil {
		device, _ := a.native.current()
		now = device.ifindex
	}
	for _, ifindex := range a.loader.Uplinks() {
		if ifindex == now {
			continue
		}
		if err := a.loader.Detach(ifindex); err != nil {
			return fmt.Errorf("leave uplink %d: %w", ifindex, err)
		}
		a.log.Info("the router has left an uplink", "ifindex", ifindex)
	}
	return nil
}

// leaveOtherMode removes what an agent of this name has left of another way to other
// hosts, once the tables do not lead there any more.
func (a *agent) leaveOtherMode(ctx context.Context) error {
	var removed []string
	if a.native == nil {
		routes, err := removeRoutes(a.config.Name)
		if err := errors.Join(err, a.leaveUplinks()); err != nil {
			return fmt.Errorf("end the native mesh: %w", err)
		}
		removed = append(removed, routes...)
	}
	if a.mesh == nil {
		if device, err := netlink.LinkByName(wireguard.DeviceName(a.config.Name)); err == nil {
			if err := a.loader.Detach(uint32(device.Attrs().Index)); err != nil && !errors.Is(err, loader.ErrForeign) {
				return fmt.Errorf("end the encrypted mesh: %w", err)
			}
		}
		engine, err := wireguard.Reset(ctx, a.config.mesh())
		if err != nil {
			return fmt.Errorf("end the encrypted mesh: %w", err)
		}
		removed = append(removed, engine...)
	}
	for _, what := range removed {
		a.log.Info("removed, which another mode of the mesh had", "what", what)
	}
	return nil
}

// nativeHosts is every other host that takes packets as they are, in order of number;
// never nil.
func nativeHosts(snapshot *state.Snapshot, own sixpn.Host) []state.Host {
	hosts := []state.Host{}
	for _, host := range snapshot.Hosts {
		if host.ID != own && host.MeshMode() == state.MeshNative {
			hosts = append(hosts, host)
		}
	}
	slices.SortFunc(hosts, func(a, b state.Host) int { return cmp.Compare(a.ID, b.ID) })
	return hosts
}
