package bpf_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/netns"
)

const attachIngress = ebpf.AttachTCXIngress

// offloadRow is one change of a frame whose checksum the kernel shall complete.
type offloadRow struct {
	name   string
	change func(header *vnet, frame *[]byte)
	reason bpf.DropReason
}

func offloadRows() []offloadRow {
	const forged = bpf.RouterDropReasonDROP_CHECKSUM_OFFLOAD
	return []offloadRow{
		{name: "passes"},
		{name: "from the source address on", reason: forged, change: func(h *vnet, _ *[]byte) { h.CsumStart = offsetSource }},
		{name: "into the destination address", reason: forged, change: func(h *vnet, _ *[]byte) { h.CsumStart, h.CsumOffset = offsetL4-2, 0 }},
		{name: "from behind the header on", reason: forged, change: func(h *vnet, _ *[]byte) { h.CsumStart, h.CsumOffset = offsetL4+2, 14 }},
		{name: "into the ports", reason: forged, change: func(h *vnet, _ *[]byte) { h.CsumOffset = 2 }},
		{name: "into the data", reason: forged, change: func(h *vnet, _ *[]byte) { h.CsumOffset = 20 }},
		{name: "of udp by tcp's field", reason: forged, change: func(_ *vnet, f *[]byte) {
			(*f)[offsetNext] = protocolUDP
			copy((*f)[offsetL4+4:], []byte{0, 24})
		}},
		{name: "of icmp by tcp's field", reason: forged, change: func(_ *vnet, f *[]byte) { (*f)[offsetNext] = protocolICMP; (*f)[offsetL4] = icmpEcho }},
		{name: "of a protocol of no interest", change: func(_ *vnet, f *[]byte) { (*f)[offsetNext] = 132 }},
		{name: "of a first fragment", change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextFragment, fragment(0, 0, true))
			h.CsumStart += 8
		}},
		{name: "of a later fragment", reason: forged, change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextFragment, fragment(0, 1448, true))
			h.CsumStart += 8
		}},
	}
}

// A guest behind a virtio header must not make the kernel write where it was checked.
func TestChecksumOffload(t *testing.T) {
	w := newWorld(t)
	client, server := newTap(t, w, w.client, true, 0), newTap(t, w, w.server, false, 0)
	for _, r := range offloadRows() {
		t.Run(r.name, func(t *testing.T) {
			w.t, client.t, server.t = t, t, t
			frame := half(from(w.client, w.server.addr(), protocolTCP, tcp(1, 2, flagSYN, 3, 4, 5, 6, 7, 8)).frame)
			header := needsChecksum(frame)
			if r.change != nil {
				r.change(&header, &frame)
			}
			before := w.counts()
			client.send(header, frame)
			if r.reason == 0 {
				_, got := server.receive()
				want := plain(complete(header, frame), w.server)
				if diff := cmp.Diff(dissect(want), dissect(got)); diff != "" {
					t.Errorf("the frame received (-want +got):\n%s", diff)
				}
			}
			want := outcome{reason: r.reason}
			if r.reason == 0 {
				want.to = w.server
			}
			// The kernel runs the router within the write.
			expected := w.expectedCounts(before, shot{ifindex: w.client.ifindex, frame: frame}, want)
			if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

// Everything that the router does to a frame it does to a half-checksummed one, for a
// receiver that takes such frames and for one that does not.
func TestHalfChecksums(t *testing.T) {
	type step struct {
		name  string
		shot  func(w *world) shot
		reply bool // to the client itself
		want  func(w *world, s shot) []byte
	}
	steps := []step{
		{name: "plain tcp", shot: func(w *world) shot {
			return from(w.client, w.server.addr(), protocolTCP, tcp(1, 2, flagACK, 3, 4, 5, 6, 7))
		}, want: func(w *world, s shot) []byte { return plain(s.frame, w.server) }},
		{name: "plain udp", shot: func(w *world) shot { return from(w.client, w.server.addr(), protocolUDP, udp(1, 2, 3)) },
			want: func(w *world, s shot) []byte { return plain(s.frame, w.server) }},
		{name: "segment to a vip", shot: func(w *world) shot { return stream(w, flagSYN, 1, 2, 3) }, want: toStream},
		{name: "datagram to a vip", shot: datagram, want: func(w *world, s shot) []byte { return translated(w, s.frame, w.server, datagramInner, 0) }},
		{name: "echo to a vip", reply: true, shot: func(w *world) shot { return from(w.client, vip(), protocolICMP, echo(1, 2, 3)) }, want: echoed},
		{name: "reset", reply: true, shot: func(w *world) shot {
			return from(w.client, vip(), protocolTCP, tcp(clientPort, 81, flagSYN, 7, 0, 1, 2, 3))
		}, want: resetAnswer},
		{name: "reset of data", reply: true, shot: func(w *world) shot {
			return from(w.client, vip(), protocolTCP, tcp(clientPort+1, vipPort, flagACK, 7, 9, make([]byte, 999)...))
		}, want: resetAnswer},
		{name: "unreachable", reply: true, shot: func(w *world) shot {
			return from(w.client, vip(), protocolUDP, udp(clientPort, 81, 1, 2, 3))
		}, want: errorWith(icmpUnreachable, 4, 0)},
		{name: "too big", reply: true, shot: func(w *world) shot {
			return from(w.client, w.server.addr(), protocolTCP, tcp(1, 2, flagACK, 3, 4, make([]byte, 1361)...))
		}, want: errorWith(icmpTooBig, 0, testMTU)},
		{name: "hop limit", reply: true, shot: func(w *world) shot {
			s := from(w.client, w.server.addr(), protocolUDP, udp(1, 2, 3))
			s.frame[offsetHop] = 1
			return s
		}, want: errorWith(icmpTimeExceeded, 0, 0)},
	}
	for _, offload := range []int{0, unix.TUN_F_CSUM} {
		w := newWorld(t)
		flycastWorld(w)
		client, server := newTap(t, w, w.client, true, offload), newTap(t, w, w.server, true, offload)
		for _, c := range steps {
			t.Run(fmt.Sprintf("%s, offload %d", c.name, offload), func(t *testing.T) {
				w.t, client.t, server.t = t, t, t
				s := c.shot(w)
				frame := half(s.frame)
				client.send(needsChecksum(frame), frame)
				receiver := server
				if c.reply {
					receiver = client
				}
				header, got := receiver.receive()
				if offload == 0 && header.Flags&vnetNeedsCsum != 0 {
					t.Errorf("a guest that takes no half checksum got one: %+v", header)
				}
				// A quote is completed in place: compare what the receiver makes of it.
				if diff := cmp.Diff(dissect(c.want(w, s)), dissect(complete(header, got))); diff != "" {
					t.Errorf("the frame received (-want +got):\n%s", diff)
				}
				requireChecksums(t, complete(header, got))
			})
		}
	}
}

// A large segment stays one for a receiver that takes it, and is cut for one that does not.
func TestSegmentsThroughATap(t *testing.T) {
	const size, total = 1360, 3000
	for name, offload := range map[string]int{"cut": 0, "whole": unix.TUN_F_CSUM | unix.TUN_F_TSO6} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			client, server := newTap(t, w, w.client, true, 0), newTap(t, w, w.server, true, offload)
			w.establish()
			s := stream(w, flagACK|flagPSH, pattern(total)...)
			frame := half(s.frame)
			header := needsChecksum(frame)
			header.GSOType, header.GSOSize, header.HdrLen = vnetTCPv6, size, offsetL4+20
			client.send(header, frame)
			var data []byte
			for len(data) < total {
				header, got := server.receive()
				if name == "cut" {
					requireChecksums(t, got)
				} else if header.GSOSize != size {
					t.Errorf("the segment size is %d, want %d", header.GSOSize, size)
				}
				want := toStream(w, s)
				if diff := cmp.Diff(want[:offsetPayload], got[:offsetPayload]); diff != "" {
					t.Errorf("the beginning (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(want[offsetSource:offsetL4+4], got[offsetSource:offsetL4+4]); diff != "" {
					t.Errorf("addresses and ports (-want +got):\n%s", diff)
				}
				data = append(data, got[offsetL4+20:]...)
			}
			if !slices.Equal(data, pattern(total)) {
				t.Errorf("the data is not what was sent")
			}
		})
	}
}

// Too large a segment gets one error, about its beginning.
func TestTooBigSegments(t *testing.T) {
	w := newWorld(t)
	client := newTap(t, w, w.client, true, 0)
	newTap(t, w, w.server, true, 0)
	s := from(w.client, w.server.addr(), protocolTCP, tcp(1, 2, flagACK, 3, 4, pattern(3000)...))
	frame := half(s.frame)
	header := needsChecksum(frame)
	header.GSOType, header.GSOSize, header.HdrLen = vnetTCPv6, 1361, offsetL4+20
	client.send(header, frame)
	_, got := client.receive()
	requireChecksums(t, got)
	source, destination := w.client.addr(), sixpn.AgentAddr(red, thisHost)
	want := ipv6(destination, source, protocolICMP, icmp(icmpTooBig, 0, testMTU, s.frame[offsetIP:offsetIP+1232]...))
	// The kernel completes the checksum over what is left of the segment.
	field := offsetQuoteL4 + 16
	if diff := cmp.Diff(want[offsetQuote-offsetIP:field-offsetIP], got[offsetQuote:field]); diff != "" {
		t.Errorf("the quote (-want +got):\n%s", diff)
	}
	if len(got) != offsetIP+len(want) || got[offsetL4] != icmpTooBig || word(got, offsetL4+4) != testMTU {
		t.Errorf("the answer has %d bytes, begins with % x", len(got), got[offsetL4:offsetQuote])
	}
}

func pattern(length int) []byte {
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return data
}

// A Machine's own kernel leaves checksums half done; a tap without a virtio header gets
// them complete, and its answer finds the socket.
func TestFromVethToTap(t *testing.T) {
	for _, withHeader := range []bool{false, true} {
		t.Run(fmt.Sprintf("virtio header %t", withHeader), func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			client, server := newGuest(t, w, w.client), newTap(t, w, w.server, withHeader, 0)
			conn, err := client.dial("udp6", datagramVIP)
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = conn.Write(pattern(999))
			must(t, err)
			_, got := server.receive()
			requireChecksums(t, got)
			low, source := port(got, offsetTarget-2), port(got, offsetL4)
			if want := slot(linkLow, testVIP, datagramPort, 0); low != want || port(got, offsetL4+2) != datagramInner {
				t.Errorf("it came from slot %#x to port %d, want %#x and %d", low, port(got, offsetL4+2), want, datagramInner)
			}
			answer := from(w.server, w.client.low(low), protocolUDP, udp(datagramInner, source, pattern(500)...)).frame
			if withHeader {
				server.send(needsChecksum(answer), half(answer))
			} else {
				server.send(vnet{}, answer)
			}
			data := make([]byte, 1000)
			n, err := conn.Read(data)
			must(t, err)
			if !slices.Equal(data[:n], pattern(500)) {
				t.Error("another answer came than was sent")
			}
		})
	}
}

// offload switches an offload of both ends of the guest's veth.
func (g *guest) offload(feature netns.Feature, on bool) {
	g.t.Helper()
	must(g.t, netns.SetFeature(g.host, feature, on))
	g.do(func() error { return netns.SetFeature("eth0", feature, on) })
}
