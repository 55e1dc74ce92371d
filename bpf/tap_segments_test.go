package bpf_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const vnetUDP = 5 // segments of a datagram each with a header of its own

// What a guest hands over as one frame to be cut is counted as the packets it becomes,
// whose number its device does not say.
func TestTapSegmentsAreCounted(t *testing.T) {
	const size, total, segments = 1200, 3000, 3
	w := newWorld(t)
	client, server := newTap(t, w, w.client, true, 0), newTap(t, w, w.server, true, 0)
	for name, c := range map[string]struct {
		kind     uint8
		header   uint16
		protocol uint8
		l4       []byte
	}{
		"udp": {vnetUDP, 8, protocolUDP, udp(1, 2, pattern(total)...)},
		"tcp": {vnetTCPv6, 20, protocolTCP, tcp(1, 2, flagACK, 3, 4, pattern(total)...)},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, client.t, server.t = t, t, t
			s := from(w.client, w.server.addr(), c.protocol, c.l4)
			frame := half(s.frame)
			header := needsChecksum(frame)
			header.GSOType, header.GSOSize, header.HdrLen = c.kind, size, offsetL4+c.header
			before := w.counts()
			client.send(header, frame)
			expected := w.expectedCounts(before, shot{ifindex: w.client.ifindex, frame: frame, gsoSegs: segments},
				outcome{to: w.server})
			if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-want +got):\n%s", diff)
			}
			for i := range segments {
				_, got := server.receive()
				requireChecksums(t, got)
				if want := min(size, total-i*size); len(got) != offsetL4+int(c.header)+want {
					t.Errorf("segment %d has %d bytes of data, want %d", i, len(got)-offsetL4-int(c.header), want)
				}
			}
		})
	}
}
