package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

const (
	clientPort    = 40000
	vipPort       = 80
	backendPort   = 8080
	datagramPort  = 53
	datagramInner = 5353
	rangePort     = 1024 // to 2047
	rangeInner    = 9000
)

// Backends of flycastWorld, all on the server, each of a service of the same number.
const (
	streamBackend = 1 + iota
	datagramBackend
	rangeBackend
)

// flycastWorld gives network red a VIP with a TCP port, a UDP port and a range of TCP ports.
func flycastWorld(w *world) {
	w.addVIP(red, testVIP)
	w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1, w.addBackend(w.server, backendPort, 1)))
	w.put(w.Services, serviceKey(protocolUDP, datagramPort), w.service(2, w.addBackend(w.server, datagramInner, 2)))
	w.put(w.ServiceRanges, rangeKey(protocolTCP, rangePort, 6), w.service(3, w.addBackend(w.server, rangeInner, 3)))
}

func mix(v uint64) uint64 {
	v ^= v >> 32
	v *= 0x9e3779b97f4a7c15
	v ^= v >> 29
	v *= 0xbf58476d1ce4e5b9
	return v ^ v>>32
}

// slot is the hash that is part of the ABI, written down a second time: a change of the
// C breaks the flows of a running router, and these tests.
func slot(low uint16, vip uint32, port uint16, probe int) uint16 {
	hash := mix(uint64(vip)<<32 | uint64(low)<<16 | uint64(port))
	return 0x8000 | uint16(hash>>(15*probe)&0x7fff)
}

// stream is a segment of the client to the VIP.
func stream(w *world, flags uint8, data ...byte) shot {
	return from(w.client, vip(), protocolTCP, tcp(clientPort, vipPort, flags, 1000, 2000, data...))
}

// reply is a segment of the server to a slot of the client.
func reply(w *world, slot uint16, flags uint8, data ...byte) shot {
	return from(w.server, w.client.low(slot), protocolTCP, tcp(backendPort, clientPort, flags, 2000, 1001, data...))
}

func datagram(w *world) shot {
	return from(w.client, vip(), protocolUDP, udp(clientPort, datagramPort, 1, 2, 3))
}

func port(frame []byte, offset int) uint16 { return binary.BigEndian.Uint16(frame[offset:]) }

// translated is a frame of the client as a backend gets it, by a probe.
func translated(w *world, frame []byte, to *member, inner uint16, probe int) []byte {
	low := port(frame, offsetTarget-2)
	chosen := slot(low, testVIP, port(frame, offsetL4+2), probe)
	return rewritten(frame, to, netip.AddrPortFrom(w.client.low(chosen), port(frame, offsetL4)),
		netip.AddrPortFrom(to.addr(), inner))
}

// restored is a frame of a backend as the client gets it.
func restored(w *world, frame []byte, outer uint16) []byte {
	return rewritten(frame, w.client, netip.AddrPortFrom(vip(), outer),
		netip.AddrPortFrom(w.client.addr(), port(frame, offsetL4+2)))
}

// flowKey is the key of the client's stream by a probe.
func flowKey(w *world, protocol uint8, outer uint16, probe int) bpf.RouterFlowKey {
	return bpf.RouterFlowKey{
		Network: uint32(red), Machine: uint32(w.client.machine), Port: clientPort,
		Slot: slot(linkLow, testVIP, outer, probe), Protocol: protocol,
	}
}

func (w *world) flow(key bpf.RouterFlowKey) (flow bpf.RouterFlow, found bool) {
	w.t.Helper()
	return flow, w.Flows.Lookup(key, &flow) == nil
}

func state(flow bpf.RouterFlow) bpf.RouterFlowState { return bpf.RouterFlowState(flow.State & 0xf) }

// requireState says in which state the only entry is that the client's stream may have.
func (w *world) requireState(t testing.TB, want bpf.RouterFlowState) bpf.RouterFlow {
	t.Helper()
	flow, found := w.flow(flowKey(w, protocolTCP, vipPort, 0))
	if !found || state(flow) != want {
		t.Fatalf("the flow exists: %t, in state %d, want %d", found, state(flow), want)
	}
	return flow
}

// changeFlow edits an entry in place.
func (w *world) changeFlow(key bpf.RouterFlowKey, change func(*bpf.RouterFlow)) {
	w.t.Helper()
	flow, found := w.flow(key)
	if !found {
		w.t.Fatalf("there is no flow %+v to change", key)
	}
	change(&flow)
	w.put(w.Flows, key, flow)
}

func setState(state bpf.RouterFlowState) func(*bpf.RouterFlow) {
	return func(flow *bpf.RouterFlow) { flow.State = flow.State&^0xff | uint32(state) }
}

// occupy puts somebody else's entry into a slot: the same client and port, another VIP.
func (w *world) occupy(key bpf.RouterFlowKey) {
	w.t.Helper()
	w.put(w.Flows, key, bpf.RouterFlow{
		Key: key, Vip: testVIP + 1, VipPort: vipPort, ClientLow: linkLow, BackendNetwork: uint32(red),
		BackendHost: uint32(thisHost), BackendMachine: uint32(w.spare.machine), BackendPort: backendPort,
		LastSeen: now(), State: uint32(bpf.RouterFlowStateFLOW_ESTABLISHED),
	})
	w.count(w.client.key(), 1)
	w.count(bpf.RouterMachineKey{Network: uint32(red)}, 1)
}

func (w *world) count(key bpf.RouterMachineKey, by uint32) {
	w.t.Helper()
	var quota bpf.RouterQuota
	must(w.t, w.Quotas.Lookup(key, &quota))
	quota.Used += by
	w.put(w.Quotas, key, quota)
}

// begin fires packets that shall go through, as the beginning of a test.
func (w *world) begin(shots ...shot) {
	w.t.Helper()
	for i, s := range shots {
		if verdict, _ := w.fire(s); verdict != verdictRedirect {
			w.t.Fatalf("packet %d of the beginning was dropped: %v", i, w.counts().Drops)
		}
	}
}

// establish takes the client's stream through its handshake.
func (w *world) establish() {
	w.t.Helper()
	w.begin(stream(w, flagSYN), reply(w, slot(linkLow, testVIP, vipPort, 0), flagSYN|flagACK), stream(w, flagACK))
}

// flowUncounted is FLOW_UNCOUNTED: the flow has closed, and holds no place of its backend.
const flowUncounted = 0x80

// requireLedger compares every count of flows with the flows that are there.
func (w *world) requireLedger(t testing.TB) {
	t.Helper()
	clients, backends := map[bpf.RouterMachineKey]uint32{}, map[uint32]uint32{}
	var key bpf.RouterFlowKey
	var flow bpf.RouterFlow
	entries := w.Flows.Iterate()
	for entries.Next(&key, &flow) {
		clients[bpf.RouterMachineKey{Network: key.Network}]++
		clients[bpf.RouterMachineKey{Network: key.Network, Machine: key.Machine}]++
		if flow.State&flowUncounted == 0 {
			backends[flow.Backend]++
		}
	}
	must(t, entries.Err())
	var client bpf.RouterMachineKey
	var quota bpf.RouterQuota
	quotas := w.Quotas.Iterate()
	for quotas.Next(&client, &quota) {
		if quota.Used != clients[client] {
			t.Errorf("%d flows are counted for client %+v, it has %d", quota.Used, client, clients[client])
		}
	}
	must(t, quotas.Err())
	for backend := uint32(1); backend <= w.backend; backend++ {
		if live := w.load(backend).Live; live != backends[backend] {
			t.Errorf("%d flows are counted for backend %d, it has %d", live, backend, backends[backend])
		}
	}
}
