package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// The numbers use many bits, so that a field cut short or swapped shows.
const (
	thisHost  sixpn.Host    = 0x00180a7b
	otherHost sixpn.Host    = 0x00180a7c
	red       sixpn.Network = 0xa7b0bea1
	blue      sixpn.Network = 0xa7b0bea2
)

const (
	testVIP  uint32 = 0x0001f00d // has both halves: the VIP's number reaches into the machine field
	testMTU         = 1420
	linkLow  uint16 = 2
	otherLow uint16 = 0x0777
)

// member is a device of the router and who is behind it.
type member struct {
	name     string
	ifindex  uint32
	host     sixpn.Host
	network  sixpn.Network
	machine  sixpn.Machine
	counters uint32
	guest    mac // of what is behind the device
	router   mac
}

// addr is the primary address of a Machine.
func (m *member) addr() netip.Addr { return m.low(linkLow) }

// low is an address of the Machine's /112.
func (m *member) low(low uint16) netip.Addr {
	return sixpn.Fields{Network: m.network, Host: m.host, Machine: m.machine, Low: low}.Addr()
}

func (m *member) key() bpf.RouterMachineKey {
	return bpf.RouterMachineKey{Network: uint32(m.network), Machine: uint32(m.machine)}
}

// own is the Machine as it sees itself through a VIP.
func (m *member) own(low uint16) netip.Addr {
	return sixpn.Fields{Network: m.network, Host: sixpn.HostOwnBackend, Machine: m.machine, Low: low}.Addr()
}

// frame is a packet of this member, as its device gets it.
func (m *member) frame(packet []byte) []byte { return ethernet(m.router, m.guest, packet) }

// world is a loaded router with a few ports: client, server and spare are Machines of
// network red, foreign is one of network blue, private is the host's own device.
type world struct {
	bpf.RouterObjects
	xdp                                     bpf.UplinkPrograms // of a world with such a way
	handed                                  bool               // XDP left the latest frame of another host to tcx
	t                                       testing.TB
	client, server, spare, foreign, private *member
	mesh                                    *member // nil: there is none
	way                                     way     // what it is
	host                                    sixpn.Host
	members                                 []*member
	region                                  uint32 // first unused element of maglev
	backend                                 uint32 // last used element of backends
}

// way is what leads to other hosts in a world, and the program that packets meet there.
type way int

const (
	byMesh    way = iota // a device without link layer
	byUplink             // the host's own, over tcx
	byDriver             // over XDP in its driver first
	byGeneric            // over generic XDP first
)

func (w way) String() string { return [...]string{"mesh", "tcx", "driver", "generic"}[w] }

func (w way) isXDP() bool { return w >= byDriver }

// settings are what a test may want of a world before it is loaded.
type settings struct {
	host            sixpn.Host
	flows           uint32
	eventsPerSecond uint32
	way             way
}

func newWorld(t testing.TB, change ...func(*settings)) *world {
	t.Helper()
	wanted := settings{host: thisHost, flows: 4096, eventsPerSecond: 100}
	for _, f := range change {
		f(&wanted)
	}
	spec, err := bpf.LoadRouter()
	if err != nil {
		t.Fatalf("load the specification: %v", err)
	}
	// Tables of full size take longer to make than a test.
	for name, size := range map[string]uint32{
		bpf.RouterMapFlows: wanted.flows, bpf.RouterMapMaglev: 4096, bpf.RouterMapBackends: 256,
		bpf.RouterMapBackendLoad: 256, bpf.RouterMapVips: 64, bpf.RouterMapServices: 64, bpf.RouterMapPortCounters: 64,
		bpf.RouterMapErrorBudget: 64, bpf.RouterMapQuotas: 64, bpf.RouterMapAllocations: 64,
	} {
		spec.Maps[name].MaxEntries = size
	}
	must(t, spec.Variables["host"].Set(uint32(wanted.host)))
	must(t, spec.Variables["events_per_second"].Set(wanted.eventsPerSecond))
	w := &world{t: t, host: wanted.host, way: wanted.way}
	if err := spec.LoadAndAssign(&w.RouterObjects, nil); err != nil {
		t.Fatalf("load the router: %+v", err)
	}
	t.Cleanup(func() { must(t, w.Close()) })

	if w.way.isXDP() {
		w.loadXDP()
	}
	w.reset()
	return w
}

// loadXDP loads the programs that share the router's tables.
func (w *world) loadXDP() {
	w.t.Helper()
	spec, err := bpf.LoadUplink()
	must(w.t, err)
	shared := map[string]*ebpf.Map{}
	tables := reflect.ValueOf(w.RouterMaps)
	for i := range tables.NumField() {
		name := tables.Type().Field(i).Tag.Get("ebpf")
		if table := spec.Maps[name]; table != nil {
			shared[name] = tables.Field(i).Interface().(*ebpf.Map)
			table.MaxEntries = shared[name].MaxEntries()
		}
	}
	must(w.t, spec.Variables["host"].Set(uint32(w.host)))
	must(w.t, spec.LoadAndAssign(&w.xdp, &ebpf.CollectionOptions{MapReplacements: shared}))
	w.t.Cleanup(func() { must(w.t, w.xdp.Close()) })
}

// reset empties every table and fills it with the world that each test begins with.
func (w *world) reset() {
	w.t.Helper()
	for _, m := range w.members {
		must(w.t, bpf.PortSlots(w.PortSlots).Delete(m.ifindex))
		if m.machine != 0 {
			must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(m.key()))
		}
	}
	for _, table := range []*ebpf.Map{w.Flows, w.Quotas, w.Vips, w.Services, w.ServiceRanges, w.Allocations, w.Fences} {
		w.empty(table)
	}
	for ; w.backend > 0; w.backend-- {
		w.put(w.Backends, w.backend, bpf.RouterBackend{})
		w.put(w.BackendLoad, w.backend, bpf.RouterLoad{})
	}
	w.put(w.Fenced, uint32(0), uint32(0))
	w.put(w.MeshDevice, uint32(0), bpf.RouterHostDevice{})
	w.members, w.mesh, w.region = nil, nil, 0

	w.client = w.machine("client", red, 0x000a0011)
	w.server = w.machine("server", red, 0x000b0012)
	w.spare = w.machine("spare", red, 0x000b0013)
	w.foreign = w.machine("foreign", blue, 0x000b0014)
	w.private = w.add("private", 0, 0)
	w.setPort(bpf.RouterPort{
		Ifindex: w.private.ifindex, Host: uint32(w.host), Counters: w.private.counters, Mtu: testMTU,
		Kind: uint8(bpf.RouterPortKindPORT_HOST), Mac: w.private.router,
	})
	w.put(w.HostPort, uint32(0), bpf.RouterHostDevice{
		Ifindex: w.private.ifindex, Counters: w.private.counters, Mtu: testMTU,
		Mac: w.private.guest, RouterMac: w.private.router,
	})
	for _, network := range []sixpn.Network{red, blue} {
		w.quota(network, 0, 1000)
	}
}

// empty deletes every element of a hash or trie.
func (w *world) empty(table *ebpf.Map) {
	w.t.Helper()
	key := make([]byte, table.KeySize())
	for {
		err := table.NextKey(nil, key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return
		}
		must(w.t, err)
		must(w.t, table.Delete(key))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) put(table *ebpf.Map, key, value any) {
	w.t.Helper()
	if err := table.Put(key, value); err != nil {
		w.t.Fatalf("put into %v: %v", table, err)
	}
}

// add makes a member on the next unused device. Every member has MACs of its own, by
// which the way that a frame takes can be read from it.
func (w *world) add(name string, network sixpn.Network, machine sixpn.Machine) *member {
	n := byte(len(w.members) + 1)
	m := &member{
		name: name, ifindex: devices[n-1], host: w.host, network: network, machine: machine, counters: uint32(n) + 10,
		guest: mac{2, 0, 0, 0, 1, n}, router: mac{2, 0, 0, 0, 2, n},
	}
	w.members = append(w.members, m)
	return m
}

func (w *world) machine(name string, network sixpn.Network, machine sixpn.Machine) *member {
	m := w.add(name, network, machine)
	w.setPort(bpf.RouterPort{
		Ifindex: m.ifindex, Network: uint32(network), Host: uint32(w.host), Machine: uint32(machine), Counters: m.counters, Mtu: testMTU,
		Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Redirect: uint8(bpf.RouterRedirectMethodREDIRECT_PEER), Mac: m.router,
	})
	w.setDevice(m, testMTU)
	w.quota(network, machine, 1000)
	return m
}

// setDevice writes where a Machine is, with the MTU of its device.
func (w *world) setDevice(m *member, mtu uint16) {
	w.t.Helper()
	must(w.t, bpf.MachineSlots(w.MachineSlots).Put(bpf.RouterMachine{
		Network: uint32(m.network), Machine: uint32(m.machine), Ifindex: m.ifindex, Counters: m.counters, Mtu: mtu, Kind: uint8(bpf.RouterPortKindPORT_MACHINE),
		Redirect: uint8(w.redirect()), Mac: m.guest, RouterMac: m.router,
	}))
}

// redirect is how frames reach a Machine.
func (w *world) redirect() bpf.RouterRedirectMethod {
	if w.way.isXDP() {
		return bpf.RouterRedirectMethodREDIRECT_XDP
	}
	return bpf.RouterRedirectMethodREDIRECT_PEER
}

func (w *world) setPort(port bpf.RouterPort) {
	w.t.Helper()
	must(w.t, bpf.PortSlots(w.PortSlots).Put(port))
}

// quota sets a limit, and the count to 0.
func (w *world) quota(network sixpn.Network, machine sixpn.Machine, limit uint32) {
	w.t.Helper()
	w.put(w.Quotas, bpf.RouterMachineKey{Network: uint32(network), Machine: uint32(machine)}, bpf.RouterQuota{Limit: limit})
}

// addBackend writes a backend of a service and returns its index.
func (w *world) addBackend(m *member, port uint16, service uint32) uint32 {
	w.t.Helper()
	w.backend++
	w.put(w.BackendLoad, w.backend, bpf.RouterLoad{Generation: 7})
	w.put(w.Backends, w.backend, bpf.RouterBackend{
		Network: uint32(m.network), Host: uint32(m.host), Machine: uint32(m.machine), Generation: 7, Port: port, Service: service,
	})
	return w.backend
}

// changeBackend edits a backend in place.
func (w *world) changeBackend(index uint32, change func(*bpf.RouterBackend)) {
	w.t.Helper()
	var backend bpf.RouterBackend
	must(w.t, w.Backends.Lookup(index, &backend))
	change(&backend)
	w.put(w.Backends, index, backend)
}

func (w *world) load(backend uint32) bpf.RouterLoad {
	w.t.Helper()
	var load bpf.RouterLoad
	must(w.t, w.BackendLoad.Lookup(backend, &load))
	return load
}

// addVIP makes an address of a network exist.
func (w *world) addVIP(network sixpn.Network, number uint32) {
	w.t.Helper()
	w.put(w.Vips, bpf.RouterVipKey{Network: uint32(network), Number: number}, uint32(0))
}

// service is what a port of a VIP of network red does; without backends it has no region.
func (w *world) service(id uint32, backends ...uint32) bpf.RouterService {
	w.t.Helper()
	service := bpf.RouterService{
		Id: id, Generation: 1, Offset: w.region, Prime: uint32(len(backends)),
		Action: uint8(bpf.RouterServiceActionSERVICE_BALANCE),
	}
	for _, backend := range backends {
		w.put(w.Maglev, w.region, backend)
		w.region++
	}
	return service
}

func serviceKey(protocol uint8, port uint16) bpf.RouterServiceKey {
	return bpf.RouterServiceKey{Network: uint32(red), Vip: testVIP, Port: port, Protocol: protocol}
}

// rangeKey is the key of the ports that share the first bits of one.
func rangeKey(protocol uint8, port uint16, bits uint32) bpf.RouterServiceRangeKey {
	key := bpf.RouterServiceRangeKey{PrefixLength: 72 + bits, Protocol: protocol}
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], uint32(red))
	key.Network = binary.NativeEndian.Uint32(raw[:])
	binary.BigEndian.PutUint32(raw[:], testVIP)
	key.Vip = binary.NativeEndian.Uint32(raw[:])
	binary.BigEndian.PutUint16(key.Port[:], port)
	return key
}

func vip() netip.Addr { return sixpn.VIPAddr(red, testVIP) }

// counts is everything that the router counts, but flows.
type counts struct {
	Drops     map[string]uint64
	PortDrops map[string]uint64
	Ports     map[string]bpf.RouterCounters
}

func (w *world) counts() counts {
	w.t.Helper()
	c := counts{map[string]uint64{}, map[string]uint64{}, map[string]bpf.RouterCounters{}}
	for _, reason := range append(bpf.DropReasons(), 0) {
		var values []uint64
		must(w.t, w.Drops.Lookup(uint32(reason), &values))
		c.Drops[reason.String()] = sum(values)
	}
	var key bpf.RouterPortDropKey
	var values []uint64
	entries := w.PortDrops.Iterate()
	for entries.Next(&key, &values) {
		c.PortDrops[w.portName(key.Ifindex)+" "+bpf.DropReason(key.Reason).String()] = sum(values)
	}
	must(w.t, entries.Err())
	for _, m := range w.members {
		var each []bpf.RouterCounters
		must(w.t, w.PortCounters.Lookup(m.counters, &each))
		var total bpf.RouterCounters
		for _, one := range each {
			total.RxPackets += one.RxPackets
			total.RxBytes += one.RxBytes
			total.TxPackets += one.TxPackets
			total.TxBytes += one.TxBytes
			total.Dropped += one.Dropped
		}
		c.Ports[m.name] = total
	}
	return c
}

func (w *world) portName(ifindex uint32) string {
	i := slices.IndexFunc(w.members, func(m *member) bool { return m.ifindex == ifindex })
	if i < 0 {
		return fmt.Sprintf("device %d", ifindex)
	}
	return w.members[i].name
}

func sum(values []uint64) (total uint64) {
	for _, value := range values {
		total += value
	}
	return total
}
