package wireguard

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Device is the mesh device as it is now.
type Device struct {
	Name    string
	Ifindex uint32 // in the namespace that Open was called in
	MTU     uint16 // bytes
	Kernel  bool   // the kernel's WireGuard; else a TUN device with an engine process
}

// kind is who does the work of a mesh device.
type kind string

// What Config.Engine may be.
const (
	auto      kind = "auto"
	kernel    kind = "kernel"
	userspace kind = "userspace"
)

// DeviceName is the name of an agent's mesh device: "sixpn-m-" and the agent's
// name, or a hash of it where the name is too long for a device.
func DeviceName(name string) string {
	device := "sixpn-m-" + name
	if len(device) < unix.IFNAMSIZ {
		return device
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	return fmt.Sprintf("sixpn-m-%07x", hash.Sum32()>>4) // there is room for seven digits
}

// Alias is what `ip link` shows beside an agent's mesh device, and tells that it
// is the agent's.
func Alias(name string) string { return "sixpn:" + name + ":mesh" }

// findDevice returns nil if there is none, and an error if there is one that is
// not the agent's.
func findDevice(name string) (netlink.Link, error) {
	device := DeviceName(name)
	link, err := netlink.LinkByName(device)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for device %s: %w", device, err)
	}
	if !isOurs(link, name) {
		return nil, fmt.Errorf("device %s exists and is not this agent's (its alias is %q, expected %q): remove it or rename the agent",
			device, link.Attrs().Alias, Alias(name))
	}
	return link, nil
}

// isOurs goes by the alias. One of the kernel's that is down and has none is what an
// agent leaves that is killed before it could name it.
func isOurs(link netlink.Link, name string) bool {
	a := link.Attrs()
	return a.Alias == Alias(name) || a.Alias == "" && kindOf(link) == kernel && a.RawFlags&unix.IFF_UP == 0
}

// kindOf says who does the work of a device, "" for a type that no mesh has.
func kindOf(link netlink.Link) kind {
	switch link.Type() {
	case "wireguard":
		return kernel
	case "tuntap", "tun":
		return userspace
	}
	return ""
}

// choose says which kind of device is to be had, given the one that is there, nil
// for none. A mesh that is up keeps its kind. makeKernel makes the kernel's device,
// and fails with EOPNOTSUPP where the kernel has no WireGuard.
func choose(wanted kind, link netlink.Link, makeKernel func() error) (kind, error) {
	if link != nil {
		have := kindOf(link)
		if have == "" || wanted != auto && have != wanted {
			return "", fmt.Errorf("device %s is of type %s and the engine of the mesh is set to %q: remove what there is by \"sixpn agent reset\" first",
				link.Attrs().Name, link.Type(), wanted)
		}
		return have, nil
	}
	if wanted == userspace {
		return userspace, nil
	}
	err := makeKernel()
	switch {
	case err == nil:
		return kernel, nil
	case wanted == auto && errors.Is(err, unix.EOPNOTSUPP):
		return userspace, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return "", errors.New("this kernel has no WireGuard: load its module (\"modprobe wireguard\"), or set the engine of the mesh to \"userspace\"")
	}
	return "", fmt.Errorf("make the kernel's WireGuard device: %w", err)
}

// makeKernelDevice makes a device of the kernel's WireGuard. It is down and has no
// alias yet: the kernel takes none with the request that makes a device.
func makeKernelDevice(name string, mtu uint16) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = DeviceName(name), int(mtu)
	return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
}

// adjust finds the agent's device and gives it what it lacks of its alias and its
// MTU.
func adjust(name string, mtu uint16) (netlink.Link, error) {
	link, err := findDevice(name)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return nil, fmt.Errorf("device %s went away just now", DeviceName(name))
	}
	if link.Attrs().Alias != Alias(name) {
		if err := netlink.LinkSetAlias(link, Alias(name)); err != nil {
			return nil, fmt.Errorf("set the alias of %s: %w", DeviceName(name), err)
		}
	}
	if link.Attrs().MTU != int(mtu) {
		if err := netlink.LinkSetMTU(link, int(mtu)); err != nil {
			return nil, fmt.Errorf("set the MTU of %s to %d: %w", DeviceName(name), mtu, err)
		}
	}
	return link, nil
}

// portFree tries whether anybody holds a UDP port in the namespace of the thread.
func portFree(port uint16) error {
	for network, address := range map[string]net.IP{"udp4": net.IPv4zero, "udp6": net.IPv6unspecified} {
		c, err := net.ListenUDP(network, &net.UDPAddr{IP: address, Port: int(port)})
		switch {
		case err == nil:
			c.Close()
		case errors.Is(err, unix.EADDRINUSE):
			return portInUse(port)
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
			// A host may be without either family; the engine does without, too.
		default:
			return fmt.Errorf("try whether UDP port %d is free: %w", port, err)
		}
	}
	return nil
}

func portInUse(port uint16) error {
	return fmt.Errorf("UDP port %d is in use by something else: end that (ss -lunp \"sport = :%d\" shows it), or give the mesh another port with --underlay ADDR:PORT", port, port)
}
