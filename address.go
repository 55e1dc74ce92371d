// Package sixpn knows the 6PN address: how one is parsed, composed and
// classified. It is a leaf, and all address knowledge of the Go side lives here.
//
//	fdaa : oooo:oooo : hhhh:hhhh : mmmm:mmmm : ffff
//	 16    network 32     host 32    machine 32  free 16
package sixpn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Network is the 32-bit network field of an address: the unit of isolation.
// 0 is reserved.
type Network uint32

// Host is the 32-bit host field. The values of the Reserved constants are
// never a host.
type Host uint32

// Machine is the 32-bit machine field of a Machine or a WireGuard peer. It is
// unrelated to a Machine's id. 0 is the host agent's.
type Machine uint32

// Host fields with a meaning of their own.
const (
	HostDNS        Host = 0 // fdaa::3 and fdaa:<net>::3
	HostVIP        Host = 1 // Flycast addresses
	HostOwnBackend Host = 2 // a Machine seen by itself through a VIP
	FirstHost      Host = 3 // the lowest number a host may have
)

const (
	prefix     = 0xfdaa
	dnsLow     = 3
	agentLow   = 1
	machineLow = 2
)

// Prefix is everything the router is about: fdaa::/16.
var Prefix = netip.MustParsePrefix("fdaa::/16")

// DNS is the resolver's address as Machines know it.
var DNS = netip.MustParseAddr("fdaa::3")

// Gateway is every Machine's default route.
var Gateway = netip.MustParseAddr("fe80::1")

// Fields are the parts of an address under fdaa::/16, in host byte order.
type Fields struct {
	Network Network
	Host    Host
	Machine Machine
	Low     uint16
}

// Addr composes the address that has these fields.
func (f Fields) Addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint16(b[0:], prefix)
	binary.BigEndian.PutUint32(b[2:], uint32(f.Network))
	binary.BigEndian.PutUint32(b[6:], uint32(f.Host))
	binary.BigEndian.PutUint32(b[10:], uint32(f.Machine))
	binary.BigEndian.PutUint16(b[14:], f.Low)
	return netip.AddrFrom16(b)
}

// Parse takes an address apart. ok is false outside fdaa::/16.
func Parse(a netip.Addr) (f Fields, ok bool) {
	if !a.Is6() || a.Is4In6() || a.Zone() != "" {
		return Fields{}, false
	}
	b := a.As16()
	if binary.BigEndian.Uint16(b[0:]) != prefix {
		return Fields{}, false
	}
	return Fields{
		Network: Network(binary.BigEndian.Uint32(b[2:])),
		Host:    Host(binary.BigEndian.Uint32(b[6:])),
		Machine: Machine(binary.BigEndian.Uint32(b[10:])),
		Low:     binary.BigEndian.Uint16(b[14:]),
	}, true
}

// MachineAddr is the primary address of a Machine, its FLY_PRIVATE_IP.
func MachineAddr(n Network, h Host, m Machine) netip.Addr {
	return Fields{n, h, m, machineLow}.Addr()
}

// MachinePrefix is the /112 that belongs to a Machine as a whole.
func MachinePrefix(n Network, h Host, m Machine) netip.Prefix {
	return netip.PrefixFrom(Fields{n, h, m, 0}.Addr(), 112)
}

// NetworkPrefix is fdaa:<net>::/48.
func NetworkPrefix(n Network) netip.Prefix {
	return netip.PrefixFrom(Fields{Network: n}.Addr(), 48)
}

// VIPAddr is the Flycast address fdaa:<net>:0:1::N. number is N.
func VIPAddr(n Network, number uint32) netip.Addr {
	return Fields{n, HostVIP, Machine(number >> 16), uint16(number)}.Addr()
}

// VIPNumber is the inverse of VIPAddr.
func VIPNumber(f Fields) uint32 {
	return uint32(f.Machine)<<16 | uint32(f.Low)
}

// NetworkDNS is the resolver's address inside a network, as WireGuard peers know it.
func NetworkDNS(n Network) netip.Addr {
	return Fields{Network: n, Low: dnsLow}.Addr()
}

// AgentAddr is the host agent's address inside a network; in network 0, its
// address among hosts.
func AgentAddr(n Network, h Host) netip.Addr {
	return Fields{Network: n, Host: h, Low: agentLow}.Addr()
}

// Rotate is the address as it travels on the mesh, network and host swapped, and the
// other way round. Any other address than one under fdaa::/16 stays as it is.
func Rotate(a netip.Addr) netip.Addr {
	f, ok := Parse(a)
	if !ok {
		return a
	}
	f.Network, f.Host = Network(f.Host), Host(f.Network)
	return f.Addr()
}

// MeshPrefix is fdaa:<host>::/48: all that is on a host, rotated.
func (h Host) MeshPrefix() netip.Prefix {
	return netip.PrefixFrom(Rotate(Fields{Host: h}.Addr()), 48)
}

// Kind is what an address under fdaa::/16 stands for.
type Kind uint8

// The kinds of address.
const (
	KindNone       Kind = iota // not under fdaa::/16, or a reserved value
	KindMachine                // a Machine or a WireGuard peer, any address of its /112
	KindVIP                    // a Flycast address
	KindOwnBackend             // a Machine seen by itself through a VIP
	KindDNS                    // fdaa::3 or fdaa:<net>::3
	KindAgent                  // the host agent inside a network
	KindHostAgent              // the host agent among hosts, network 0
)

func (k Kind) String() string {
	switch k {
	case KindMachine:
		return "machine"
	case KindVIP:
		return "vip"
	case KindOwnBackend:
		return "own-backend"
	case KindDNS:
		return "dns"
	case KindAgent:
		return "agent"
	case KindHostAgent:
		return "host-agent"
	default:
		return "none"
	}
}

// Classify says what an address stands for, and its fields.
func Classify(a netip.Addr) (Kind, Fields) {
	f, ok := Parse(a)
	if !ok {
		return KindNone, Fields{}
	}
	return f.Kind(), f
}

// Kind says what the address with these fields stands for.
func (f Fields) Kind() Kind {
	switch f.Host {
	case HostDNS:
		if f.Machine == 0 && f.Low == dnsLow {
			return KindDNS
		}
		return KindNone
	case HostVIP:
		// VIP numbers have 32 bits: the high half of the machine field is 0.
		if f.Network != 0 && f.Machine>>16 == 0 && VIPNumber(f) != 0 {
			return KindVIP
		}
		return KindNone
	case HostOwnBackend:
		if f.Network != 0 && f.Machine != 0 {
			return KindOwnBackend
		}
		return KindNone
	}
	switch {
	case f.Machine != 0 && f.Network != 0:
		return KindMachine
	case f.Machine != 0:
		return KindNone
	case f.Low != agentLow:
		return KindNone
	case f.Network == 0:
		return KindHostAgent
	default:
		return KindAgent
	}
}

// String prints a network number as it stands in an address, e.g. "0:22b7".
func (n Network) String() string { return fmt.Sprintf("%x:%x", uint32(n)>>16, uint32(n)&0xffff) }

// String prints a host number as it stands in an address, e.g. "a7b:d6b".
func (h Host) String() string { return fmt.Sprintf("%x:%x", uint32(h)>>16, uint32(h)&0xffff) }

// String prints a machine number as it stands in an address, e.g. "0:a".
func (m Machine) String() string { return fmt.Sprintf("%x:%x", uint32(m)>>16, uint32(m)&0xffff) }
