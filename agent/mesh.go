package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
	"github.com/sixpn/sixpn/wireguard"
)

const (
	// meshOverhead is what WireGuard adds to a packet: an IPv6 and a UDP header, and 32
	// bytes of its own. Over IPv4 it is 20 bytes less, which is not made use of: hosts
	// of both families can reach each other's Machines with one size.
	meshOverhead = 40 + 8 + 32
	// meshRetry is how long a change of the mesh waits that could not be made.
	meshRetry = time.Second
)

// mesh is the configuration of this agent's mesh device.
func (c *Config) mesh() wireguard.Config {
	return wireguard.Config{Name: c.Name, Dir: filepath.Join(c.StateDir, "mesh"), Port: c.underlay().Port(), Log: c.Log}
}

// openMesh makes or finds the mesh device of a host that other hosts can reach. The
// largest packet of Machines follows from what the underlay takes.
func (a *agent) openMesh(ctx context.Context) error {
	at := a.config.underlay()
	if !at.IsValid() {
		setDefault(&a.config.MTU, machine.DefaultMTU)
		return nil
	}
	if a.config.native() {
		return a.openNative()
	}
	device, err := deviceWith(at.Addr())
	if err != nil {
		return err
	}
	underlay := device.Attrs().MTU
	c := a.config.mesh()
	c.MTU = uint16(min(underlay-meshOverhead, int(machine.MaxMTU)))
	if c.MTU < wireguard.MinMTU {
		return fmt.Errorf("the device of %v takes packets of %d bytes, and the mesh needs %d: raise its MTU",
			at.Addr(), underlay, wireguard.MinMTU+meshOverhead)
	}
	setDefault(&a.config.MTU, c.MTU)
	if a.mesh, err = wireguard.Open(ctx, c); err != nil {
		return err
	}
	a.closers = append(a.closers, a.mesh.Close)
	made := a.mesh.Device()
	a.log.Info("mesh", "device", made.Name, "kernel", made.Kernel, "mtu", made.MTU, "public_key", a.mesh.PublicKey())
	return nil
}

// meshKey is the public half of this host's key, "" without a mesh.
func (a *agent) meshKey() string {
	if a.mesh == nil {
		return ""
	}
	return a.mesh.PublicKey()
}

// keys is the API's way to another key; nil for a host without a mesh.
func (a *agent) keys() api.KeyRotator {
	if a.mesh == nil {
		return nil
	}
	return a
}

// RotateKey is api.KeyRotator. A key that could not be told to the others is told when
// the agent starts the next time, or at the next call.
func (a *agent) RotateKey(ctx context.Context) (int64, error) {
	key, err := a.mesh.RotateKey(ctx)
	if err != nil {
		return 0, err
	}
	_, revision, err := register(ctx, a.config, a.store, key, a.certificateKey())
	return revision, err
}

// deviceWith finds the device that has an address.
func deviceWith(address netip.Addr) (netlink.Link, error) {
	addresses, err := netns.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this host: %w", err)
	}
	i := slices.IndexFunc(addresses, func(a netlink.Addr) bool {
		here, _ := netip.AddrFromSlice(a.IP)
		return here.Unmap() == address
	})
	if i < 0 {
		return nil, fmt.Errorf("no device of this host has the address %v: underlay is the address that other hosts reach this one at", address)
	}
	device, err := netlink.LinkByIndex(addresses[i].LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("the device of %v: %w", address, err)
	}
	return device, nil
}

// keepMeshPort has the mesh device a port, also when it had to be made anew.
func (a *agent) keepMeshPort(ctx context.Context) error {
	for {
		if err := a.raiseMesh(ctx); err != nil {
			return err
		}
		select {
		case <-a.mesh.Changed():
		case <-ctx.Done():
			return nil
		}
	}
}

// keepPeers has a peer for every other host of the snapshots. What fails is tried again;
// the old peers stay until then.
func (a *agent) keepPeers(ctx context.Context) error {
	var revision int64
	var applied []wireguard.Peer
	for {
		snapshot, err := a.store.Wait(ctx, revision)
		if err != nil {
			return err
		}
		revision = snapshot.Revision
		a.warnOfModes(snapshot)
		peers := meshPeers(snapshot, a.host.ID)
		if applied != nil && slices.Equal(peers, applied) {
			continue
		}
		if err := a.mesh.SetPeers(ctx, peers); err != nil {
			a.log.Error("the peers of the mesh cannot be changed; those of before stay", "error", err, "again_in", meshRetry)
			select {
			case <-time.After(meshRetry):
			case <-ctx.Done():
				return nil
			}
			revision = 0
			continue
		}
		applied = peers
		a.log.Info("mesh peers", "hosts", len(peers))
	}
}

// raiseMesh makes the mesh device a port, in the order of every port.
func (a *agent) raiseMesh(ctx context.Context) error {
	device := a.mesh.Device()
	for _, step := range []func() error{
		func() error { return a.loader.Prepare(device.Ifindex) },
		func() error { return a.loop.SetMeshPort(ctx, a.meshPort()) },
		func() error { return a.loader.AttachMesh(device.Ifindex) },
		func() error { return a.loader.Raise(device.Ifindex) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("mesh port %s: %w", device.Name, err)
		}
	}
	return nil
}

// meshPort is the device to other hosts as the tables have it; zero without one.
func (a *agent) meshPort() reconcile.MeshPort {
	switch {
	case a.native != nil:
		device, _ := a.native.current()
		return reconcile.MeshPort{Ifindex: device.ifindex, MTU: device.mtu, Native: true}
	case a.mesh == nil:
		return reconcile.MeshPort{}
	}
	device := a.mesh.Device()
	return reconcile.MeshPort{Ifindex: device.Ifindex, MTU: device.MTU}
}

// meshPeers is every other host that has said how to reach it, in order of number; never nil.
func meshPeers(snapshot *state.Snapshot, own sixpn.Host) []wireguard.Peer {
	peers := []wireguard.Peer{}
	for _, host := range snapshot.Hosts {
		endpoint, err := netip.ParseAddrPort(host.Endpoint)
		if host.ID == own || host.PublicKey == "" || host.MeshMode() != state.MeshWireGuard || err != nil {
			continue
		}
		peers = append(peers, wireguard.Peer{Host: host.ID, PublicKey: host.PublicKey, Endpoint: endpoint})
	}
	slices.SortFunc(peers, func(a, b wireguard.Peer) int { return cmp.Compare(a.Host, b.Host) })
	return peers
}

// otherModes says which hosts no packet passes to or from, since their mesh is of another
// mode than this host's; "" if there is none.
func otherModes(snapshot *state.Snapshot, own sixpn.Host) string {
	here := snapshot.Hosts[own]
	var names []string
	for _, host := range snapshot.Hosts {
		if host.MeshMode() != "" && here.MeshMode() != "" && !here.Reach(host) {
			names = append(names, host.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("no packet passes between this host, whose mesh is %s, and %s, whose mesh is not: start every agent of the fleet with the same --mesh",
		here.MeshMode(), strings.Join(names, ", "))
}

// warnOfModes is for the log what Status says.
func (a *agent) warnOfModes(snapshot *state.Snapshot) {
	if saying := otherModes(snapshot, a.host.ID); saying != a.saidOfModes {
		if a.saidOfModes = saying; saying != "" {
			a.log.Error(saying)
		}
	}
}
