package nettest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixpn/sixpn"
)

// Seen counts the frames of a capture by what they carry.
type Seen struct {
	WireGuard int // messages
	TLS       int // segments with bytes of a TLS stream
	Empty     int // TCP segments without bytes
	Neighbour int // ARP, and ICMPv6 of the link itself
	Refused   int // errors about a message that came before the device was up
}

// Sealed demands that nothing in a capture could be read by who stands between the
// hosts: all that is no ARP or neighbour discovery is WireGuard, or TLS over TCP from
// the first byte of each connection to the last, and no address of the router's own
// range is to be seen. Connections must begin within the capture.
func Sealed(frames []Frame) (Seen, error) {
	s := sealed{streams: map[[2]netip.AddrPort]*stream{}}
	for i, f := range frames {
		if err := s.frame(f.Data); err != nil {
			return s.Seen, fmt.Errorf("frame %d of %d bytes: %w: % x…", i+1, len(f.Data), err, f.Data[:min(len(f.Data), 96)])
		}
	}
	return s.Seen, nil
}

type sealed struct {
	Seen
	streams map[[2]netip.AddrPort]*stream // by source and destination
}

// stream is one direction of a TCP connection, whose bytes are TLS records.
type stream struct {
	next    uint32 // sequence number of the next new byte
	record  int    // bytes of the current record that are to come
	partial []byte // of a record's header
	held    map[uint32][]byte
}

const (
	etherIPv4, etherARP, etherIPv6   = 0x0800, 0x0806, 0x86dd
	protocolTCP, protocolUDP         = 6, 17
	protocolICMP, protocolICMPv6     = 1, 58
	routerSolicit, neighbourRedirect = 133, 137
	listenerReport                   = 143
)

func (s *sealed) frame(b []byte) error {
	const header = 14
	if len(b) < header {
		return fmt.Errorf("is too short")
	}
	packet := b[header:]
	switch kind := binary.BigEndian.Uint16(b[12:]); kind {
	case etherARP:
		s.Neighbour++
		return nil
	case etherIPv4:
		if len(packet) < 20 {
			return fmt.Errorf("is cut off")
		}
		// What follows the packet's own length fills a short frame up.
		packet = packet[:min(len(packet), int(binary.BigEndian.Uint16(packet[2:])))]
		from, to := netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		return s.packet(from, to, packet[9], packet[int(packet[0]&15)*4:])
	case etherIPv6:
		if len(packet) < 40 {
			return fmt.Errorf("is cut off")
		}
		packet = packet[:min(len(packet), 40+int(binary.BigEndian.Uint16(packet[4:])))]
		from, to := netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		if sixpn.Prefix.Contains(from) || sixpn.Prefix.Contains(to) {
			return fmt.Errorf("is a packet from %v to %v", from, to)
		}
		next, rest := packet[6], packet[40:]
		if next == 0 && len(rest) >= 8 { // the hop-by-hop options of a multicast report
			next, rest = rest[0], rest[(int(rest[1])+1)*8:]
		}
		return s.packet(from, to, next, rest)
	default:
		return fmt.Errorf("has the unexpected protocol %#04x", kind)
	}
}

func (s *sealed) packet(from, to netip.Addr, protocol byte, b []byte) error {
	switch {
	case protocol == protocolUDP && len(b) >= 8:
		if !isWireGuard(b[8:]) {
			return fmt.Errorf("is a datagram from %v to %v, and no WireGuard", from, to)
		}
		s.WireGuard++
		return nil
	case protocol == protocolTCP && len(b) >= 20:
		return s.segment(from, to, b)
	case protocol == protocolICMPv6 && len(b) > 0 && (b[0] >= routerSolicit && b[0] <= neighbourRedirect || b[0] == listenerReport):
		s.Neighbour++
		return nil
	case isRefusal(protocol, b):
		s.Refused++
		return nil
	case (protocol == protocolICMP || protocol == protocolICMPv6) && len(b) > 0:
		return fmt.Errorf("is ICMP of type %d from %v to %v", b[0], from, to)
	}
	return fmt.Errorf("has the unexpected protocol %d, from %v to %v", protocol, from, to)
}

// isRefusal knows an ICMP or ICMPv6 error about a message of WireGuard: the kernel's
// device hears nobody before it is up, while its key is known to others already.
func isRefusal(protocol byte, b []byte) bool {
	const unreachable, unreachable6, udpHeader = 3, 1, 8
	if len(b) < 8+40+udpHeader {
		return false
	}
	quoted := b[8:]
	switch {
	case protocol == protocolICMP && b[0] == unreachable && quoted[9] == protocolUDP:
		return isWireGuard(quoted[min(int(quoted[0]&15)*4+udpHeader, len(quoted)):])
	case protocol == protocolICMPv6 && b[0] == unreachable6 && quoted[6] == protocolUDP:
		return isWireGuard(quoted[40+udpHeader:])
	}
	return false
}

// isWireGuard knows the four kinds of message by type and length.
func isWireGuard(b []byte) bool {
	if len(b) < 4 || b[1]|b[2]|b[3] != 0 {
		return false
	}
	switch b[0] {
	case 1:
		return len(b) == 148
	case 2:
		return len(b) == 92
	case 3:
		return len(b) == 64
	case 4:
		return len(b) >= 32
	}
	return false
}

func (s *sealed) segment(from, to netip.Addr, b []byte) error {
	key := [2]netip.AddrPort{
		netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
	}
	sequence, flags := binary.BigEndian.Uint32(b[4:]), b[13]
	payload := b[min(int(b[12]>>4)*4, len(b)):]
	const syn = 0x02
	if flags&syn != 0 {
		s.streams[key] = &stream{next: sequence + 1, held: map[uint32][]byte{}}
	}
	if len(payload) == 0 {
		s.Empty++
		return nil
	}
	// A keepalive repeats one byte, perhaps another one than was sent.
	known := s.streams[key]
	if known == nil {
		return fmt.Errorf("is of a connection from %v to %v that began before", key[0], key[1])
	}
	s.TLS++
	known.held[sequence] = slices.Clone(payload)
	if err := known.advance(); err != nil {
		return fmt.Errorf("from %v to %v: %w", key[0], key[1], err)
	}
	return nil
}

// advance reads what has become contiguous.
func (st *stream) advance() error {
	for again := true; again; {
		again = false
		for sequence, payload := range st.held {
			behind := int32(st.next - sequence)
			if behind < 0 {
				continue // something before it is missing yet
			}
			delete(st.held, sequence)
			if int(behind) >= len(payload) {
				continue // repeated
			}
			fresh := payload[behind:]
			st.next += uint32(len(fresh))
			if err := st.read(fresh); err != nil {
				return err
			}
			again = true
		}
	}
	return nil
}

// read follows the framing of TLS records (RFC 8446, 5.1).
func (st *stream) read(b []byte) error {
	const header, changeCipher, applicationData, longest = 5, 20, 23, 1<<14 + 2048
	for len(b) > 0 {
		if st.record > 0 {
			n := min(st.record, len(b))
			st.record, b = st.record-n, b[n:]
			continue
		}
		n := min(header-len(st.partial), len(b))
		st.partial, b = append(st.partial, b[:n]...), b[n:]
		if len(st.partial) < header {
			return nil
		}
		h := st.partial
		st.partial = nil
		st.record = int(binary.BigEndian.Uint16(h[3:]))
		if h[0] < changeCipher || h[0] > applicationData || h[1] != 3 || h[2] > 4 || st.record > longest {
			return fmt.Errorf("the bytes % x are no head of a TLS record", h)
		}
	}
	return nil
}
