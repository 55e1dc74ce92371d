package bpf_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/bpf"
)

// BPF_PROG_TEST_RUN takes no frame without a whole IPv6 header, and knows no VLAN tag
// that the kernel has taken off: these come in by a device.
func TestFramesOfADevice(t *testing.T) {
	w := newWorld(t)
	client, server := newTap(t, w, w.client, false, 0), newTap(t, w, w.server, false, 0)
	whole := from(w.client, w.server.addr(), protocolUDP, udp(1, 2, 3)).frame
	type step struct {
		name   string
		frame  []byte
		reason bpf.DropReason
	}
	steps := []step{
		{"whole", whole, 0},
		{"vlan tag", slices.Concat(whole[:offsetType], []byte{0x81, 0, 0, 5}, whole[offsetType:]), bpf.RouterDropReasonDROP_NOT_IPV6},
		{"vlan tag of priority alone", slices.Concat(whole[:offsetType], []byte{0x81, 0, 0, 0}, whole[offsetType:]), bpf.RouterDropReasonDROP_NOT_IPV6},
		{"two vlan tags", slices.Concat(whole[:offsetType], []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6}, whole[offsetType:]), bpf.RouterDropReasonDROP_NOT_IPV6},
	}
	for _, length := range []int{offsetIP, offsetIP + 1, offsetSource, offsetL4 - 1} {
		steps = append(steps, step{fmt.Sprintf("%d bytes", length), whole[:length], bpf.RouterDropReasonDROP_BAD_LENGTH})
	}
	for _, c := range steps {
		t.Run(c.name, func(t *testing.T) {
			w.t, client.t, server.t = t, t, t
			before := w.counts()
			client.send(vnet{}, c.frame)
			want := outcome{reason: c.reason}
			if c.reason == 0 {
				want.to = w.server
				if _, got := server.receive(); !slices.Equal(got, plain(c.frame, w.server)) {
					t.Errorf("received\n% x, want\n% x", got, plain(c.frame, w.server))
				}
			}
			expected := w.expectedCounts(before, shot{ifindex: w.client.ifindex, frame: c.frame}, want)
			if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-want +got):\n%s", diff)
			}
		})
	}
}
