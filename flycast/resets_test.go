package flycast_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

// fakes of the source and the sender.
type events []maps.ResetEvent

func (e events) ResetEvents(_ context.Context, handle func(maps.ResetEvent) error) error {
	for _, event := range e {
		if err := handle(event); err != nil {
			return err
		}
	}
	return nil
}

type sender struct {
	packets [][]byte
	fail    error
}

func (s *sender) Send(packet []byte) error {
	s.packets = append(s.packets, packet)
	return s.fail
}

var event = maps.ResetEvent{
	Client: netip.MustParseAddrPort("[fdaa:0:17:a7b:bea:0:a:2]:40000"),
	VIP:    netip.MustParseAddrPort("[fdaa:0:17:0:1::3]:80"),
}

// decode takes a packet apart with another implementation.
func decode(t interface{ Fatalf(string, ...any) }, packet []byte) (*layers.IPv6, *layers.TCP) {
	decoded := gopacket.NewPacket(packet, layers.LayerTypeIPv6, gopacket.Default)
	if failure := decoded.ErrorLayer(); failure != nil {
		t.Fatalf("the packet is malformed: %v", failure.Error())
	}
	ip, ok := decoded.NetworkLayer().(*layers.IPv6)
	tcp, ok2 := decoded.TransportLayer().(*layers.TCP)
	if !ok || !ok2 {
		t.Fatalf("the packet is no TCP over IPv6: %v", decoded)
	}
	return ip, tcp
}

func TestResets(t *testing.T) {
	t.Parallel()
	var out sender
	resets := flycast.Resets{Source: events{event}, Sender: &out, Log: quiet}
	if err := resets.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(out.packets) != 2 {
		t.Fatalf("%d packets for one flow, want 2", len(out.packets))
	}
	var sequences []uint32
	for _, packet := range out.packets {
		ip, tcp := decode(t, packet)
		if ip.SrcIP.String() != event.VIP.Addr().String() || ip.DstIP.String() != event.Client.Addr().String() ||
			tcp.SrcPort != 80 || tcp.DstPort != 40000 {
			t.Errorf("the packet goes from %v:%d to %v:%d", ip.SrcIP, tcp.SrcPort, ip.DstIP, tcp.DstPort)
		}
		if !tcp.ACK || tcp.SYN || tcp.RST || tcp.FIN || tcp.PSH || len(tcp.Payload) != 0 {
			t.Errorf("the segment is no bare ACK: %+v", tcp)
		}
		sequences = append(sequences, tcp.Seq)
	}
	if sequences[1]-sequences[0] != 1<<31 {
		t.Errorf("the sequence numbers are %d and %d, want them 2^31 apart", sequences[0], sequences[1])
	}
}

// A client that cannot be told does not keep the others from it.
func TestResetsGoOnAfterAnError(t *testing.T) {
	t.Parallel()
	out := sender{fail: errors.New("no")}
	resets := flycast.Resets{Source: events{event, event}, Sender: &out, Log: quiet}
	if err := resets.Run(context.Background()); err != nil || len(out.packets) != 2 {
		t.Errorf("%d packets were tried, error %v; want one for each of two flows", len(out.packets), err)
	}
}

func TestResetsNeedAll(t *testing.T) {
	t.Parallel()
	if err := (&flycast.Resets{Log: quiet}).Run(context.Background()); err == nil {
		t.Error("resets without a source and a sender ran")
	}
}

// The bytes are those that another implementation makes, checksum included.
func TestBareACK(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		addrPort := func(name string) netip.AddrPort {
			var raw [16]byte
			copy(raw[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
			raw[0] = 0xfd
			return netip.AddrPortFrom(netip.AddrFrom16(raw), rapid.Uint16().Draw(t, name+" port"))
		}
		source, destination := addrPort("source"), addrPort("destination")
		sequence := rapid.Uint32().Draw(t, "sequence")

		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: source.Addr().AsSlice(), DstIP: destination.Addr().AsSlice()}
		tcp := &layers.TCP{SrcPort: layers.TCPPort(source.Port()), DstPort: layers.TCPPort(destination.Port()), Seq: sequence, ACK: true}
		buffer := gopacket.NewSerializeBuffer()
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(buffer.Bytes(), flycast.BareACK(source, destination, sequence)); d != "" {
			t.Fatalf("the packet differs (- expected, + made):\n%s", d)
		}
	})
}
