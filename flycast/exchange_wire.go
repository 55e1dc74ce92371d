package flycast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// A datagram between two agents, big endian:
//
//	version 1, flags 1, of reports 2, of grants 2
//	from, to 8 each        the run of the agent that sends it, and of the one it is for
//	number 8               counts up in a run
//	seen 8                 the highest number of the receiver's run that came here
//	first 8, count 2       this report is in datagrams first … first+count-1
//	reports                seat 21, live 4, held 4, wanted 1
//	grants                 seat 21, share 4 (all ones: none, and all flows must end), elsewhere 4
//
// A seat is without its host: a report's is the receiver, a grant's the sender.
const (
	wireVersion = 1
	headerBytes = 48
	seatBytes   = 21
	reportBytes = seatBytes + 9
	grantBytes  = seatBytes + 8
	// Of each kind in a datagram: with both it fits the smallest MTU of IPv6.
	perDatagram = 20
)

const (
	flagAnswer = 1 << iota // it has something that must be seen to have come
)

// report is what a client's host has of a seat of the receiver.
type report struct {
	seat   maps.Seat
	live   uint32 // flows
	held   uint32 // flows that it has or may still begin
	wanted bool   // a flow waits for a share
}

// grant is what the backend's host says of a seat to a client's host.
type grant struct {
	seat      maps.Seat
	share     uint32
	elsewhere uint32
	void      bool // the share is 0, and all flows must end: their places are others'
}

// voidShare stands for the share of a grant that is void.
const voidShare = math.MaxUint32

type datagram struct {
	answer       bool
	from, to     uint64
	number, seen uint64
	first        uint64
	count        uint16
	reports      []report
	grants       []grant
}

func (d datagram) encode() []byte {
	flags := byte(0)
	if d.answer {
		flags |= flagAnswer
	}
	raw := []byte{wireVersion, flags}
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(d.reports)))
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(d.grants)))
	for _, v := range []uint64{d.from, d.to, d.number, d.seen, d.first} {
		raw = binary.BigEndian.AppendUint64(raw, v)
	}
	raw = binary.BigEndian.AppendUint16(raw, d.count)
	for _, r := range d.reports {
		raw = appendSeat(raw, r.seat)
		raw = binary.BigEndian.AppendUint32(raw, r.live)
		raw = binary.BigEndian.AppendUint32(raw, r.held)
		wanted := byte(0)
		if r.wanted {
			wanted = 1
		}
		raw = append(raw, wanted)
	}
	for _, g := range d.grants {
		raw = appendSeat(raw, g.seat)
		share := g.share
		if g.void {
			share = voidShare
		}
		raw = binary.BigEndian.AppendUint32(raw, share)
		raw = binary.BigEndian.AppendUint32(raw, g.elsewhere)
	}
	return raw
}

// decodeDatagram refuses what is no whole datagram of this version. The seats it returns
// have no host.
func decodeDatagram(raw []byte) (d datagram, err error) {
	if len(raw) < headerBytes {
		return d, errors.New("a datagram of load is cut short")
	}
	if raw[0] != wireVersion {
		return d, fmt.Errorf("a datagram of load has version %d, expected %d", raw[0], wireVersion)
	}
	d.answer = raw[1]&flagAnswer != 0
	reports, grants := int(binary.BigEndian.Uint16(raw[2:])), int(binary.BigEndian.Uint16(raw[4:]))
	for i, v := range []*uint64{&d.from, &d.to, &d.number, &d.seen, &d.first} {
		*v = binary.BigEndian.Uint64(raw[6+8*i:])
	}
	d.count = binary.BigEndian.Uint16(raw[46:])
	if rest := len(raw) - headerBytes; rest != reports*reportBytes+grants*grantBytes {
		return d, fmt.Errorf("a datagram of load has %d bytes behind its header, which names %d reports and %d grants", rest, reports, grants)
	}
	raw = raw[headerBytes:]
	for range reports {
		d.reports = append(d.reports, report{
			readSeat(raw), binary.BigEndian.Uint32(raw[seatBytes:]), binary.BigEndian.Uint32(raw[seatBytes+4:]), raw[seatBytes+8] != 0,
		})
		raw = raw[reportBytes:]
	}
	for range grants {
		g := grant{seat: readSeat(raw), share: binary.BigEndian.Uint32(raw[seatBytes:]), elsewhere: binary.BigEndian.Uint32(raw[seatBytes+4:])}
		if g.void = g.share == voidShare; g.void {
			g.share = 0
		}
		d.grants = append(d.grants, g)
		raw = raw[grantBytes:]
	}
	return d, nil
}

func appendSeat(raw []byte, s maps.Seat) []byte {
	raw = binary.BigEndian.AppendUint32(raw, uint32(s.VIP.Network))
	raw = binary.BigEndian.AppendUint32(raw, s.Number)
	raw = append(raw, s.Protocol)
	raw = binary.BigEndian.AppendUint16(raw, s.First)
	raw = binary.BigEndian.AppendUint32(raw, uint32(s.Backend.Network))
	raw = binary.BigEndian.AppendUint32(raw, uint32(s.Machine))
	return binary.BigEndian.AppendUint16(raw, s.Port)
}

func readSeat(raw []byte) maps.Seat {
	return maps.Seat{
		VIP:      maps.VIP{Network: sixpn.Network(binary.BigEndian.Uint32(raw)), Number: binary.BigEndian.Uint32(raw[4:])},
		Protocol: raw[8],
		First:    binary.BigEndian.Uint16(raw[9:]),
		Backend: maps.Backend{
			Network: sixpn.Network(binary.BigEndian.Uint32(raw[11:])),
			Machine: sixpn.Machine(binary.BigEndian.Uint32(raw[15:])),
			Port:    binary.BigEndian.Uint16(raw[19:]),
		},
	}
}
