package maps_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// aDevice is the loopback device, which every namespace has: BPF_PROG_TEST_RUN takes
// no ifindex that does not exist, and sends nothing.
const aDevice = 1

// router is the real programs on small tables.
type router struct {
	bpf.RouterObjects
	t      *testing.T
	tables *sixpnmaps.Tables
	kernel *kernel
}

func newRouter(t *testing.T) *router {
	t.Helper()
	spec, err := bpf.LoadRouter()
	must(t, err)
	for name, entries := range small {
		spec.Maps[name].MaxEntries = entries
	}
	must(t, spec.Variables[bpf.RouterVarHost].Set(uint32(here)))
	r := &router{t: t}
	must(t, spec.LoadAndAssign(&r.RouterObjects, nil))
	t.Cleanup(func() { must(t, r.RouterObjects.Close()) })
	r.kernel = &kernel{RouterMaps: &r.RouterMaps, t: t, now: time.Unix(1, 0), length: func(backends int) int { return 7 * backends }}
	r.tables = r.kernel.open()
	return r
}

// fire sends a TCP segment of 60 bytes and its Ethernet header into aDevice.
func (r *router) fire(source, destination netip.AddrPort, flags layers.TCP) {
	r.t.Helper()
	ethernet := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv6}
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolTCP, HopLimit: 64,
		SrcIP: source.Addr().AsSlice(), DstIP: destination.Addr().AsSlice(),
	}
	tcp := flags
	tcp.SrcPort, tcp.DstPort, tcp.Window = layers.TCPPort(source.Port()), layers.TCPPort(destination.Port()), 1000
	must(r.t, tcp.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	must(r.t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ethernet, ip, &tcp))
	_, err := r.SixpnRouter.Run(&ebpf.RunOptions{
		Data:    buffer.Bytes(),
		DataOut: make([]byte, 256),
		Context: &struct { // the start of struct __sk_buff
			_       [10]uint32
			Ifindex uint32
		}{Ifindex: aDevice},
	})
	must(r.t, err)
}

// collect reads events in the background; the function returns the next one.
func collect[E any](t *testing.T, read func(context.Context, func(E) error) error) func() E {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan E, 16), make(chan error, 1)
	go func() {
		done <- read(ctx, func(event E) error {
			events <- event
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done: // without an error
			must(t, err)
		case <-time.After(10 * time.Second):
			t.Error("a reader did not end with its context")
		}
	})
	return func() E {
		t.Helper()
		select {
		case event := <-events:
			return event
		case err := <-done:
			done <- nil
			t.Fatalf("the reader ended: %v", err)
		case <-time.After(10 * time.Second):
			t.Fatal("no event within 10 s")
		}
		panic("not reached")
	}
}

// What the router counts and says comes out as it is meant.
func TestRouterCountsAndEvents(t *testing.T) {
	t.Parallel()
	r := newRouter(t)
	backend := backendAt(red, 2, 8080)
	want := oneService(backend)
	addMachine(&want, aDevice, red, 1)
	addMachine(&want, 2, red, 2)
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: red, Limit: 10})
	sync(t, r.tables, want)
	drop := collect(t, r.tables.DropEvents)
	reset := collect(t, r.tables.ResetEvents)

	client := netip.AddrPortFrom(sixpn.MachinePrefix(red, here, 1).Addr().Next(), 40000)
	vip := netip.AddrPortFrom(sixpn.VIPAddr(red, 3), 80)
	r.fire(client, vip, layers.TCP{SYN: true})

	loads, err := r.tables.Loads()
	must(t, err)
	if len(loads) != 1 || loads[0].Backend != backend || loads[0].Live != 1 || loads[0].Total != 1 || loads[0].Gone {
		t.Errorf("after one flow the loads are %+v", loads)
	}
	uses, err := r.tables.QuotaUses()
	must(t, err)
	for _, use := range uses {
		if used := map[sixpn.Machine]uint32{0: 1, 1: 1, 2: 0}[use.Machine]; use.Used != used {
			t.Errorf("the quota is %+v, want %d used", use, used)
		}
	}

	spoofed := netip.AddrPortFrom(sixpn.MachineAddr(red, here, 2), 1)
	r.fire(spoofed, vip, layers.TCP{SYN: true})
	event := drop()
	if event.Ifindex != aDevice || event.Reason != bpf.RouterDropReasonDROP_SPOOFED_SOURCE || event.Length != 74 || len(event.Frame) != 74 {
		t.Errorf("the event is %+v", event)
	}
	drops, err := r.tables.Drops()
	must(t, err)
	portDrops, err := r.tables.PortDrops()
	must(t, err)
	for _, reason := range bpf.DropReasons() {
		expected := uint64(0)
		if reason == bpf.RouterDropReasonDROP_SPOOFED_SOURCE {
			expected = 1
		}
		if drops[reason] != expected || portDrops[aDevice][reason] != expected {
			t.Errorf("%s: %d drops, %d of the port, want %d", reason, drops[reason], portDrops[aDevice][reason], expected)
		}
	}
	counters, err := r.tables.PortCounters()
	must(t, err)
	for i := range counters {
		counters[i].Port = sixpnmaps.Port{Ifindex: counters[i].Ifindex}
	}
	expected := []sixpnmaps.PortCounts{
		{Port: sixpnmaps.Port{Ifindex: aDevice}, RxPackets: 1, RxBytes: 60, Dropped: 1},
		{Port: sixpnmaps.Port{Ifindex: 2}, TxPackets: 1, TxBytes: 60},
	}
	for i := range counters { // whether the Ethernet header counts is the router's to say
		counters[i].RxBytes, counters[i].TxBytes = min(counters[i].RxBytes, 60), min(counters[i].TxBytes, 60)
	}
	if d := cmp.Diff(expected, counters); d != "" {
		t.Errorf("counters differ (- expected, + found):\n%s", d)
	}

	// The backend goes: its flow is marked, and its client is to be told.
	flows, err := sixpnmaps.OpenFlows(&r.RouterMaps, r.SixpnExpire, sixpnmaps.DefaultTimeouts)
	must(t, err)
	page := func(judged int, counts sixpnmaps.FlowCounts) {
		t.Helper()
		n, done, err := flows.Page()
		must(t, err)
		got, err := flows.Counts()
		must(t, err)
		if n != judged || !done || got != counts {
			t.Fatalf("%d were judged, done %v, counts %+v; want %d, true, %+v", n, done, got, judged, counts)
		}
	}
	page(1, sixpnmaps.FlowCounts{Seen: 1})
	want.Services[0].Backends = nil
	sync(t, r.tables, want)
	page(1, sixpnmaps.FlowCounts{Seen: 2, Gone: 1})
	if got, expected := reset(), (sixpnmaps.ResetEvent{Client: client, VIP: vip}); got != expected {
		t.Errorf("the reset is %+v, want %+v", got, expected)
	}

	// It ends: its counts go down, and the backend's element is free.
	flows, err = sixpnmaps.OpenFlows(&r.RouterMaps, r.SixpnExpire, sixpnmaps.Timeouts{})
	must(t, err)
	page(1, sixpnmaps.FlowCounts{Seen: 3, Expired: 1, Gone: 1})
	page(0, sixpnmaps.FlowCounts{Seen: 3, Expired: 1, Gone: 1})
	r.kernel.settle(t, r.tables, want)
	if loads, err = r.tables.Loads(); err != nil || len(loads) != 0 {
		t.Errorf("the loads are %+v (%v), want none", loads, err)
	}

	// A port takes the drops of its device along.
	r.kernel.settle(t, r.tables, sixpnmaps.Want{})
	if portDrops, err = r.tables.PortDrops(); err != nil || len(portDrops) != 0 {
		t.Errorf("drops of ports that are gone: %v (%v)", portDrops, err)
	}
}

// Pages cover every flow, however many there are.
func TestFlowPages(t *testing.T) {
	t.Parallel()
	r := newRouter(t)
	const count = 700
	for i := range uint16(count) {
		key := bpf.RouterFlowKey{Network: uint32(red), Machine: 1, Port: i, Slot: 0x8000, Protocol: 6}
		must(t, r.Flows.Put(key, bpf.RouterFlow{Key: key, State: uint32(bpf.RouterFlowStateFLOW_ESTABLISHED) | 0x100}))
	}
	flows, err := sixpnmaps.OpenFlows(&r.RouterMaps, r.SixpnExpire, sixpnmaps.Timeouts{})
	must(t, err)
	for pages, done := 0, false; !done; pages++ {
		if pages > count {
			t.Fatal("a pass over the flows does not end")
		}
		_, done, err = flows.Page()
		must(t, err)
	}
	counts, err := flows.Counts()
	must(t, err)
	if counts.Seen != count || counts.Expired != count {
		t.Errorf("the counts are %+v, want %d seen and expired", counts, count)
	}
}
