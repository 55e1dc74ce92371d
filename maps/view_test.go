package maps_test

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// view is what the tables mean, without the numbers that are a matter of history:
// ids, indices, offsets and generations are followed to where they lead.
type view struct {
	Ports       map[uint32]bpf.RouterPort
	Machines    map[bpf.RouterMachineKey]bpf.RouterMachine
	Host        bpf.RouterHostDevice
	Mesh        bpf.RouterHostDevice
	Allocations map[sixpnmaps.Allocation]bool
	VIPs        map[sixpnmaps.VIP]bool
	Services    map[serviceName]serviceView
	Quotas      map[bpf.RouterMachineKey]uint32 // limits
	Backends    map[sixpnmaps.Backend]string    // "" or "gone"
	Strays      int                             // elements of maglev in use by no service
}

type serviceName struct {
	VIP         sixpnmaps.VIP
	Protocol    uint8
	First, Last uint16
}

// view reads the tables by the layouts of types.h, and by nothing of the package.
func (k *kernel) view() view {
	k.t.Helper()
	v := k.glance()
	var err error
	v.Ports, err = bpf.PortSlots(k.PortSlots).All()
	must(k.t, err)
	v.Machines, err = bpf.MachineSlots(k.MachineSlots).All()
	must(k.t, err)
	v.forgetCounters()
	return v
}

// forgetCounters drops the indices of counters, which are a matter of history.
func (v view) forgetCounters() {
	for key, port := range v.Ports {
		port.Counters = 0
		v.Ports[key] = port
	}
	for key, machine := range v.Machines {
		machine.Counters = 0
		v.Machines[key] = machine
	}
}

// glance is view, but of ports and Machines sees only those that these tests have: the
// whole arrays take a hundred times longer.
func (k *kernel) glance() view {
	k.t.Helper()
	v := view{
		Ports:       map[uint32]bpf.RouterPort{},
		Machines:    map[bpf.RouterMachineKey]bpf.RouterMachine{},
		VIPs:        map[sixpnmaps.VIP]bool{},
		Services:    map[serviceName]serviceView{},
		Allocations: map[sixpnmaps.Allocation]bool{},
		Quotas:      map[bpf.RouterMachineKey]uint32{},
		Backends:    map[sixpnmaps.Backend]string{},
	}
	for ifindex := uint32(1); ifindex <= lastIfindex; ifindex++ {
		port, ok, err := bpf.PortSlots(k.PortSlots).Get(ifindex)
		must(k.t, err)
		if ok {
			v.Ports[ifindex] = port
		}
	}
	for _, network := range []sixpn.Network{red, blue} {
		for machine := uint32(1); machine <= lastMachine; machine++ {
			key := bpf.RouterMachineKey{Network: uint32(network), Machine: machine}
			entry, ok, err := bpf.MachineSlots(k.MachineSlots).Get(key)
			must(k.t, err)
			if ok {
				v.Machines[key] = entry
			}
		}
	}
	v.forgetCounters()
	must(k.t, k.HostPort.Lookup(uint32(0), &v.Host))
	v.Host.Counters = 0
	must(k.t, k.MeshDevice.Lookup(uint32(0), &v.Mesh))
	v.Mesh.Counters = 0
	for key := range all[bpf.RouterAllocationKey, uint32](k.t, k.Allocations) {
		v.Allocations[sixpnmaps.Allocation{
			Client: sixpn.Network(key.ClientNetwork), Network: sixpn.Network(key.BackendNetwork),
			Machine: sixpn.Machine(key.BackendMachine), Protocol: key.Protocol, Port: key.Port,
		}] = true
	}
	for key := range all[bpf.RouterVipKey, uint32](k.t, k.Vips) {
		v.VIPs[sixpnmaps.VIP{Network: sixpn.Network(key.Network), Number: key.Number}] = true
	}
	words, used, backends := k.words(), map[uint32]bool{}, k.backends()
	for key, service := range all[bpf.RouterServiceKey, bpf.RouterService](k.t, k.Services) {
		vip := sixpnmaps.VIP{Network: sixpn.Network(key.Network), Number: key.Vip}
		v.Services[serviceName{vip, key.Protocol, key.Port, key.Port}] = follow(service, words, backends, used)
	}
	for key, service := range all[bpf.RouterServiceRangeKey, bpf.RouterService](k.t, k.ServiceRanges) {
		raw, err := binary.Append(nil, binary.NativeEndian, key)
		must(k.t, err)
		vip := sixpnmaps.VIP{Network: sixpn.Network(binary.BigEndian.Uint32(raw[4:])), Number: binary.BigEndian.Uint32(raw[8:])}
		first := binary.BigEndian.Uint16(raw[13:])
		last := first | uint16(0xffff>>(key.PrefixLength-72))
		v.Services[serviceName{vip, raw[12], first, last}] = follow(service, words, backends, used)
	}
	for key, quota := range all[bpf.RouterMachineKey, bpf.RouterQuota](k.t, k.Quotas) {
		v.Quotas[key] = quota.Limit
	}
	for _, b := range backends {
		if b.Machine != 0 {
			state := ""
			if b.Flags&1 != 0 {
				state = "gone"
			}
			v.Backends[backendOf(b)] = state
		}
	}
	for i, word := range words {
		if word != 0 && !used[uint32(i)] {
			v.Strays++
		}
	}
	return v
}

// expect is the view of tables that hold a Want and nothing else.
func (k *kernel) expect(want sixpnmaps.Want) view {
	v := view{
		Ports:       map[uint32]bpf.RouterPort{},
		Machines:    map[bpf.RouterMachineKey]bpf.RouterMachine{},
		VIPs:        map[sixpnmaps.VIP]bool{},
		Services:    map[serviceName]serviceView{},
		Allocations: map[sixpnmaps.Allocation]bool{},
		Quotas:      map[bpf.RouterMachineKey]uint32{},
		Backends:    map[sixpnmaps.Backend]string{},
	}
	for _, p := range want.Ports {
		v.Ports[p.Ifindex] = bpf.RouterPort{
			Network: uint32(p.Network), Host: uint32(p.Host), Machine: uint32(p.Machine), Mtu: p.MTU,
			Kind: uint8(p.Kind), Redirect: 1, Mac: p.RouterMAC, Ifindex: p.Ifindex,
		}
	}
	for _, m := range want.Machines {
		key := bpf.RouterMachineKey{Network: uint32(m.Network), Machine: uint32(m.Machine)}
		v.Machines[key] = bpf.RouterMachine{
			Ifindex: m.Ifindex, Mtu: m.MTU, Kind: uint8(m.Kind), Redirect: 1, Mac: m.GuestMAC, RouterMac: m.RouterMAC,
			Network: key.Network, Machine: key.Machine,
		}
	}
	h := want.HostDevice
	v.Host = bpf.RouterHostDevice{Ifindex: h.Ifindex, Mtu: h.MTU, Mac: h.InsideMAC, RouterMac: h.RouterMAC}
	v.Mesh = bpf.RouterHostDevice{Ifindex: want.Mesh.Ifindex, Mtu: want.Mesh.MTU}
	for _, allocation := range want.Allocations {
		v.Allocations[allocation] = true
	}
	for _, vip := range want.VIPs {
		v.VIPs[vip] = true
	}
	for _, q := range want.Quotas {
		v.Quotas[bpf.RouterMachineKey{Network: uint32(q.Network), Machine: uint32(q.Machine)}] = q.Limit
	}
	for _, s := range want.Services {
		for _, b := range s.All() {
			v.Backends[b] = ""
		}
		for _, block := range blocks(uint32(s.First), uint32(s.Last)) {
			v.Services[serviceName{s.VIP, s.Protocol, block[0], block[1]}] = k.expectService(s)
		}
	}
	return v
}

// blocks cuts a range into aligned powers of two, the plain way: from its start, try
// every size from the largest.
func blocks(first, last uint32) (out [][2]uint16) {
	for first <= last {
		size := uint32(1 << 16)
		for first%size != 0 || first+size-1 > last {
			size /= 2
		}
		out = append(out, [2]uint16{uint16(first), uint16(first + size - 1)})
		first += size
	}
	return out
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
	raw := make([]byte, 8*k.Maglev.MaxEntries())
	_, err = memory.ReadAt(raw, 0)
	must(k.t, err)
	words := make([]uint32, k.Maglev.MaxEntries())
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(raw[8*i:])
	}
	return words
}

// backends reads all of them, by index.
func (k *kernel) backends() []bpf.RouterBackend {
	k.t.Helper()
	keys, values := make([]uint32, k.Backends.MaxEntries()), make([]bpf.RouterBackend, k.Backends.MaxEntries())
	var cursor ebpf.MapBatchCursor
	if n, err := k.Backends.BatchLookup(&cursor, keys, values, nil); n != len(values) {
		k.t.Fatalf("%d of %d backends were read: %v", n, len(values), err)
	}
	return values
}

func backendOf(b bpf.RouterBackend) sixpnmaps.Backend {
	return sixpnmaps.Backend{Network: sixpn.Network(b.Network), Host: sixpn.Host(b.Host), Machine: sixpn.Machine(b.Machine), Port: b.Port}
}

// compare ends the test unless both views are the same.
func compare(t fataler, got, want view, when string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s the tables differ (- expected, + found):\n%s", when, d)
	}
}

// checkWall fails if any key leads into another network than it did before, or will
// once the Sync is done; or to a device that another Machine is behind.
func (k *kernel) checkWall(t fataler, before, after view) {
	t.Helper()
	now := k.glance()
	for key, machine := range now.Machines {
		if machine != before.Machines[key] && machine != after.Machines[key] {
			t.Fatalf("the wall is open: machine %v is neither as before nor as wanted: %+v", key, machine)
		}
		if port, ok := now.Ports[machine.Ifindex]; ok && (port.Network != key.Network || port.Machine != key.Machine) {
			t.Fatalf("the wall is open: machine %v leads to the device of machine %d of network %d", key, port.Machine, port.Network)
		}
	}
	for ifindex, port := range now.Ports {
		if port != before.Ports[ifindex] && port != after.Ports[ifindex] {
			t.Fatalf("the wall is open: port %d is neither as before nor as wanted: %+v", ifindex, port)
		}
	}
	if port, ok := now.Ports[now.Host.Ifindex]; ok && port.Kind != uint8(bpf.RouterPortKindPORT_HOST) {
		t.Fatalf("the wall is open: the host device is the port of machine %d", port.Machine)
	}
	if port, ok := now.Ports[now.Mesh.Ifindex]; ok && port.Kind != uint8(bpf.RouterPortKindPORT_MESH) {
		t.Fatalf("the wall is open: the mesh device is the port of machine %d", port.Machine)
	}
	for allocation := range now.Allocations {
		if !before.Allocations[allocation] && !after.Allocations[allocation] {
			t.Fatalf("the wall is open: %+v neither was allowed nor should be", allocation)
		}
	}
	for name, service := range now.Services {
		for _, backend := range service.backends() {
			if !leads(before, name, backend) && !leads(after, name, backend) {
				t.Fatalf("the wall is open: service %+v leads to %+v, which it neither did nor should", name, backend)
			}
		}
		if service.Wrong > 0 {
			t.Fatalf("service %+v has %d positions that lead nowhere: %+v", name, service.Wrong, service)
		}
	}
	checkAnswers(t, now, before, after)
	checkOrder(t, now, before, after)
}

// checkAnswers fails if something that was there before, and will be, is not there now.
func checkAnswers(t fataler, now, before, after view) {
	t.Helper()
	for key, machine := range before.Machines {
		if _, ok := now.Machines[key]; !ok && after.Machines[key] == machine {
			t.Fatalf("machine %v cannot be reached for a moment", key)
		}
	}
	for ifindex, port := range before.Ports {
		if _, ok := now.Ports[ifindex]; !ok && after.Ports[ifindex] == port {
			t.Fatalf("port %d is closed for a moment", ifindex)
		}
	}
	for vip := range before.VIPs {
		if after.VIPs[vip] && !now.VIPs[vip] {
			t.Fatalf("address %+v is unknown for a moment", vip)
		}
	}
	for allocation := range before.Allocations {
		if after.Allocations[allocation] && !now.Allocations[allocation] {
			t.Fatalf("%+v is refused for a moment", allocation)
		}
	}
	if before.Mesh == after.Mesh && now.Mesh != before.Mesh {
		t.Fatalf("other hosts cannot be reached for a moment")
	}
	answers, later := now.openPorts(), after.openPorts()
	for port := range before.openPorts() {
		if later[port] && !answers[port] {
			t.Fatalf("nothing answers at %+v for a moment", port)
		}
	}
}

// checkOrder fails if something new may be asked for before all of its answers are there.
func checkOrder(t fataler, now, before, after view) {
	t.Helper()
	complete := func(vip sixpnmaps.VIP) bool {
		for name := range after.Services {
			if _, ok := now.Services[name]; name.VIP == vip && !ok {
				return false
			}
		}
		return true
	}
	for vip := range now.VIPs {
		if !before.VIPs[vip] && !complete(vip) {
			t.Fatalf("address %+v is known before its services are", vip)
		}
	}
	for ifindex, port := range now.Ports {
		if port == before.Ports[ifindex] || port.Kind != uint8(bpf.RouterPortKindPORT_MACHINE) {
			continue
		}
		for vip := range after.VIPs {
			if !now.VIPs[vip] || !complete(vip) {
				t.Fatalf("port %d is open before address %+v is complete", ifindex, vip)
			}
		}
		for key := range after.Machines {
			if _, ok := now.Machines[key]; !ok {
				t.Fatalf("port %d is open before machine %v can be reached", ifindex, key)
			}
		}
	}
}

// openPorts is every port that some service has, as a service of one port.
func (v view) openPorts() map[serviceName]bool {
	open := map[serviceName]bool{}
	for name := range v.Services {
		for port := name.First; ; port++ {
			open[serviceName{name.VIP, name.Protocol, port, port}] = true
			if port == name.Last {
				break
			}
		}
	}
	return open
}
