package reconcile

import (
	"cmp"
	"net"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// Port is the device of a Machine of this host.
type Port struct {
	MachineID string
	Ifindex   uint32
	Network   sixpn.Network
	Host      sixpn.Host
	Number    sixpn.Machine
	MTU       uint16
	GuestMAC  net.HardwareAddr
	RouterMAC net.HardwareAddr
	Peer      bool // a veth whose other end is in another namespace
	XDP       bool // and that other end takes frames of XDP; else they come by tcx
}

// HostPort is the device into the private namespace.
type HostPort struct {
	Ifindex   uint32 // of the end that the router has
	MTU       uint16
	InsideMAC net.HardwareAddr // of the end inside the namespace
	RouterMAC net.HardwareAddr
}

// MeshPort is the device that leads to all other hosts.
type MeshPort struct {
	Ifindex uint32
	MTU     uint16 // largest IPv6 packet it takes, bytes
	Native  bool   // it is the host's uplink, to a fabric that routes between hosts
}

// Local is what this host has and no store knows.
type Local struct {
	HostPort HostPort // Ifindex 0: none
	Mesh     MeshPort // Ifindex 0: none
	Ports    []Port
	// Partial: after a start not all is known yet. There may be a mesh that carries
	// traffic, so backends on other hosts stay chosen.
	Partial bool
}

// Settings are the limits that a host sets.
type Settings struct {
	MachineFlows uint32        // live Flycast flows of one Machine as client
	NetworkFlows uint32        // the same of all Machines of a network on this host
	TableFlows   uint32        // what the flow table holds; 0: so many that nobody need share
	Rules        flycast.Rules // Spill is up to each service
	// Shared has the limits of services be those of all hosts together: somebody has to
	// set the shares of this one.
	Shared bool
	// Silent says of a host that no packet passes there, or none comes back. If it is not
	// present either, the flows that its Machines have are reset. nil: none is.
	Silent func(sixpn.Host) bool
}

// DefaultSettings are what one Machine, and one network, may have at most while there
// is room for it.
var DefaultSettings = Settings{MachineFlows: 16384, NetworkFlows: 65536}

// Compile says what the tables of a host should hold. It wants the addresses and
// services of the networks that have a Machine on this host, for nobody else can ask
// for them here, and the allocations of its Machines, whoever asks for them from other
// hosts. What it returns is sorted, so equal inputs make equal outputs.
func Compile(snapshot *state.Snapshot, host sixpn.Host, local Local, settings Settings) maps.Want {
	var want maps.Want
	if port := local.HostPort; port.Ifindex != 0 {
		want.Ports = append(want.Ports, maps.Port{
			Ifindex:   port.Ifindex,
			Kind:      bpf.RouterPortKindPORT_HOST,
			Host:      host,
			MTU:       port.MTU,
			Peer:      true,
			RouterMAC: mac(port.RouterMAC),
		})
		want.HostDevice = maps.HostDevice{
			Ifindex:   port.Ifindex,
			MTU:       port.MTU,
			InsideMAC: mac(port.InsideMAC),
			RouterMAC: mac(port.RouterMAC),
		}
	}
	if port := local.Mesh; port.Ifindex != 0 {
		kind := bpf.RouterPortKindPORT_MESH
		if port.Native {
			kind = bpf.RouterPortKindPORT_UPLINK
		}
		want.Ports = append(want.Ports, maps.Port{Ifindex: port.Ifindex, Kind: kind, Host: host, MTU: port.MTU})
		want.Mesh = maps.MeshDevice{Ifindex: port.Ifindex, MTU: port.MTU, Native: port.Native}
	}
	networks := map[sixpn.Network]int{} // Machines here
	for _, port := range local.Ports {
		networks[port.Network]++
	}
	for _, port := range local.Ports {
		want.Ports = append(want.Ports, maps.Port{
			Ifindex:   port.Ifindex,
			Kind:      bpf.RouterPortKindPORT_MACHINE,
			Network:   port.Network,
			Host:      port.Host,
			Machine:   port.Number,
			MTU:       port.MTU,
			Peer:      port.Peer,
			RouterMAC: mac(port.RouterMAC),
		})
		want.Machines = append(want.Machines, maps.Machine{
			Network:   port.Network,
			Machine:   port.Number,
			Ifindex:   port.Ifindex,
			Kind:      bpf.RouterPortKindPORT_MACHINE,
			MTU:       port.MTU,
			Peer:      port.Peer,
			XDP:       port.XDP,
			GuestMAC:  mac(port.GuestMAC),
			RouterMAC: mac(port.RouterMAC),
		})
		share := settings.share(networks[port.Network], len(local.Ports))
		want.Quotas = append(want.Quotas, maps.Quota{
			Network: port.Network,
			Machine: port.Number,
			Limit:   min(settings.MachineFlows, share),
		})
	}
	for network, here := range networks {
		want.Quotas = append(want.Quotas, maps.Quota{Network: network, Limit: settings.share(here, len(local.Ports))})
	}

	machines := map[string][]state.Machine{} // by app
	for _, machine := range snapshot.Machines {
		machines[machine.App] = append(machines[machine.App], machine)
	}
	view := view{snapshot, host, local.Mesh.Ifindex != 0 || local.Partial, settings.Silent}
	for _, vip := range snapshot.VIPs {
		app, known := snapshot.Apps[vip.App]
		if known && vip.Network != app.Network {
			want.Allocations = append(want.Allocations, allocations(vip, app, machines[vip.App], host)...)
		}
		if networks[vip.Network] == 0 {
			continue
		}
		want.VIPs = append(want.VIPs, maps.VIP{Network: vip.Network, Number: vip.Number})
		if known {
			want.Services = append(want.Services, compileServices(view, vip, app, machines[vip.App], settings)...)
		}
	}
	sortWant(&want)
	return want
}

// share is how many flows a network may hold that has so many of all Machines of this
// host. The shares of all networks together are what the table holds: however many
// networks a tenant has, the others keep theirs.
func (s Settings) share(here, all int) uint32 {
	if s.TableFlows == 0 {
		return s.NetworkFlows
	}
	return min(s.NetworkFlows, max(1, uint32(uint64(s.TableFlows)*uint64(here)/uint64(all))))
}

func sortWant(want *maps.Want) {
	slices.SortFunc(want.Ports, func(a, b maps.Port) int { return cmp.Compare(a.Ifindex, b.Ifindex) })
	slices.SortFunc(want.Machines, func(a, b maps.Machine) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Machine, b.Machine))
	})
	slices.SortFunc(want.Quotas, func(a, b maps.Quota) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Machine, b.Machine))
	})
	slices.SortFunc(want.VIPs, compareVIPs)
	slices.SortFunc(want.Allocations, maps.Allocation.Compare)
	// Two addresses of one network allow the same.
	want.Allocations = slices.Compact(want.Allocations)
	slices.SortFunc(want.Services, func(a, b maps.Service) int {
		return cmp.Or(compareVIPs(a.VIP, b.VIP), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
}

func compareVIPs(a, b maps.VIP) int {
	return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Number, b.Number))
}

// mac is the zero address for a device that has none, such as a tap whose guest was
// not heard yet.
func mac(address net.HardwareAddr) maps.MAC {
	var m maps.MAC
	copy(m[:], address)
	return m
}
