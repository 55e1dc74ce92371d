package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/wireguard"
)

// The engines of WireGuard, as the mesh calls them.
const (
	engineUserspace = "userspace"
	engineKernel    = "kernel"
)

var engineNames = map[string]string{engineUserspace: "wireguard-go", engineKernel: "the kernel's WireGuard"}

// tunnelHost is above the number of every host of a fleet that is measured. Two tunnels
// of the same hosts have different ends.
const tunnelHost = sixpn.Host(1000)

// tunnel is plain WireGuard between two hosts: the engine that the mesh has, over the
// same underlay, with the same MTU, and nothing else. Its sockets are the hosts' own,
// so that its packets pass one device less than those of Machines.
type tunnel struct {
	engine  string
	ends    [2]tunnelEnd
	closers []func() error
}

type tunnelEnd struct {
	host   *nettest.Host
	number sixpn.Host
	config wireguard.Config
	mesh   *wireguard.Mesh
}

// newTunnel joins two hosts of an underlay. The error is of the kind unix.EOPNOTSUPP
// where the kernel has no WireGuard and that is asked for.
func newTunnel(ctx context.Context, hosts [2]*nettest.Host, engine string, port, mtu uint16) (t *tunnel, err error) {
	t = &tunnel{engine: engine}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("plain tunnel, %s: %w", engineNames[engine], err), t.close())
		}
	}()
	for i, host := range hosts {
		name := "plain" + strings.ToLower(rand.Text()[:8])
		e := &t.ends[i]
		*e = tunnelEnd{host: host, number: tunnelHost + 2*sixpn.Host(port) + sixpn.Host(i), config: wireguard.Config{
			Name: name, Dir: filepath.Join(host.Dir, name), Port: port, MTU: mtu, Engine: engine,
		}}
		t.closers = append(t.closers, e.reset)
		if err = host.Do(func() (err error) { e.mesh, err = wireguard.Open(ctx, e.config); return err }); err != nil {
			return t, err
		}
		t.closers = append(t.closers, e.mesh.Close)
	}
	for i := range t.ends {
		if err = t.ends[i].lead(ctx, t.ends[1-i]); err != nil {
			return t, err
		}
	}
	return t, nil
}

// kernelHasWireGuard tries it in a namespace of its own.
func kernelHasWireGuard() (bool, error) {
	n, err := newNamespace()
	if err != nil {
		return false, err
	}
	defer n.close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "wg"
	err = n.LinkAdd(&netlink.Wireguard{LinkAttrs: attributes})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

// reset removes the device and its engine.
func (e *tunnelEnd) reset() error {
	return e.host.Do(func() error { _, err := wireguard.Reset(context.Background(), e.config); return err })
}

func (e *tunnelEnd) addr() netip.Addr { return e.number.MeshPrefix().Addr().Next() }

// lead sends what is for the other end there.
func (e *tunnelEnd) lead(ctx context.Context, other tunnelEnd) error {
	err := e.mesh.SetPeers(ctx, []wireguard.Peer{{
		Host: other.number, PublicKey: other.mesh.PublicKey(),
		Endpoint: netip.AddrPortFrom(other.host.Uplink.V4, other.config.Port),
	}})
	if err != nil {
		return err
	}
	return e.host.Do(func() error {
		device, err := netlink.LinkByName(e.mesh.Device().Name)
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(e.addr(), 128)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(device, address); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(device); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Dst: ipNet(other.number.MeshPrefix())})
	})
}

func (t *tunnel) path() (p tcpPath, err error) {
	to := netip.AddrPortFrom(t.ends[1].addr(), backendPort)
	p = tcpPath{name: engineNames[t.engine], client: t.ends[0].host.Do, server: t.ends[1].host.Do, listen: to, to: to}
	if t.engine == engineUserspace {
		p.clock, err = engineClock(t.ends[0].config.Name, t.ends[1].config.Name)
	}
	return p, err
}

func (t *tunnel) close() error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i]())
	}
	return errors.Join(errs...)
}
