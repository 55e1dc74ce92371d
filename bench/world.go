package bench

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// What every world has: two Machines of one network on one host.
const (
	mtu         = 1420
	network     = sixpn.Network(5)
	hostNumber  = sixpn.Host(7)
	clientNo    = sixpn.Machine(1)
	serverNo    = sixpn.Machine(2)
	vipNumber   = 1
	vipPort     = 80
	backendPort = 8080
	serviceID   = 3
	backendNo   = uint32(1)
	prime       = 251
)

var (
	clientAddr = sixpn.MachineAddr(network, hostNumber, clientNo)
	serverAddr = sixpn.MachineAddr(network, hostNumber, serverNo)
	vipAddr    = sixpn.VIPAddr(network, vipNumber)
	everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// world is a host namespace between two Machines' namespaces. What forwards
// between the two is the difference from one world to the next.
type world struct {
	name                   string
	host, client, server   *namespace
	hostClient, hostServer netlink.Link // the host's ends of the wires
	clientLink, serverLink netlink.Link
	closers                []func()
}

func (w *world) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// newWorld wires two Machines to a host, addressed as sixpn does, with nothing to forward yet.
func newWorld(name string) (w *world, err error) {
	w = &world{name: name}
	defer func() {
		if err != nil {
			w.close()
			err = fmt.Errorf("world %s: %w", name, err)
		}
	}()
	for _, n := range []**namespace{&w.host, &w.client, &w.server} {
		if *n, err = newNamespace(); err != nil {
			return w, err
		}
		w.closers = append(w.closers, (*n).close)
	}
	if w.hostClient, w.clientLink, err = wire(w.host, "client", w.client, "eth0"); err != nil {
		return w, err
	}
	if w.hostServer, w.serverLink, err = wire(w.host, "server", w.server, "eth0"); err != nil {
		return w, err
	}
	if err = w.client.address(w.clientLink, netip.PrefixFrom(clientAddr, 112)); err != nil {
		return w, err
	}
	if err = w.server.address(w.serverLink, netip.PrefixFrom(serverAddr, 112)); err != nil {
		return w, err
	}
	for _, l := range []netlink.Link{w.hostClient, w.hostServer} {
		if err = w.host.LinkSetUp(l); err != nil {
			return w, err
		}
	}
	return w, nil
}

// defaultRoutes lets both Machines reach everything by way of fe80::1.
func (w *world) defaultRoutes() error {
	if err := w.client.route(w.clientLink, everything, sixpn.Gateway); err != nil {
		return err
	}
	return w.server.route(w.serverLink, everything, sixpn.Gateway)
}

// newSixpnWorld forwards by the router. objects are its own, and already hold the services.
func newSixpnWorld(objects *bpf.MeasureObjects) (*world, error) {
	w, err := newWorld("sixpn")
	if err != nil {
		return nil, err
	}
	if err := w.attachRouter(objects); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) attachRouter(objects *bpf.MeasureObjects) error {
	ports := []struct {
		number      sixpn.Machine
		name        string
		link, guest netlink.Link
	}{
		{clientNo, "client", w.hostClient, w.clientLink},
		{serverNo, "server", w.hostServer, w.serverLink},
	}
	for _, p := range ports {
		if err := w.attachMachine(objects, p.number, p.name, p.link, p.guest, bpf.RouterRedirectMethodREDIRECT_PEER); err != nil {
			return err
		}
	}
	return w.defaultRoutes()
}

// attachMachine makes the host's end of a wire the port of a Machine.
func (w *world) attachMachine(objects *bpf.MeasureObjects, number sixpn.Machine, name string, link, guest netlink.Link,
	method bpf.RouterRedirectMethod) error {
	if err := w.host.sysctl("ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	port := bpf.RouterPort{
		Ifindex: uint32(link.Attrs().Index), Network: uint32(network), Host: uint32(hostNumber), Machine: uint32(number),
		Counters: uint32(number), Mtu: mtu, Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Redirect: uint8(method),
		Mac: mac(link),
	}
	machine := bpf.RouterMachine{
		Network: port.Network, Machine: port.Machine, Ifindex: port.Ifindex, Counters: port.Counters, Mtu: mtu,
		Kind: port.Kind, Redirect: port.Redirect, Mac: mac(guest), RouterMac: port.Mac,
	}
	if err := bpf.PortSlots(objects.PortSlots).Put(port); err != nil {
		return err
	}
	if err := bpf.MachineSlots(objects.MachineSlots).Put(machine); err != nil {
		return err
	}
	return w.attach(w.host, link, objects.SixpnRouter)
}

// attach puts a program on a device's tcx ingress until the world is closed.
func (w *world) attach(n *namespace, device netlink.Link, program *ebpf.Program) error {
	return n.do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: device.Attrs().Index, Program: program, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("attach to %s: %w", device.Attrs().Name, err)
		}
		w.closers = append(w.closers, func() { l.Close() })
		return nil
	})
}

// newRoutedWorld forwards by the kernel's plain IPv6 routing.
func newRoutedWorld(name string) (*world, error) {
	w, err := newWorld(name)
	if err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error { return w.host.sysctl("ipv6/conf/all/forwarding", "1") },
		func() error { return w.host.address(w.hostClient, netip.PrefixFrom(sixpn.Gateway, 64)) },
		func() error { return w.host.address(w.hostServer, netip.PrefixFrom(sixpn.Gateway, 64)) },
		func() error {
			return w.host.route(w.hostClient, sixpn.MachinePrefix(network, hostNumber, clientNo), netip.Addr{})
		},
		func() error {
			return w.host.route(w.hostServer, sixpn.MachinePrefix(network, hostNumber, serverNo), netip.Addr{})
		},
		func() error {
			return w.host.neighbour(w.hostClient, clientAddr, w.clientLink.Attrs().HardwareAddr)
		},
		func() error {
			return w.host.neighbour(w.hostServer, serverAddr, w.serverLink.Attrs().HardwareAddr)
		},
		w.defaultRoutes,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// newBridgedWorld forwards by a plain bridge; the Machines see each other on the link.
func newBridgedWorld() (*world, error) {
	w, err := newWorld("bridge")
	if err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = "bridge", mtu
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	both := netip.PrefixFrom(clientAddr, 80).Masked() // network and host
	steps := []func() error{
		func() error { return w.host.LinkAdd(bridge) },
		func() error { return w.host.LinkSetMaster(w.hostClient, bridge) },
		func() error { return w.host.LinkSetMaster(w.hostServer, bridge) },
		func() error { return w.host.LinkSetUp(bridge) },
		func() error { return w.client.route(w.clientLink, both, netip.Addr{}) },
		func() error { return w.server.route(w.serverLink, both, netip.Addr{}) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func mac(l netlink.Link) (m [6]uint8) {
	copy(m[:], l.Attrs().HardwareAddr)
	return m
}

// hardware is the inverse of mac.
func hardware(m [6]uint8) net.HardwareAddr { return net.HardwareAddr(m[:]) }
