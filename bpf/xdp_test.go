package bpf_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/bpf"
)

// What an XDP program returns.
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// xdpFrame is struct xdp_md as BPF_PROG_TEST_RUN takes it.
type xdpFrame struct {
	Data, DataEnd, DataMeta                 uint32
	IngressIfindex, RxQueueIndex, EgressIfi uint32
}

func runXDP(program *ebpf.Program, ifindex uint32, frame []byte) (uint32, []byte, error) {
	options := ebpf.RunOptions{
		Data: frame, DataOut: make([]byte, len(frame)+256), Context: &xdpFrame{DataEnd: uint32(len(frame)), IngressIfindex: ifindex},
	}
	verdict, err := program.Run(&options)
	return verdict, options.DataOut, err
}

// arrivalProgram is the XDP program of the world.
func (w *world) arrivalProgram() *ebpf.Program {
	if w.way == byGeneric {
		return w.xdp.SixpnGeneric
	}
	return w.xdp.SixpnXdp
}

// fireXDP runs XDP over a frame of another host. The verdict is that of tcx: next is what
// XDP leaves to it, which has to be the frame as it came.
func (w *world) fireXDP(s shot) (verdict uint32, frame []byte) {
	w.t.Helper()
	verdict, frame, err := runXDP(w.arrivalProgram(), s.ifindex, s.frame)
	must(w.t, err)
	switch verdict {
	case xdpDrop:
		return verdictDrop, frame
	case xdpRedirect:
		return verdictRedirect, frame
	case xdpPass:
		if !bytes.Equal(frame, s.frame) {
			w.t.Errorf("XDP leaves to tcx\n% x\nof what came as\n% x", frame, s.frame)
		}
		return verdictNext, frame
	}
	w.t.Fatalf("the verdict of XDP is %d", verdict)
	return 0, nil
}

// handsOver says whether a frame is one that XDP leaves to tcx.
func (w *world) handsOver(s shot, want outcome) bool {
	switch {
	case holdsError(s.frame): // also those that are dropped
		return true
	case want.to == nil: // an answer, or a drop
		return want.frame != nil
	case want.to == w.private, s.gsoSize != 0:
		return true
	case w.way == byGeneric:
		return !bytes.Equal(want.frame[offsetSource:offsetL4], s.frame[offsetSource:offsetL4]) // a translation
	}
	return false
}

// holdsError says whether a frame is an ICMPv6 error, behind whatever headers of 8 bytes.
func holdsError(frame []byte) bool {
	next, l4 := frame[offsetNext], frame[offsetL4:]
	for (next == nextDestination || next == nextFragment) && len(l4) >= 8 {
		next, l4 = l4[0], l4[8:]
	}
	return next == protocolICMP && len(l4) > 0 && l4[0] < icmpEcho
}

// What holds on an uplink holds there with XDP before, whoever of the two does it.
func TestXDPPackets(t *testing.T) {
	for _, by := range []way{byDriver, byGeneric} {
		for _, c := range slices.Concat(arriveTables(), departTables(), remoteFlowTables()) {
			t.Run(by.String()+"/"+c.name, func(t *testing.T) { c.runBy(t, by) })
		}
	}
}

// Frames without an address of ours are the host's, as they came.
func TestXDPPassesWhatIsNotOurs(t *testing.T) {
	for _, by := range []way{byDriver, byGeneric} {
		w := newWorld(t, func(s *settings) { s.way = by })
		withMesh(w)
		frames := strangers(w)
		ours := turned(fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...)).frame)
		frames["ipv6 cut short"] = ours[:offsetL4-1]
		// Its tag is taken off, and seen, by the kernel before tcx is asked.
		frames["a vlan tag"] = slices.Concat(ours[:offsetType], []byte{0x81, 0, 0, 5}, ours[offsetType:])
		for name, frame := range frames {
			t.Run(by.String()+"/"+name, func(t *testing.T) {
				w.t = t
				before := w.counts()
				verdict, out, err := runXDP(w.arrivalProgram(), w.mesh.ifindex, frame)
				must(t, err)
				if verdict != xdpPass || !bytes.Equal(out, frame) {
					t.Errorf("the verdict is %d and the frame % x, want pass (%d) and % x", verdict, out, xdpPass, frame)
				}
				if diff := cmp.Diff(before, w.counts(), ignoreLayout); diff != "" {
					t.Errorf("counters afterwards (-before +now):\n%s", diff)
				}
			})
		}
	}
}

// A device that takes no frames of XDP gets its packets by tcx.
func TestXDPLeavesDevicesToTCX(t *testing.T) {
	for _, by := range []way{byDriver, byGeneric} {
		w := newWorld(t, func(s *settings) { s.way = by })
		for _, c := range []struct {
			name   string
			method bpf.RouterRedirectMethod
			handed bool
		}{
			{"made ready for it", bpf.RouterRedirectMethodREDIRECT_XDP, false},
			{"a veth", bpf.RouterRedirectMethodREDIRECT_PEER, true},
			{"a tap", bpf.RouterRedirectMethodREDIRECT_EGRESS, true},
		} {
			t.Run(by.String()+"/"+c.name, func(t *testing.T) {
				w.t = t
				w.reset()
				withMesh(w)
				device := bpf.RouterMachine{
					Network: uint32(red), Machine: uint32(w.server.machine), Ifindex: w.server.ifindex, Counters: w.server.counters, Mtu: testMTU,
					Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Redirect: uint8(c.method), Mac: w.server.guest, RouterMac: w.server.router,
				}
				must(t, bpf.MachineSlots(w.MachineSlots).Put(device))
				s := fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...))
				if _, _ = w.fire(s); w.handed != c.handed {
					t.Errorf("XDP left the frame to tcx: %t, expected %t", w.handed, c.handed)
				}
				if got := w.counts().Ports["server"].TxPackets; got == 0 {
					t.Error("the Machine got nothing")
				}
			})
		}
	}
}

// Before its port is written the uplink lets nothing of ours in by XDP either.
func TestXDPWithoutItsPort(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.way = byDriver })
	withMesh(w)
	must(t, bpf.PortSlots(w.PortSlots).Delete(w.mesh.ifindex))
	frame := turned(fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...)).frame)
	verdict, _, err := runXDP(w.xdp.SixpnXdp, w.mesh.ifindex, frame)
	must(t, err)
	if verdict != xdpDrop || w.counts().PortDrops["mesh unknown_port"] != 1 {
		t.Errorf("the verdict is %d, %v: expected a drop of an unknown port", verdict, w.counts().PortDrops)
	}
}
