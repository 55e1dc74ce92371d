package maps_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/sixpn"
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

// rapidT is what a property gives instead of a *testing.T.
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

// settle syncs until nothing waits, with a grace period between, and asserts that one
// more Sync writes nothing.
func (k *kernel) settle(t fataler, tables *sixpnmaps.Tables, want sixpnmaps.Want) {
	t.Helper()
	for range 5 {
		changes, err := tables.Sync(context.Background(), want)
		must(t, err)
		if changes.Waiting == 0 {
			break
		}
		k.now = k.now.Add(grace)
	}
	changes, err := tables.Sync(context.Background(), want)
	must(t, err)
	if changes.Writes != 0 || changes.Waiting != 0 {
		t.Fatalf("a Sync with nothing to do wrote %v and left %d waiting", changes.Tables, changes.Waiting)
	}
}

func sync(t fataler, tables *sixpnmaps.Tables, want sixpnmaps.Want) sixpnmaps.Changes {
	t.Helper()
	changes, err := tables.Sync(context.Background(), want)
	must(t, err)
	return changes
}

// picture is what the tables say, without the numbers that are a matter of history:
// ids, indices, offsets and generations are replaced by what they lead to.
type picture struct {
	Ports    map[uint32]string
	Machines map[bpf.RouterMachineKey]string
	Host     string
	VIPs     []string
	Services map[string]string
	Quotas   map[bpf.RouterMachineKey]uint32
	Backends []string // in use or gone
	Strays   int      // elements of maglev that are not zero, outside of regions
}

func (k *kernel) picture() picture {
	k.t.Helper()
	p := picture{
		Ports:    map[uint32]string{},
		Machines: map[bpf.RouterMachineKey]string{},
		Services: map[string]string{},
		Quotas:   map[bpf.RouterMachineKey]uint32{},
	}
	ports, err := bpf.PortSlots(k.PortSlots).All()
	must(k.t, err)
	for ifindex, port := range ports {
		port.Counters = 0
		p.Ports[ifindex] = fmt.Sprint(port)
	}
	machines, err := bpf.MachineSlots(k.MachineSlots).All()
	must(k.t, err)
	for key, machine := range machines {
		machine.Counters = 0
		p.Machines[key] = fmt.Sprint(machine)
	}
	var host bpf.RouterHostDevice
	must(k.t, k.HostPort.Lookup(uint32(0), &host))
	host.Counters = 0
	p.Host = fmt.Sprint(host)
	for key := range all[bpf.RouterVipKey, uint32](k.t, k.Vips) {
		p.VIPs = append(p.VIPs, fmt.Sprint(key))
	}
	slices.Sort(p.VIPs)
	words := k.words()
	used := map[uint32]bool{}
	for key, service := range all[bpf.RouterServiceKey, bpf.RouterService](k.t, k.Services) {
		p.Services[fmt.Sprint(key)] = k.describe(service, words, used)
	}
	for key, service := range all[bpf.RouterServiceRangeKey, bpf.RouterService](k.t, k.ServiceRanges) {
		p.Services[fmt.Sprint(key)] = k.describe(service, words, used)
	}
	for key, quota := range all[bpf.RouterMachineKey, bpf.RouterQuota](k.t, k.Quotas) {
		p.Quotas[key] = quota.Limit
	}
	for index := uint32(1); index < k.Backends.MaxEntries(); index++ {
		if b := k.backend(index); b.Machine != 0 {
			p.Backends = append(p.Backends, describeBackend(b))
		}
	}
	slices.Sort(p.Backends)
	for i, word := range words {
		if word != 0 && !used[uint32(i)] {
			p.Strays++
		}
	}
	return p
}

func all[K comparable, V any](t testing.TB, m *ebpf.Map) map[K]V {
	t.Helper()
	out := map[K]V{}
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		out[key] = value
	}
	must(t, entries.Err())
	return out
}

func (k *kernel) words() []uint32 {
	k.t.Helper()
	memory, err := k.Maglev.Memory()
	must(k.t, err)
	raw := make([]byte, 4*k.Maglev.MaxEntries())
	_, err = memory.ReadAt(raw, 0)
	must(k.t, err)
	words := make([]uint32, k.Maglev.MaxEntries())
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(raw[4*i:])
	}
	return words
}

func (k *kernel) backend(index uint32) bpf.RouterBackend {
	k.t.Helper()
	var b bpf.RouterBackend
	must(k.t, k.Backends.Lookup(index, &b))
	return b
}

func describeBackend(b bpf.RouterBackend) string {
	return fmt.Sprintf("%d/%d/%d:%d flags %d", b.Network, b.Host, b.Machine, b.Port, b.Flags)
}

func (k *kernel) describe(s bpf.RouterService, words []uint32, used map[uint32]bool) string {
	to := map[string]int{}
	for i := s.Offset; i < s.Offset+s.Prime; i++ {
		used[i] = true
		if b := k.backend(words[i]); b.Service == s.Id {
			to[describeBackend(b)]++
		} else {
			to["wrong"]++
		}
	}
	var text []string
	for _, key := range slices.Sorted(maps.Keys(to)) {
		text = append(text, fmt.Sprintf("%s ×%d", key, to[key]))
	}
	return fmt.Sprintf("action %d flags %d limits %d %d: %v", s.Action, s.Flags, s.SoftLimit, s.HardLimit, text)
}

func diff(t fataler, got, want any, what string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (- wanted, + got):\n%s", what, d)
	}
}

// Things that tests want.

const (
	red  sixpn.Network = 0x00010017
	blue sixpn.Network = 0x00020018
	here sixpn.Host    = 0x0a7b0bea
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
