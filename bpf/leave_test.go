package bpf_test

import (
	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// leaveTables are the rows of "What may leave" that no earlier stage judges, and entries
// corrupted on purpose: only the final check stands between them and the wall.
func leaveTables() []table {
	const wall = bpf.RouterDropReasonDROP_WALL
	streamKey := func(w *world) bpf.RouterFlowKey { return flowKey(w, protocolTCP, vipPort, 0) }
	corrupt := func(change func(*world, *bpf.RouterFlow)) func(*world) {
		return func(w *world) {
			w.changeFlow(streamKey(w), func(f *bpf.RouterFlow) { change(w, f) })
		}
	}
	return []table{{
		name: "may leave from the private namespace",
		shot: func(w *world) shot {
			return fromAs(w.private, sixpn.DNS, w.client.addr(), protocolUDP, udp(53, 40000, 1))
		},
		to: toClient,
		rows: []row{
			{name: "dns to any network", change: func(w *world, s *shot) { target(w.foreign.addr())(w, s) }, to: toForeign},
			{name: "the network's dns", change: source(sixpn.NetworkDNS(red)), to: toClient},
			{name: "another network's dns", reason: wall, change: source(sixpn.NetworkDNS(blue))},
			{name: "the network's vip", change: source(vip()), to: toClient},
			{name: "another network's vip", reason: wall, change: source(sixpn.VIPAddr(blue, testVIP))},
			{name: "the network's agent", change: source(sixpn.AgentAddr(red, thisHost)), to: toClient},
			{name: "another network's agent", reason: wall, change: source(sixpn.AgentAddr(blue, thisHost))},
			{name: "the agent among hosts", reason: wall, change: source(sixpn.AgentAddr(0, thisHost))},
		},
	}, {
		name: "may leave by a flow", world: func(w *world) { flycastWorld(w); begun(w) },
		shot: func(w *world) shot { return stream(w, flagACK) },
		to:   toServer, frame: toStream,
		rows: []row{
			{name: "backend of another network", reason: wall, world: corrupt(func(w *world, f *bpf.RouterFlow) {
				f.BackendNetwork, f.BackendMachine = uint32(blue), uint32(w.foreign.machine)
			})},
			{name: "backend of another network, allocated", world: corrupt(func(w *world, f *bpf.RouterFlow) {
				f.BackendNetwork, f.BackendMachine, f.Flags = uint32(blue), uint32(w.foreign.machine), 1
			}), to: toForeign, frame: func(w *world, s shot) []byte { return translated(w, s.frame, w.foreign, backendPort, 0) }},
			{name: "own backend that is another machine", reason: wall, world: corrupt(func(_ *world, f *bpf.RouterFlow) { f.Flags = 2 })},
			{name: "backend that is the agent", reason: bpf.RouterDropReasonDROP_NO_MACHINE, world: corrupt(func(_ *world, f *bpf.RouterFlow) { f.BackendMachine = 0 }),
				frame: errorWith(icmpUnreachable, 3, 0)},
			{name: "backend on the host of vips", reason: bpf.RouterDropReasonDROP_OTHER_HOST,
				world: corrupt(func(_ *world, f *bpf.RouterFlow) { f.BackendHost = uint32(sixpn.HostVIP) })},
		},
	}, {
		name: "may leave as a reply", world: func(w *world) { flycastWorld(w); begun(w) },
		shot: func(w *world) shot { return reply(w, streamSlot(), flagACK) },
		to:   toClient, frame: fromVIP,
		rows: []row{
			{name: "by an entry that stands under another key", world: corrupt(func(_ *world, f *bpf.RouterFlow) { f.Key.Machine++ }), to: toClient},
		},
	}}
}
