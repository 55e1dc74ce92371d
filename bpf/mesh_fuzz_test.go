package bpf_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixpn/sixpn"
)

const (
	remotePort      = 446 // of the VIP, to the other host's Machine in the same network
	remoteCrossPort = 447 // and in the other one
	farHex          = "001886dd"
	farMachineHex   = "000c0021"
)

// addRemote adds services whose backends are on the other host, and what its clients
// may reach across networks here.
func addRemote(w *world) {
	for i, network := range []sixpn.Network{red, blue} {
		id := uint32(7 + i)
		index := w.addBackend(&member{network: network, host: farHost, machine: 0x000c0021}, innerPort, id)
		service := w.service(id, index)
		service.Flags = uint8(i)
		w.put(w.Services, serviceKey(protocolTCP, uint16(remotePort+i)), service)
	}
	w.allocate(red, w.foreign, protocolTCP, innerPort)
}

// ends are an address's parts, as they are written.
type ends struct{ prefix, network, host, machine, low string }

func endsOf(raw []byte) ends {
	s := hex.EncodeToString(raw)
	return ends{s[:4], s[4:12], s[12:20], s[20:28], s[28:]}
}

func (e ends) isMachine() bool {
	return e.prefix == "fdaa" && e.network != "00000000" && e.host > "00000002" && e.machine != "00000000"
}

func (e ends) isAgent() bool {
	return e.prefix == "fdaa" && e.host > "00000002" && e.machine == "00000000" && e.low == "0001"
}

// transport finds the protocol and its header, behind destination options.
func transport(frame []byte) (protocol byte, header []byte) {
	protocol, header = frame[20], frame[54:]
	for protocol == 60 && len(header) >= 2 && len(header) >= 8+8*int(header[1]) {
		protocol, header = header[0], header[8+8*int(header[1]):]
	}
	return protocol, header
}

// answers says whether a packet begins nothing.
func answers(frame []byte) bool {
	protocol, header := transport(frame)
	switch protocol {
	case 6:
		return len(header) > 13 && header[13]&0x17 != 0x02
	case 58:
		return len(header) > 0 && (header[0] < 128 || header[0] == 129)
	}
	return false
}

// tellsLoad says whether a frame is of UDP, right behind the IPv6 header, from port 5182 to it.
func tellsLoad(frame []byte) bool {
	return frame[20] == 17 && len(frame) >= 58 && bytes.Equal(frame[54:58], []byte{0x14, 0x3e, 0x14, 0x3e})
}

func isErrorFrame(frame []byte) bool { return frame[20] == 58 && frame[54] < 128 }

// ports are those of a TCP segment, or turned round those of one that an error quotes.
func ports(frame []byte) (source, destination uint16, ok bool) {
	if isErrorFrame(frame) {
		if len(frame) < 106 || frame[68] != 6 {
			return 0, 0, false
		}
		return binary.BigEndian.Uint16(frame[104:]), binary.BigEndian.Uint16(frame[102:]), true
	}
	protocol, header := transport(frame)
	if protocol != 6 || len(header) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(header), binary.BigEndian.Uint16(header[2:]), true
}

// departs says why a frame must not go from a port to another host, "" if it may.
func departs(in string, left []byte) string {
	source, destination := endsOf(left[22:38]), endsOf(left[38:54])
	if destination.prefix != "fdaa" || destination.host <= "00000002" || destination.host == hereHex {
		return "it goes to no other host"
	}
	same := source.network == destination.network
	if in == "private" {
		switch {
		case source.host != hereHex || !source.isAgent():
			return "the private namespace is not that to another host"
		case source.network == "00000000":
			if destination.network == "00000000" && destination.isAgent() && (left[20] == 58 || tellsLoad(left)) {
				return ""
			}
			return "an agent among hosts asks agents for an echo and tells them of load, and nothing else"
		case !same || !destination.isMachine():
			return "an agent inside a network goes to its Machines"
		}
		return ""
	}
	if !strings.HasPrefix(hex.EncodeToString(left[22:38]), parties[in].own) {
		return "its source is not its port's"
	}
	switch {
	case same && destination.isMachine():
		return ""
	case same && destination.isAgent() && answers(left):
		return ""
	case same || !destination.isMachine():
		return "no Machine is there"
	}
	from, to, ok := ports(left)
	switch {
	case !ok:
		return "only tcp crosses"
	case in == "foreign" && destination.network == redHex[4:] && from == innerPort && answers(left):
		return "" // the backend's reply, by the allocation
	case parties[in].network == redHex && destination == (ends{"fdaa", blueHex[4:], farHex, farMachineHex, destination.low}) && to == innerPort:
		return "" // the client's segment, by its flow
	}
	return "it crosses networks without an allocation or a flow"
}

// arrives says why a frame of another host must not leave as it did, "" if it may.
func arrives(w *world, came, left []byte) string {
	source, destination := endsOf(came[22:38]), endsOf(came[38:54])
	if source.prefix != "fdaa" || source.host == hereHex || source.host <= "00000002" || destination.host != hereHex {
		return "it should not have been admitted"
	}
	i := slices.IndexFunc(w.members, func(m *member) bool { return m != w.mesh && mac(left[6:12]) == m.router })
	if i < 0 {
		// An answer, to who sent it, by the agent in the sender's network.
		answer := turned(left)
		if by := endsOf(answer[22:38]); endsOf(answer[38:54]) != source || !by.isAgent() || by.host != hereHex || by.network != source.network {
			return "it is no answer of the agent to its sender"
		}
		return ""
	}
	to := w.members[i]
	source, destination = endsOf(left[22:38]), endsOf(left[38:54])
	same := source.network == destination.network
	if to == w.private {
		among := source.network == "00000000"
		switch {
		case !destination.isAgent() || destination.host != hereHex || !same || !answers(left) && !(among && tellsLoad(left)):
			return "the agent takes answers, and of other agents load"
		case among != source.isAgent():
			return "agents answer among hosts, Machines inside a network"
		}
		return ""
	}
	own := parties[to.name].own
	if own == "" || !strings.HasPrefix(hex.EncodeToString(left[38:54]), own) {
		return "the device is not its destination's"
	}
	from, inner, ok := ports(left)
	switch {
	case hex.EncodeToString(left[22:38]) == vipHex:
		origin := endsOf(came[22:38])
		if to.network == red && ok && (from == remotePort || from == remoteCrossPort) && (isErrorFrame(left) || origin.machine == farMachineHex) {
			return ""
		}
		return "no backend of a flow sent it"
	case source.host == hereHex:
		return "it comes in this host's name"
	case same && (source.isMachine() || source.isAgent()):
		return ""
	case to == w.foreign && source.network == redHex[4:] && source.isMachine() && ok && inner == innerPort:
		return ""
	}
	return "it crosses networks without an allocation"
}

// FuzzMesh has any packet come from another host.
func FuzzMesh(f *testing.F) {
	eachShot(newWorld(f), tables(), func(w *world, s shot) {
		if w.mesh != nil && s.ifindex == w.mesh.ifindex {
			f.Add(uint16(0), s.frame)
		}
	})
	w := newWorld(f, func(s *settings) { s.eventsPerSecond = 0 })
	fuzzWorld(w)
	keep := w.keys(w.Flows)
	f.Fuzz(func(t *testing.T, repair uint16, frame []byte) {
		if len(frame) < offsetIP+offsetL4 || len(frame) > 1600 {
			return // what BPF_PROG_TEST_RUN does not take
		}
		w.t = t
		frame = w.repairMesh(repair, slices.Clone(frame))
		verdict, left := w.fire(shot{ifindex: w.mesh.ifindex, frame: frame})
		switch verdict {
		case verdictDrop:
		case verdictRedirect:
			if reason := arrives(w, frame, left); reason != "" {
				t.Errorf("a packet of another host: %s\ncame % x\nleft % x", reason, frame, left)
			}
		default:
			t.Errorf("the verdict is %d", verdict)
		}
		w.forget(keep)
	})
}

// repairMesh is repair for what comes from another host.
func (w *world) repairMesh(bits uint16, frame []byte) []byte {
	take := func(width int) int {
		value := int(bits & (1<<width - 1))
		bits >>= width
		return value
	}
	if take(1) == 1 {
		copy(frame[offsetType:], []byte{0x86, 0xdd, 0x60})
		setLength(frame)
	}
	sources := []netip.Addr{
		{}, farMachine(red), far(red, 0x8123), farMachine(blue), sixpn.AgentAddr(red, farHost), sixpn.AgentAddr(0, farHost),
		w.client.addr(), sixpn.MachineAddr(red, otherHost, 1),
	}
	if source := sources[take(3)]; source.IsValid() {
		setAddress(frame, offsetSource, source)
	}
	destinations := []netip.Addr{
		{}, w.client.addr(), w.foreign.addr(), w.client.low(slot(linkLow, testVIP, remotePort, 0)),
		w.client.low(slot(linkLow, testVIP, remoteCrossPort, 0)), sixpn.AgentAddr(red, thisHost), sixpn.AgentAddr(0, thisHost), vip(),
	}
	if destination := destinations[take(3)]; destination.IsValid() {
		setAddress(frame, offsetTarget, destination)
	}
	if next := []byte{0, protocolTCP, protocolUDP, protocolICMP}[take(2)]; next != 0 {
		frame[offsetNext] = next
	}
	if source := []uint16{0, innerPort, clientPort, 2 << 8, loadPort}[take(3)%5]; source != 0 {
		binary.BigEndian.PutUint16(frame[offsetL4:], source)
	}
	if target := []uint16{0, innerPort, clientPort, 53, loadPort}[take(3)%5]; target != 0 {
		binary.BigEndian.PutUint16(frame[offsetL4+2:], target)
	}
	if frame[offsetNext] == protocolTCP && take(1) == 1 {
		frame[offsetL4+12] = 5 << 4
	}
	return frame
}

// The oracles are no yes-men.
func TestMeshOracles(t *testing.T) {
	w := newWorld(t)
	withMesh(w)
	segment := func(from, to uint16) []byte { return tcp(from, to, flagACK, 1, 2) }
	for name, c := range map[string]struct {
		in     *member
		out    *member
		from   netip.Addr
		to     netip.Addr
		l4     []byte
		breaks bool
	}{
		"out, same network":         {w.client, w.mesh, w.client.addr(), farMachine(red), segment(1, 2), false},
		"out, another network":      {w.client, w.mesh, w.client.addr(), far(blue, 3), segment(1, 2), true},
		"out, by a flow":            {w.client, w.mesh, w.client.addr(), farMachine(blue), segment(1, innerPort), false},
		"out, the backend's reply":  {w.foreign, w.mesh, w.foreign.addr(), farMachine(red), segment(innerPort, 1), false},
		"out, spoofed":              {w.client, w.mesh, w.server.addr(), farMachine(red), segment(1, 2), true},
		"out, to an agent":          {w.client, w.mesh, w.client.addr(), sixpn.AgentAddr(red, farHost), segment(1, 2), false},
		"out, to this host":         {w.client, w.mesh, w.client.addr(), w.server.addr(), segment(1, 2), true},
		"out, in dns's name":        {w.private, w.mesh, sixpn.DNS, farMachine(red), segment(1, 2), true},
		"in, same network":          {w.mesh, w.server, farMachine(red), w.server.addr(), segment(1, 2), false},
		"in, another network":       {w.mesh, w.foreign, farMachine(red), w.foreign.addr(), segment(1, 2), true},
		"in, by the allocation":     {w.mesh, w.foreign, farMachine(red), w.foreign.addr(), segment(1, innerPort), false},
		"in, a third network":       {w.mesh, w.foreign, farMachine(red + 5), w.foreign.addr(), segment(1, innerPort), true},
		"in, in this host's name":   {w.mesh, w.server, w.client.addr(), w.server.addr(), segment(1, 2), true},
		"in, to the wrong device":   {w.mesh, w.spare, farMachine(red), w.server.addr(), segment(1, 2), true},
		"in, to the agent":          {w.mesh, w.private, farMachine(red), sixpn.AgentAddr(red, thisHost), segment(1, 2), false},
		"in, to another's agent":    {w.mesh, w.private, farMachine(red), sixpn.AgentAddr(blue, thisHost), segment(1, 2), true},
		"in, a Machine among hosts": {w.mesh, w.private, farMachine(red), sixpn.AgentAddr(0, thisHost), segment(1, 2), true},
		"out, load by tcp":          {w.private, w.mesh, sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), segment(loadPort, loadPort), true},
	} {
		t.Run(name, func(t *testing.T) {
			frame := fromAs(c.in, c.from, c.to, protocolTCP, c.l4).frame
			reason := ""
			if c.in == w.mesh {
				reason = arrives(w, frame, plain(frame, c.out))
			} else {
				reason = departs(c.in.name, frame)
			}
			if reason != "" != c.breaks {
				t.Errorf("the oracle says %q", reason)
			}
		})
	}
}
