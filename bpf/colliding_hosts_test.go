package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// Three hosts whose routers hand each other what leaves by their meshes: see farHost for
// their numbers.
const (
	homeHost  sixpn.Host = 0x001a86dd // of the backend
	leftHost             = farHost
	rightHost sixpn.Host = 0x001986dd
)

// visitor is a client, by its host and one of its addresses, and the probe by which its
// flow finds a slot.
type visitor struct {
	host  sixpn.Host
	low   uint16
	probe int
}

// neighbours are the routers of hosts, by host.
type neighbours map[sixpn.Host]*world

// meet begins a row: each host has a mesh, the VIP, and clients; the backends of all are
// the Machine of the first host that pick names.
func (n neighbours) meet(t *testing.T, pick func(*world) *member) {
	for _, w := range n {
		w.t = t
		w.reset()
		withMesh(w)
		flycastWorld(w)
		backend := pick(n[homeHost])
		for _, index := range []uint32{streamBackend, datagramBackend} {
			w.changeBackend(index, func(b *bpf.RouterBackend) {
				b.Network, b.Host, b.Machine = uint32(backend.network), uint32(homeHost), uint32(backend.machine)
			})
		}
		if backend.network == red {
			continue
		}
		w.allocate(red, backend, protocolTCP, backendPort)
		w.allocate(red, backend, protocolUDP, datagramInner)
		for _, key := range []bpf.RouterServiceKey{serviceKey(protocolTCP, vipPort), serviceKey(protocolUDP, datagramPort)} {
			var service bpf.RouterService
			must(t, w.Services.Lookup(key, &service))
			service.Flags = 1
			w.put(w.Services, key, service)
		}
	}
}

// across has a shot leave one host's mesh, as left is, and returns it as it comes by the
// other's.
func (n neighbours) across(t *testing.T, from, to sixpn.Host, s shot, left []byte) shot {
	t.Helper()
	n[from].requireOutcome(t, s, outcome{to: n[from].mesh, frame: turned(withoutMACs(s, left))})
	return shot{ifindex: n[to].mesh.ifindex, frame: ethernet(n[to].mesh.router, n[to].mesh.guest, left[offsetIP:])}
}

// Clients on two hosts, and one on the backend's, use the same source port, and often the
// same slot, towards one VIP and one backend, which tells them apart by nothing but their
// hosts' and their own numbers. Each flow keeps its own way in both directions, and its own
// end. The clients' numbers are the same here too: that may not matter either.
func TestCollidingSlotsOfHosts(t *testing.T) {
	lows := colliding(t, 2)
	same := []visitor{{leftHost, linkLow, 0}, {rightHost, linkLow, 0}, {homeHost, linkLow, 0}}
	for _, by := range []way{byMesh, byDriver} {
		hosts := neighbours{}
		for _, host := range []sixpn.Host{homeHost, leftHost, rightHost} {
			hosts[host] = newWorld(t, func(s *settings) { s.host, s.way = host, by })
		}
		for name, c := range map[string]struct {
			backend  func(*world) *member
			protocol uint8
			visitors []visitor
		}{
			"by tcp":                        {toServer, protocolTCP, same},
			"by udp":                        {toServer, protocolUDP, same},
			"by tcp to another network":     {toForeign, protocolTCP, same},
			"by udp to another network":     {toForeign, protocolUDP, same},
			"slots taken in another order":  {toServer, protocolTCP, []visitor{{leftHost, lows[0], 0}, {leftHost, lows[1], 1}, {rightHost, lows[1], 0}, {rightHost, lows[0], 1}, {homeHost, lows[0], 0}, {homeHost, lows[1], 1}}},
			"the backend's own host begins": {toServer, protocolTCP, []visitor{same[2], same[0], same[1]}},
		} {
			t.Run(by.String()+" "+name, func(t *testing.T) {
				hosts.meet(t, c.backend)
				hosts.visit(t, c.backend(hosts[homeHost]), c.protocol, c.visitors)
			})
		}
	}
}

// visit has all visitors begin, then all go on, then end one after the other.
func (n neighbours) visit(t *testing.T, backend *member, protocol uint8, visitors []visitor) {
	outer, inner := uint16(vipPort), uint16(backendPort)
	payload := func(from, to uint16, flags uint8) []byte { return tcp(from, to, flags, 1000, 2000) }
	if protocol == protocolUDP {
		outer, inner = datagramPort, datagramInner
		payload = func(from, to uint16, _ uint8) []byte { return udp(from, to, make([]byte, 6)...) }
	}
	slotOf := func(v visitor) netip.AddrPort {
		return netip.AddrPortFrom(n[v.host].client.low(slot(v.low, testVIP, outer, v.probe)), clientPort)
	}
	// forth is a packet of a visitor to the VIP, which the backend gets from the slot.
	forth := func(t *testing.T, v visitor, flags uint8) {
		t.Helper()
		w := n[v.host]
		s := fromAs(w.client, w.client.low(v.low), vip(), protocol, payload(clientPort, outer, flags))
		translated := rewritten(s.frame, backend, slotOf(v), netip.AddrPortFrom(backend.addr(), inner))
		if v.host != homeHost {
			s = n.across(t, v.host, homeHost, s, translated)
			translated = plain(s.frame, backend)
		}
		n[homeHost].requireOutcome(t, s, outcome{to: backend, frame: translated})
	}
	// back is the backend's answer to what it sees, which only that visitor gets, from the VIP.
	back := func(t *testing.T, v visitor, flags uint8) {
		t.Helper()
		w := n[v.host]
		s := from(backend, slotOf(v).Addr(), protocol, payload(inner, clientPort, flags))
		if v.host != homeHost {
			left := slices.Clone(s.frame)
			left[offsetHop]--
			s = n.across(t, homeHost, v.host, s, left)
		}
		w.requireOutcome(t, s, outcome{to: w.client, frame: rewritten(s.frame, w.client, netip.AddrPortFrom(vip(), outer),
			netip.AddrPortFrom(w.client.low(v.low), clientPort))})
	}
	seen := map[netip.AddrPort]bool{}
	for _, v := range visitors {
		forth(t, v, flagSYN)
		seen[slotOf(v)] = true
	}
	if len(seen) != len(visitors) {
		t.Fatalf("the backend sees %d clients, expected %d: %v", len(seen), len(visitors), seen)
	}
	// In another order than they came.
	for i := range visitors {
		back(t, visitors[len(visitors)-1-i], flagSYN|flagACK)
	}
	if protocol == protocolUDP {
		return
	}
	for _, v := range visitors {
		forth(t, v, flagACK)
	}
	for i, v := range visitors {
		forth(t, v, flagRST)
		for j, other := range visitors {
			flow, found := n[other.host].flow(bpf.RouterFlowKey{
				Network: uint32(red), Machine: uint32(n[other.host].client.machine), Port: clientPort, Slot: slot(other.low, testVIP, outer, other.probe), Protocol: protocol,
			})
			want := bpf.RouterFlowStateFLOW_ESTABLISHED
			if j <= i {
				want = bpf.RouterFlowStateFLOW_CLOSING
			}
			if !found || state(flow) != want {
				t.Errorf("after %d ends the flow of visitor %d, %+v, is there: %t, in state %d, want %d", i+1, j, other, found, state(flow), want)
			}
		}
		for _, other := range visitors[i+1:] {
			back(t, other, flagACK|flagPSH)
			forth(t, other, flagACK|flagPSH)
		}
	}
	for _, w := range n {
		w.requireLedger(t)
	}
}
