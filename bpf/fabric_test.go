package bpf_test

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest/await"
)

// byFabric is the fabric's error to a member, about what it has sent.
func byFabric(w *world, to *member, quote []byte) shot {
	return fromAs(w.mesh, fabricAddress, to.addr(), protocolICMP, icmp(icmpTooBig, 0, 1280, quote...))
}

// inAgentsName is such an error as it reaches a Machine.
func inAgentsName(to func(*world) *member) func(*world, shot) []byte {
	return func(w *world, s shot) []byte {
		frame := plain(s.frame, to(w))
		setAddress(frame, offsetSource, sixpn.AgentAddr(to(w).network, thisHost))
		return seal(frame)
	}
}

// aboutBackend is the fabric's error about what a backend sent a client of another host and network.
func aboutBackend(port uint16) func(*world, *shot) {
	return func(w *world, s *shot) {
		*s = byFabric(w, w.foreign, ipv6(w.foreign.addr(), far(red, 0x8123), protocolTCP, tcp(port, 40000, flagACK, 1, 2)))
	}
}

// fabricTables are errors of routers between hosts, which only an uplink takes.
func fabricTables() []table {
	const (
		unmatched    = bpf.RouterDropReasonDROP_UNMATCHED_ERROR
		otherNetwork = bpf.RouterDropReasonDROP_OTHER_NETWORK
		spoofed      = bpf.RouterDropReasonDROP_SPOOFED_SOURCE
	)
	data := make([]byte, 20)
	toMachine := inAgentsName(toServer)
	plainTable := table{
		name: "error of the fabric",
		world: func(w *world) {
			withMesh(w)
			w.allocate(red, w.foreign, protocolTCP, backendPort)
		},
		shot: func(w *world) shot {
			return byFabric(w, w.server, ipv6(w.server.addr(), farMachine(red), protocolUDP, udp(1, 2, data...)))
		},
		to: toServer, frame: toMachine,
		rows: []row{
			{name: "by a link-local address", change: source(linkLocal), to: toServer, frame: toMachine},
			{name: "time exceeded", change: kind(icmpTimeExceeded), to: toServer, frame: toMachine},
			{name: "unreachable", change: kind(icmpUnreachable), to: toServer, frame: toMachine},
			{name: "about what went to an agent", change: func(w *world, s *shot) {
				setAddress(s.frame, offsetQuoteTarget, sixpn.AgentAddr(red, farHost))
				seal(s.frame)
			}, to: toServer, frame: toMachine},
			{name: "no error", reason: spoofed, change: kind(icmpEcho)},
			{name: "about what went to another network", reason: otherNetwork, change: func(w *world, s *shot) {
				setAddress(s.frame, offsetQuoteTarget, farMachine(blue))
			}},
			{name: "about another Machine's packet", reason: unmatched, change: func(w *world, s *shot) {
				setAddress(s.frame, offsetQuoteSource, w.spare.addr())
			}},
			{name: "about what went to a Machine of this host", reason: spoofed, change: func(w *world, s *shot) {
				setAddress(s.frame, offsetQuoteTarget, w.client.addr())
			}},
			{name: "about what went to a vip", reason: spoofed, change: func(w *world, s *shot) { setAddress(s.frame, offsetQuoteTarget, vip()) }},
			{name: "about what went to dns", reason: spoofed, change: func(w *world, s *shot) { setAddress(s.frame, offsetQuoteTarget, sixpn.DNS) }},
			{name: "about what went outside", reason: spoofed, change: func(w *world, s *shot) { setAddress(s.frame, offsetQuoteTarget, outside) }},
			{name: "quote ends before the ports", reason: unmatched, change: quoteOnly(43)},
			{name: "no quote", reason: unmatched, change: quoteOnly(0)},
			{name: "whole in one fragment", reason: unmatched, change: header(nextFragment, fragment(0, 0, false))},
			{name: "behind options", reason: unmatched, change: header(nextDestination, options(0, 8))},
			{name: "to another host", reason: bpf.RouterDropReasonDROP_OTHER_HOST, change: target(sixpn.MachineAddr(red, otherHost, 1))},
			{name: "to a vip", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(vip())},
			{name: "to the agent", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: func(w *world, s *shot) {
				quote := ipv6(sixpn.AgentAddr(red, thisHost), farMachine(red), protocolTCP, tcp(1, 2, flagACK, 1, 2))
				*s = fromAs(w.mesh, fabricAddress, sixpn.AgentAddr(red, thisHost), protocolICMP, icmp(icmpTooBig, 0, 1280, quote...))
			}},
			{name: "to no Machine", reason: bpf.RouterDropReasonDROP_NO_MACHINE, world: func(w *world) {
				must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(w.server.key()))
			}},
			{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1)},
			{name: "with a complete checksum", change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toServer, frame: toMachine},
			{name: "about an answer across networks", change: aboutBackend(backendPort), to: toForeign, frame: inAgentsName(toForeign)},
			{name: "about another port's packet across networks", reason: otherNetwork, change: aboutBackend(backendPort + 1)},
			{name: "about an answer that no allocation allows", reason: otherNetwork, world: func(w *world) { w.empty(w.Allocations) },
				change: aboutBackend(backendPort)},
		},
	}
	all := []table{plainTable}
	for name, network := range map[string]sixpn.Network{"error of the fabric about a flow": red, "error of the fabric about a flow to another network": blue} {
		stray := row{name: "about another port", change: quoteByte(offsetQuoteL4+3, 1), to: toClient, frame: func(w *world, s shot) []byte {
			frame := plain(s.frame, w.client)
			setAddress(frame, offsetSource, sixpn.AgentAddr(red, thisHost))
			return seal(frame)
		}}
		if network == blue {
			stray = row{name: stray.name, change: stray.change, reason: otherNetwork}
		}
		all = append(all, table{
			name: name, world: func(w *world) { remoteBackend(w, network); w.begin(stream(w, flagSYN)) },
			shot: func(w *world) shot { return aboutRemote(w, network, fabricAddress) }, to: toClient, frame: backToClient,
			rows: []row{
				stray,
				{name: "quote up to the ports", change: quoteOnly(44), to: toClient, frame: backToClient},
				{name: "about another client's flow", reason: unmatched, change: func(w *world, s *shot) {
					setAddress(s.frame, offsetQuoteSource, w.spare.low(streamSlot()))
				}},
			},
		})
	}
	return all
}

func TestFabricErrors(t *testing.T) {
	for _, by := range []way{byUplink, byDriver, byGeneric} {
		for _, c := range fabricTables() {
			t.Run(by.String()+"/"+c.name, func(t *testing.T) { c.runBy(t, by) })
		}
	}
}

// On an encrypted mesh nobody but hosts can speak.
func TestNoFabricErrorsOnTheMesh(t *testing.T) {
	w := newWorld(t)
	for _, c := range fabricTables() {
		w.t = t
		w.reset()
		c.world(w)
		s := c.shot(w)
		w.requireOutcome(t, s, outcome{reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE})
	}
}

// The fabric's errors have a budget for each network, and none is told past it.
func TestFabricErrorsAreLimited(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.way = byUplink })
	withMesh(w)
	s := byFabric(w, w.server, ipv6(w.server.addr(), farMachine(red), protocolUDP, udp(1, 2, make([]byte, 20)...)))
	index := uint32(red) % w.NetworkErrorBudget.MaxEntries()
	await.True(t, "an error is one too many", func() bool {
		// A bucket is empty until the kernel's coarse clock ticks, which may be just then.
		var now unix.Timespec
		must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now))
		buckets := make([]bpf.RouterBucket, ebpf.MustPossibleCPU())
		for i := range buckets {
			buckets[i].Refilled = uint64(now.Nano())
		}
		must(t, w.NetworkErrorBudget.Put(index, buckets))
		verdict, _ := w.fire(s)
		return verdict == verdictDrop && w.counts().Drops["fabric_errors"] == 1
	})
	must(t, w.NetworkErrorBudget.Put(index, make([]bpf.RouterBucket, ebpf.MustPossibleCPU())))
	if verdict, _ := w.fire(s); verdict != verdictRedirect {
		t.Errorf("with a full budget the verdict is %d, want redirect", verdict)
	}
}
