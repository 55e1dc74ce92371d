package bpf_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// The oracle knows the world of the fuzz target only as bytes of addresses, written down
// by hand, and shares nothing with the router or with what fills its tables.
const (
	redHex    = "fdaa" + "a7b0bea1"
	blueHex   = "fdaa" + "a7b0bea2"
	hereHex   = "00180a7b"
	vipHex    = redHex + "00000001" + "00000001" + "f00d"
	crossPort = 443
	innerPort = 8443
	dnsHex    = "fdaa" + "00000000" + "00000000" + "00000000" + "0003"
	redDNSHex = redHex + "00000000" + "00000000" + "0003"
)

// party is who is behind a port, to the oracle.
type party struct {
	network string // its prefix; "" for the private namespace
	own     string // its /112
}

var parties = map[string]party{
	"client":  {redHex, redHex + hereHex + "000a0011"},
	"server":  {redHex, redHex + hereHex + "000b0012"},
	"spare":   {redHex, redHex + hereHex + "000b0013"},
	"foreign": {blueHex, blueHex + hereHex + "000b0014"},
	"private": {},
}

// allowed says why a frame must not have gone from one port to another, "" if it may.
// The frame is the one that leaves.
func allowed(in, out string, came, left []byte) string {
	source, destination := hex.EncodeToString(left[22:38]), hex.EncodeToString(left[38:54])
	camefrom := hex.EncodeToString(came[22:38])
	from, to := parties[in], parties[out]
	own := func(p party, address string) bool { return p.own != "" && strings.HasPrefix(address, p.own) }

	// An answer goes to who asked, in the name of the router, the agent or who was asked.
	if in == out && destination == camefrom && !own(from, source) {
		return ""
	}
	if from.network != "" && !own(from, camefrom) {
		return "its source is not its port's"
	}
	if out == "private" {
		switch {
		case destination == dnsHex, destination == from.network+"00000000"+"00000000"+"0003",
			destination == from.network+hereHex+"00000000"+"0001":
			return ""
		}
		return "the private namespace has no such address for it"
	}
	if !own(to, destination) {
		return "the device is not its destination's"
	}
	if in == "private" {
		switch {
		case source == dnsHex, source == to.network+"00000000"+"00000000"+"0003",
			strings.HasPrefix(source, to.network+"00000001"+"0000"), source == to.network+hereHex+"00000000"+"0001":
			return ""
		}
		return "the private namespace is not that to the destination"
	}
	if from.network == to.network {
		switch {
		case own(from, source):
			return ""
		case in == out && strings.HasPrefix(source, from.network+"00000002"+from.own[20:]):
			return "" // itself through a VIP
		case source == vipHex:
			return ""
		}
		return "the source is neither its own nor the VIP"
	}
	// The one way across: network red's connections to the VIP's port 443, and their errors.
	ports := left[54:]
	if left[20] == 58 && ports[0] < 128 && len(ports) >= 52 {
		return acrossByError(in, out, left)
	}
	switch {
	case left[20] != 6:
		return "only tcp crosses"
	case from.network == redHex && out == "foreign" && own(from, source) && ports[2] == innerPort>>8 && ports[3] == innerPort&0xff:
		return ""
	case in == "foreign" && to.network == redHex && source == vipHex && ports[0] == crossPort>>8 && ports[1] == crossPort&0xff:
		return ""
	}
	return "it crosses networks without an allocation"
}

// acrossByError judges an ICMPv6 error between networks by what it quotes.
func acrossByError(in, out string, left []byte) string {
	quote := left[62:]
	source, destination := hex.EncodeToString(quote[8:24]), hex.EncodeToString(quote[24:40])
	forward := parties[in].network == redHex && out == "foreign" && strings.HasPrefix(source, parties["foreign"].own) &&
		strings.HasPrefix(destination, parties[in].own) && quote[40] == innerPort>>8 && quote[41] == innerPort&0xff
	back := in == "foreign" && parties[out].network == redHex && strings.HasPrefix(source, parties[out].own) &&
		destination == vipHex && quote[42] == crossPort>>8 && quote[43] == crossPort&0xff
	if quote[6] == 6 && (forward || back) {
		return ""
	}
	return "an error crosses networks about no allowed flow"
}

// fuzzWorld has one flow of each kind: to a neighbour, across networks, to oneself.
func fuzzWorld(w *world) {
	flycastWorld(w)
	cross := w.service(4, w.addBackend(w.foreign, innerPort, 4))
	cross.Flags = 1
	w.put(w.Services, serviceKey(protocolTCP, crossPort), cross)
	w.put(w.Services, serviceKey(protocolTCP, 444), w.service(5, w.addBackend(w.client, innerPort, 5)))
	// A mistake of the tables that only the final check stops.
	w.put(w.Services, serviceKey(protocolTCP, 445), w.service(6, w.addBackend(w.foreign, innerPort, 6)))
	w.establish()
	w.begin(datagram(w))
	withMesh(w)
	addRemote(w)
	for _, port := range []uint16{crossPort, 444, remotePort, remoteCrossPort} {
		w.begin(from(w.client, vip(), protocolTCP, tcp(clientPort, port, flagSYN, 1, 0)))
	}
}

// eachShot calls use with the frame of every row of tables, in the world of that row.
func eachShot(w *world, tables []table, use func(w *world, s shot)) {
	for _, c := range tables {
		for _, r := range append(c.rows, row{}) {
			w.reset()
			if c.world != nil {
				c.world(w)
			}
			s := c.shot(w)
			if r.change != nil {
				r.change(w, &s)
			}
			use(w, s)
		}
	}
}

// FuzzIsolation sends any frame into any port: whatever leaves must be within the walls.
func FuzzIsolation(f *testing.F) {
	eachShot(newWorld(f), tables(), func(w *world, s shot) {
		for i, m := range w.members {
			if m.ifindex == s.ifindex && m != w.mesh {
				f.Add(uint8(i), uint16(0), s.frame)
			}
		}
	})
	w := newWorld(f, func(s *settings) { s.eventsPerSecond = 0 })
	fuzzWorld(w)
	keep := w.keys(w.Flows)
	f.Fuzz(func(t *testing.T, port uint8, repair uint16, frame []byte) {
		// What BPF_PROG_TEST_RUN takes at all.
		if len(frame) < offsetL4 || len(frame) > 1600 {
			return
		}
		w.t = t
		in := w.members[int(port)%len(parties)]
		frame = w.repair(in, repair, slices.Clone(frame))
		// Whatever goes to another host keeps these, and whatever stays gets others.
		copy(frame, in.router[:])
		copy(frame[6:], in.guest[:])
		verdict, left := w.fire(shot{ifindex: in.ifindex, frame: frame})
		if reason := judge(w, in, verdict, frame, left); reason != "" {
			t.Errorf("a frame from %s: %s\ncame % x\nleft % x", in.name, reason, frame, left)
		}
		w.forget(keep)
	})
}

// repair makes of any bytes, more often than chance, a frame that gets past the first
// checks. Each group of bits is one repair, 0 is none.
func (w *world) repair(in *member, bits uint16, frame []byte) []byte {
	take := func(width int) int {
		value := int(bits & (1<<width - 1))
		bits >>= width
		return value
	}
	if take(1) == 1 {
		copy(frame[offsetType:], []byte{0x86, 0xdd, 0x60})
		setLength(frame)
	}
	if take(1) == 1 && in.machine != 0 {
		copy(frame[offsetSource:], in.addr().AsSlice()[:14])
	}
	destinations := []netip.Addr{
		{}, vip(), w.client.addr(), w.server.addr(), w.foreign.addr(), in.own(streamSlot()), sixpn.DNS, sixpn.NetworkDNS(red),
		sixpn.AgentAddr(red, thisHost), w.client.low(streamSlot()), w.client.low(slot(linkLow, testVIP, crossPort, 0)),
		in.own(slot(linkLow, testVIP, 444, 0)), farMachine(red), far(red, 0x8123), sixpn.AgentAddr(red, farHost), sixpn.AgentAddr(0, farHost),
	}
	if destination := destinations[take(4)]; destination.IsValid() {
		setAddress(frame, offsetTarget, destination)
	}
	if next := []byte{0, protocolTCP, protocolUDP, protocolICMP}[take(2)]; next != 0 {
		frame[offsetNext] = next
	}
	if len(frame) < offsetL4+20 {
		return frame
	}
	if source := []uint16{0, clientPort, backendPort, innerPort, datagramInner, 53, 1, 2}[take(3)]; source != 0 {
		binary.BigEndian.PutUint16(frame[offsetL4:], source)
	}
	if target := []uint16{0, clientPort, vipPort, crossPort, 444, 445, datagramPort, rangePort}[take(3)]; target != 0 {
		binary.BigEndian.PutUint16(frame[offsetL4+2:], target)
	}
	if frame[offsetNext] == protocolTCP && take(1) == 1 {
		frame[offsetL4+12] = 5 << 4
	}
	return frame
}

func judge(w *world, in *member, verdict uint32, came, left []byte) string {
	switch verdict {
	case verdictDrop:
		return ""
	case verdictRedirect:
	default:
		return fmt.Sprintf("the verdict is %d", verdict)
	}
	if bytes.Equal(left[:12], came[:12]) {
		return departs(in.name, turned(left))
	}
	// Devices have MACs of their own: who sends the frame says where it goes out.
	for _, m := range w.members {
		if m != w.mesh && bytes.Equal(left[6:12], m.router[:]) {
			if m != in && !bytes.Equal(left[:6], m.guest[:]) {
				return "it is not for the guest of its device"
			}
			return allowed(in.name, m.name, came, left)
		}
	}
	return "it leaves by no known device"
}

// keys lists the keys of a flow table.
func (w *world) keys(table *ebpf.Map) (keys map[bpf.RouterFlowKey]bool) {
	w.t.Helper()
	keys = map[bpf.RouterFlowKey]bool{}
	var key bpf.RouterFlowKey
	var value bpf.RouterFlow
	entries := table.Iterate()
	for entries.Next(&key, &value) {
		keys[key] = true
	}
	must(w.t, entries.Err())
	return keys
}

// forget deletes the flows that a frame made, so that each has the same world.
func (w *world) forget(keep map[bpf.RouterFlowKey]bool) {
	w.t.Helper()
	for key := range w.keys(w.Flows) {
		if !keep[key] {
			must(w.t, w.Flows.Delete(key))
		}
	}
	for _, m := range w.members {
		if m.machine != 0 {
			w.quota(m.network, 0, 1000)
			w.quota(m.network, m.machine, 1000)
		}
	}
}

// The oracle is not a yes-man: a frame that breaks a wall is called so.
func TestOracle(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		in, out *member
		frame   []byte
		breaks  bool
	}{
		"same network":      {w.client, w.server, plain(from(w.client, w.server.addr(), protocolUDP, udp(1, 2)).frame, w.server), false},
		"another network":   {w.client, w.foreign, plain(from(w.client, w.foreign.addr(), protocolUDP, udp(1, 2)).frame, w.foreign), true},
		"wrong device":      {w.client, w.spare, plain(from(w.client, w.server.addr(), protocolUDP, udp(1, 2)).frame, w.spare), true},
		"spoofed":           {w.client, w.server, plain(fromAs(w.client, w.spare.addr(), w.server.addr(), protocolUDP, udp(1, 2)).frame, w.server), true},
		"dns":               {w.client, w.private, plain(from(w.client, sixpn.DNS, protocolUDP, udp(1, 2)).frame, w.private), false},
		"another's dns":     {w.client, w.private, plain(from(w.client, sixpn.NetworkDNS(blue), protocolUDP, udp(1, 2)).frame, w.private), true},
		"answer of dns":     {w.private, w.client, plain(fromAs(w.private, sixpn.DNS, w.client.addr(), protocolUDP, udp(1, 2)).frame, w.client), false},
		"answer of another": {w.private, w.client, plain(fromAs(w.private, sixpn.NetworkDNS(blue), w.client.addr(), protocolUDP, udp(1, 2)).frame, w.client), true},
		"allocation":        {w.client, w.foreign, plain(from(w.client, w.foreign.addr(), protocolTCP, tcp(1, innerPort, 0, 0, 0)).frame, w.foreign), false},
		"another port":      {w.client, w.foreign, plain(from(w.client, w.foreign.addr(), protocolTCP, tcp(1, innerPort+1, 0, 0, 0)).frame, w.foreign), true},
	} {
		t.Run(name, func(t *testing.T) {
			came := slices.Concat(c.in.router[:], c.in.guest[:], c.frame[offsetType:])
			reason := judge(w, c.in, verdictRedirect, came, c.frame)
			if reason != "" != c.breaks {
				t.Errorf("the oracle says %q", reason)
			}
		})
	}
}
