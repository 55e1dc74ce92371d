package bpf_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const vnetUDP = 5 // segments of a datagram each with a header of its own

// What a guest hands over as one frame to be cut is counted as the packets it becomes,
// whose number its device does not say.
func TestTapSegmentsAreCounted(t *testing.T) {
	const size = 1200
	w := newWorld(t)
	client, server := newTap(t, w, w.client, true, 0), newTap(t, w, w.server, true, 0)
	for name, c := range map[string]struct {
		kind     uint8
		header   uint16
		protocol uint8
		total    int // bytes of data
		segments int
	}{
		"udp":            {vnetUDP, 8, protocolUDP, 3000, 3},
		"udp, all full":  {vnetUDP, 8, protocolUDP, 2400, 2},
		"udp, a byte on": {vnetUDP, 8, protocolUDP, 2401, 3},
		"tcp":            {vnetTCPv6, 20, protocolTCP, 3000, 3},
		"tcp, all full":  {vnetTCPv6, 20, protocolTCP, 2400, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l4 := udp(1, 2, pattern(c.total)...)
			if c.protocol == protocolTCP {
				l4 = tcp(1, 2, flagACK, 3, 4, pattern(c.total)...)
			}
			w.t, client.t, server.t = t, t, t
			s := from(w.client, w.server.addr(), c.protocol, l4)
			frame := half(s.frame)
			header := needsChecksum(frame)
			header.GSOType, header.GSOSize, header.HdrLen = c.kind, size, offsetL4+c.header
			before := w.counts()
			client.send(header, frame)
			expected := w.expectedCounts(before, shot{ifindex: w.client.ifindex, frame: frame, gsoSegs: uint32(c.segments)},
				outcome{to: w.server})
			if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-want +got):\n%s", diff)
			}
			for i := range c.segments {
				_, got := server.receive()
				requireChecksums(t, got)
				if want := min(size, c.total-i*size); len(got) != offsetL4+int(c.header)+want {
					t.Errorf("segment %d has %d bytes of data, want %d", i, len(got)-offsetL4-int(c.header), want)
				}
			}
		})
	}
}
