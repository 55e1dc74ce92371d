package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Offsets into a frame without extension headers.
const (
	offsetType    = 12
	offsetIP      = 14
	offsetPayload = offsetIP + 4
	offsetNext    = offsetIP + 6
	offsetHop     = offsetIP + 7
	offsetSource  = offsetIP + 8
	offsetTarget  = offsetIP + 24
	offsetL4      = offsetIP + 40
)

const (
	protocolTCP  = unix.IPPROTO_TCP
	protocolUDP  = unix.IPPROTO_UDP
	protocolICMP = unix.IPPROTO_ICMPV6
)

const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
)

type mac [6]byte

// ethernet puts an IPv6 packet into a frame.
func ethernet(to, from mac, packet []byte) []byte {
	return slices.Concat(to[:], from[:], []byte{0x86, 0xdd}, packet)
}

// ipv6 makes a packet of hop limit 64.
func ipv6(source, destination netip.Addr, next uint8, payload []byte) []byte {
	header := []byte{0x60, 0, 0, 0, 0, 0, next, 64}
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	return slices.Concat(header, source.AsSlice(), destination.AsSlice(), payload)
}

func tcp(source, destination uint16, flags uint8, sequence, acknowledgment uint32, data ...byte) []byte {
	header := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(header[0:], source)
	binary.BigEndian.PutUint16(header[2:], destination)
	binary.BigEndian.PutUint32(header[4:], sequence)
	binary.BigEndian.PutUint32(header[8:], acknowledgment)
	header[12] = 5 << 4
	header[13] = flags
	binary.BigEndian.PutUint16(header[14:], 0xffff)
	return append(header, data...)
}

func udp(source, destination uint16, data ...byte) []byte {
	header := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(header[0:], source)
	binary.BigEndian.PutUint16(header[2:], destination)
	binary.BigEndian.PutUint16(header[4:], uint16(8+len(data)))
	return append(header, data...)
}

// icmp makes a message; word is what follows the checksum.
func icmp(kind, code uint8, word uint32, data ...byte) []byte {
	header := make([]byte, 8, 8+len(data))
	header[0], header[1] = kind, code
	binary.BigEndian.PutUint32(header[4:], word)
	return append(header, data...)
}

// fragment is a fragment header; offset in bytes.
func fragment(next uint8, offset uint16, more bool) []byte {
	header := []byte{next, 0, 0, 0, 1, 2, 3, 4}
	binary.BigEndian.PutUint16(header[2:], offset&0xfff8)
	if more {
		header[3] |= 1
	}
	return header
}

// options is a header of destination or hop-by-hop options, padding only; length in bytes, a multiple of 8.
func options(next uint8, length int) []byte {
	header := make([]byte, length)
	header[0], header[1] = next, uint8(length/8-1)
	header[2], header[3] = 1, uint8(min(length-4, 255))
	return header
}

// sumWords adds up 16-bit words, an odd last byte being the high half of one.
func sumWords(data []byte) (sum uint64) {
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint64(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		sum += uint64(data[len(data)-1]) << 8
	}
	return sum
}

func foldSum(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// pseudoSum is the sum of the pseudo header of the packet in the frame.
func pseudoSum(frame []byte, protocol uint8, length int) uint64 {
	return sumWords(frame[offsetSource:offsetL4]) + uint64(protocol) + uint64(length)
}

func checksumOffset(protocol uint8) int {
	return map[uint8]int{protocolTCP: 16, protocolUDP: 6, protocolICMP: 2}[protocol]
}

// sealAt writes the checksum of the transport header at an offset.
func sealAt(frame []byte, protocol uint8, l4 int) []byte {
	field := l4 + checksumOffset(protocol)
	frame[field], frame[field+1] = 0, 0
	sum := ^foldSum(pseudoSum(frame, protocol, len(frame)-l4) + sumWords(frame[l4:]))
	if sum == 0 && protocol == protocolUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(frame[field:], sum)
	return frame
}

// seal writes the transport checksum of a frame without extension headers.
func seal(frame []byte) []byte { return sealAt(frame, frame[offsetNext], offsetL4) }

// setLength makes the IPv6 header's payload length that of the frame.
func setLength(frame []byte) []byte {
	binary.BigEndian.PutUint16(frame[offsetPayload:], uint16(len(frame)-offsetL4))
	return frame
}

func setAddress(frame []byte, offset int, address netip.Addr) {
	copy(frame[offset:], address.AsSlice())
}

// insertHeader puts an extension header, whose first byte becomes the old next header, behind the IPv6 header.
func insertHeader(frame []byte, kind uint8, header []byte) []byte {
	header = slices.Clone(header)
	header[0] = frame[offsetNext]
	frame = slices.Insert(slices.Clone(frame), offsetL4, header...)
	frame[offsetNext] = kind
	return setLength(frame)
}

// requireChecksums has another implementation judge every checksum in the frame.
func requireChecksums(t testing.TB, frame []byte) {
	t.Helper()
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	for _, layer := range packet.Layers() {
		if l4, ok := layer.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			must(t, l4.SetNetworkLayerForChecksum(packet.NetworkLayer()))
		}
	}
	err, mismatches := packet.VerifyChecksums()
	if err != nil {
		t.Fatalf("checksums of % x: %v", frame, err)
	}
	for _, mismatch := range mismatches {
		t.Errorf("checksum of %v is %#x, want %#x in % x", mismatch.Layer.LayerType(), mismatch.Actual, mismatch.Correct, frame)
	}
}
