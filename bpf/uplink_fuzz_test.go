package bpf_test

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// Where an error's quote has its addresses and ports, written down by hand like the rest of
// what the oracles know.
const (
	quotedFrom  = 70
	quotedTo    = 86
	quotedPorts = 102
)

// arrivesByUplink says why a frame must not leave as it did, "" if it may.
func arrivesByUplink(w *world, came, left []byte) string {
	if hex.EncodeToString(came[22:24]) == "fdaa" {
		return arrives(w, came, left)
	}
	if !isErrorFrame(came) || len(came) < quotedPorts+4 {
		return "nobody but the fabric, with an error, has no address of ours"
	}
	to, about, towards := endsOf(came[38:54]), endsOf(came[quotedFrom:quotedTo]), endsOf(came[quotedTo:quotedPorts])
	if about.prefix != "fdaa" || about.network != to.network || about.host != to.host || about.machine != to.machine || to.host != hereHex {
		return "it is about what its receiver has not sent"
	}
	if towards.prefix != "fdaa" || towards.host == hereHex || towards.host <= "00000002" {
		return "it is about what has not left this host"
	}
	i := slices.IndexFunc(w.members, func(m *member) bool { return m != w.mesh && mac(left[6:12]) == m.router })
	if i < 0 || parties[w.members[i].name].own == "" {
		return "errors of the fabric are for Machines"
	}
	if !strings.HasPrefix(hex.EncodeToString(left[38:54]), parties[w.members[i].name].own) {
		return "the device is not its destination's"
	}
	source := endsOf(left[22:38])
	from := binary.BigEndian.Uint16(came[quotedPorts:])
	inner := binary.BigEndian.Uint16(came[quotedPorts+2:])
	switch {
	case hex.EncodeToString(left[22:38]) == vipHex:
		if to.network == redHex[4:] && towards.machine == farMachineHex && inner == innerPort {
			return ""
		}
		return "no flow sent what it is about"
	case !source.isAgent() || source.host != hereHex || source.network != to.network:
		return "it does not come in the agent's name"
	case towards.network == to.network:
		return ""
	case w.members[i] == w.foreign && towards.network == redHex[4:] && from == innerPort:
		return ""
	}
	return "it is about what crosses networks without an allocation"
}

// touches says whether a frame has an address of ours.
func touches(frame []byte) bool {
	return hex.EncodeToString(frame[12:14]) == "86dd" &&
		(hex.EncodeToString(frame[22:24]) == "fdaa" || hex.EncodeToString(frame[38:40]) == "fdaa")
}

// FuzzUplink has any frame come by the uplink: to XDP, and what that leaves to tcx.
func FuzzUplink(f *testing.F) {
	eachShot(newWorld(f, func(s *settings) { s.way = byUplink }), slices.Concat(arriveTables(), fabricTables()), func(w *world, s shot) {
		if w.mesh != nil && s.ifindex == w.mesh.ifindex {
			f.Add(uint16(0), s.frame)
		}
	})
	w := newWorld(f, func(s *settings) { s.way, s.eventsPerSecond = byDriver, 0 })
	fuzzWorld(w)
	keep := w.keys(w.Flows)
	f.Fuzz(func(t *testing.T, repair uint16, frame []byte) {
		if len(frame) < offsetIP+offsetL4 || len(frame) > 1600 {
			return // what BPF_PROG_TEST_RUN does not take
		}
		w.t = t
		frame = w.repairMesh(repair, slices.Clone(frame))
		copy(frame, w.mesh.router[:])
		copy(frame[6:], w.mesh.guest[:])
		verdict, left := w.fire(shot{ifindex: w.mesh.ifindex, frame: frame})
		switch verdict {
		case verdictDrop:
		case verdictNext:
			if touches(frame) {
				t.Errorf("the host gets a frame with an address of ours: % x", frame)
			}
		case verdictRedirect:
			if reason := arrivesByUplink(w, frame, left); reason != "" {
				t.Errorf("a frame of the uplink: %s\ncame % x\nleft % x", reason, frame, left)
			}
		default:
			t.Errorf("the verdict is %d", verdict)
		}
		w.forget(keep)
	})
}

// The oracle is no yes-man.
func TestUplinkOracle(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.way = byUplink })
	withMesh(w)
	plainError := func() shot {
		return byFabric(w, w.server, ipv6(w.server.addr(), farMachine(red), protocolUDP, udp(1, 2, make([]byte, 20)...)))
	}
	good := inAgentsName(toServer)
	for name, c := range map[string]struct {
		change func(came, left []byte)
		breaks bool
	}{
		"an error":                          {func(_, _ []byte) {}, false},
		"no error":                          {func(came, _ []byte) { came[offsetL4] = icmpEcho }, true},
		"in another network's agent's name": {func(_, left []byte) { left[offsetSource+5]++ }, true},
		"in the fabric's name":              {func(_, left []byte) { setAddress(left, offsetSource, fabricAddress) }, true},
		"to another device":                 {func(_, left []byte) { copy(left[6:], w.spare.router[:]) }, true},
		"about what stayed here":            {func(came, _ []byte) { setAddress(came, offsetQuoteTarget, w.client.addr()) }, true},
		"about another's packet":            {func(came, _ []byte) { setAddress(came, offsetQuoteSource, w.client.addr()) }, true},
		"about another network's":           {func(came, _ []byte) { setAddress(came, offsetQuoteTarget, farMachine(blue)) }, true},
	} {
		s := plainError()
		came, left := slices.Clone(s.frame), good(w, s)
		c.change(came, left)
		if reason := arrivesByUplink(w, came, left); (reason != "") != c.breaks {
			t.Errorf("%s: the oracle says %q, expected it to object: %t", name, reason, c.breaks)
		}
	}
}
