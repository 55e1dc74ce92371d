package maps_test

import (
	"context"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// sizes of the tables in these tests, in place of the real ones.
type sizes map[string]uint32

var small = sizes{
	bpf.RouterMapVips:          64,
	bpf.RouterMapServices:      64,
	bpf.RouterMapServiceRanges: 128,
	bpf.RouterMapMaglev:        4096,
	bpf.RouterMapBackends:      512,
	bpf.RouterMapBackendLoad:   512,
	bpf.RouterMapFlows:         1024,
	bpf.RouterMapQuotas:        64,
	bpf.RouterMapPortCounters:  32,
	bpf.RouterMapErrorBudget:   32,
	bpf.RouterMapAllocations:   64,
}

// kernel is a set of real tables with a clock and a spread that tests control.
type kernel struct {
	*bpf.RouterMaps
	t      testing.TB
	now    time.Time
	after  func(table string) error
	length func(backends int) int // of a region
}

func newKernel(t testing.TB, size sizes) *kernel {
	t.Helper()
	spec, err := bpf.LoadRouter()
	must(t, err)
	for name, entries := range size {
		spec.Maps[name].MaxEntries = entries
	}
	k := &kernel{
		RouterMaps: &bpf.RouterMaps{},
		t:          t,
		now:        time.Unix(1, 0),
		length:     func(backends int) int { return 7 + 4*backends },
	}
	must(t, spec.LoadAndAssign(k.RouterMaps, nil))
	t.Cleanup(func() { must(t, k.RouterMaps.Close()) })
	return k
}

// fataler is what a test and a property have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

const grace = time.Minute

func (k *kernel) open() *sixpnmaps.Tables {
	k.t.Helper()
	tables, err := sixpnmaps.Open(k.RouterMaps, sixpnmaps.Options{
		Grace: grace,
		Now:   func() time.Time { return k.now },
		Maglev: func(backends []sixpnmaps.Backend) []uint32 {
			positions := make([]uint32, k.length(len(backends)))
			for i := range positions {
				positions[i] = uint32(i % len(backends))
			}
			return positions
		},
		AfterWrite: func(table string) error {
			if k.after != nil {
				return k.after(table)
			}
			return nil
		},
	})
	must(k.t, err)
	return tables
}

// settle syncs, with a grace period between, until there is nothing to do and nothing
// waits, which must come soon.
func (k *kernel) settle(t fataler, tables *sixpnmaps.Tables, want sixpnmaps.Want) {
	t.Helper()
	var changes sixpnmaps.Changes
	for range 5 {
		changes = sync(t, tables, want)
		if changes.Writes == 0 && changes.Waiting == 0 {
			return
		}
		k.now = k.now.Add(grace)
	}
	t.Fatalf("the last of five equal Syncs still wrote %v and left %d waiting", changes.Tables, changes.Waiting)
}

func sync(t fataler, tables *sixpnmaps.Tables, want sixpnmaps.Want) sixpnmaps.Changes {
	t.Helper()
	changes, err := tables.Sync(context.Background(), want)
	must(t, err)
	return changes
}

// Things that tests want.

const (
	red  sixpn.Network = 0x00010017
	blue sixpn.Network = 0x00020018
	here sixpn.Host    = 0x0a7b0bea

	lastIfindex = 12
	lastMachine = 6
)

func machinePort(ifindex uint32, network sixpn.Network, machine sixpn.Machine) sixpnmaps.Port {
	return sixpnmaps.Port{
		Ifindex: ifindex, Kind: bpf.RouterPortKindPORT_MACHINE, Network: network, Host: here, Machine: machine,
		MTU: 1420, Peer: true, RouterMAC: sixpnmaps.MAC{2, 0, 0, 0, 0, byte(ifindex)},
	}
}

// addMachine wants a Machine behind a device, with its quota.
func addMachine(want *sixpnmaps.Want, ifindex uint32, network sixpn.Network, machine sixpn.Machine) {
	port := machinePort(ifindex, network, machine)
	want.Ports = append(want.Ports, port)
	want.Machines = append(want.Machines, sixpnmaps.Machine{
		Network: network, Machine: machine, Ifindex: ifindex, Kind: port.Kind, MTU: port.MTU, Peer: true,
		GuestMAC: sixpnmaps.MAC{6, 0, 0, 0, 0, byte(machine)}, RouterMAC: port.RouterMAC,
	})
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: network, Machine: machine, Limit: 100})
}

func backendAt(network sixpn.Network, machine sixpn.Machine, port uint16) sixpnmaps.Backend {
	return sixpnmaps.Backend{Network: network, Host: here, Machine: machine, Port: port}
}

func serviceOf(network sixpn.Network, number uint32, first, last uint16, backends ...sixpnmaps.Backend) sixpnmaps.Service {
	return sixpnmaps.Service{
		VIP: sixpnmaps.VIP{Network: network, Number: number}, Protocol: sixpnmaps.ProtocolTCP,
		First: first, Last: last, Action: bpf.RouterServiceActionSERVICE_BALANCE, Backends: backends,
	}
}

// addMesh leads to other hosts by a device.
func addMesh(want *sixpnmaps.Want, ifindex uint32, mtu uint16) {
	want.Ports = append(want.Ports, sixpnmaps.Port{Ifindex: ifindex, Kind: bpf.RouterPortKindPORT_MESH, Host: here, MTU: mtu, Peer: true})
	want.Mesh = sixpnmaps.MeshDevice{Ifindex: ifindex, MTU: mtu}
}

// addHost wants the device into the private namespace.
func addHost(want *sixpnmaps.Want, ifindex uint32) {
	want.Ports = append(want.Ports, sixpnmaps.Port{
		Ifindex: ifindex, Kind: bpf.RouterPortKindPORT_HOST, Host: here, MTU: 1420, Peer: true,
	})
	want.HostDevice = sixpnmaps.HostDevice{
		Ifindex: ifindex, MTU: 1420, InsideMAC: sixpnmaps.MAC{2, 1}, RouterMAC: sixpnmaps.MAC{2, 2},
	}
}
