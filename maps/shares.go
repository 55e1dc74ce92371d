package maps

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/sixpn/sixpn/bpf"
)

// Seat names a backend of a service on all hosts alike: its limits are for each seat.
type Seat struct {
	VIP
	Protocol uint8
	First    uint16 // port of the service
	Backend
}

// Limits are those of a seat, for all hosts together; 0 is none.
type Limits struct{ Soft, Hard uint32 }

// SeatLoad is what this host's clients have of a seat.
type SeatLoad struct {
	Seat
	Limits
	Live      uint32 // flows now
	Share     uint32 // flows that they may have, if there is a hard limit
	Elsewhere uint32 // flows of other hosts, as it was last set
	Wanted    bool   // a flow was refused for want of a share since the last look
}

// Share is what hosts agreed on for a seat.
type Share struct {
	Seat
	Limit     uint32 // live flows that this host may have, of the hard limit
	Elsewhere uint32 // live flows that other hosts have
}

// seat is where a Seat is in the kernel.
type seat struct {
	Limits
	index uint32
}

// Places in struct share of types_flycast.h.
const (
	shareBytes      = int64(unsafe.Sizeof(bpf.RouterShare{}))
	shareElsewhere  = int64(unsafe.Offsetof(bpf.RouterShare{}.Elsewhere))
	shareWanted     = int64(unsafe.Offsetof(bpf.RouterShare{}.Wanted))
	bytesOfAnUint32 = 4
)

// seats lists what a pass wanted of services with shared limits; nil if there may be more.
func (p *pass) seats() map[Seat]seat {
	if p.want.AddOnly {
		return nil
	}
	seats := map[Seat]seat{}
	for _, service := range p.want.Services {
		if service.Flags&Shared == 0 {
			continue
		}
		id := p.placed[service.key()].id
		for _, backend := range service.All() {
			if index, ok := p.users[user{id, backend}]; ok {
				seats[Seat{service.VIP, service.Protocol, service.First, backend}] = seat{Limits{service.SoftLimit, service.HardLimit}, index}
			}
		}
	}
	return seats
}

// Seats reads the load of all services with shared limits, in no order, and forgets what
// was wanted. A flow that began by a share that is lowered before is in what is read.
// Before a Sync of a complete Want it is not known what there is, and complete is false.
func (t *Tables) Seats() (all []SeatLoad, complete bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, where := range t.seats {
		var load bpf.RouterLoad
		if err := t.maps.BackendLoad.Lookup(where.index, &load); err != nil {
			return nil, false, fmt.Errorf("maps: read the load of %s: %w", elementName(where.index), err)
		}
		raw := make([]byte, shareBytes)
		if _, err := t.shares.ReadAt(raw, int64(where.index)*shareBytes); err != nil {
			return nil, false, fmt.Errorf("maps: read the share of %s: %w", elementName(where.index), err)
		}
		one := SeatLoad{
			Seat: name, Limits: where.Limits, Live: uint32(max(0, int32(load.Live))),
			Share: binary.NativeEndian.Uint32(raw), Elsewhere: binary.NativeEndian.Uint32(raw[shareElsewhere:]),
			Wanted: binary.NativeEndian.Uint32(raw[shareWanted:]) != 0,
		}
		if one.Wanted {
			if err := t.storeWord(where.index, shareWanted, 0); err != nil {
				return nil, false, err
			}
		}
		all = append(all, one)
	}
	return all, t.seats != nil, nil
}

// SetShares writes shares. Those of seats that are not in the tables are left out: who
// comes into the tables has none.
func (t *Tables) SetShares(shares []Share) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, share := range shares {
		if where, ok := t.seats[share.Seat]; ok {
			if err := t.storeShare(where.index, share.Limit, share.Elsewhere); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Tables) storeShare(index, limit, elsewhere uint32) error {
	if err := t.storeWord(index, 0, limit); err != nil {
		return err
	}
	return t.storeWord(index, shareElsewhere, elsewhere)
}

// storeWord writes one number of a share, which no packet sees half written.
func (t *Tables) storeWord(index uint32, place int64, value uint32) error {
	raw := binary.NativeEndian.AppendUint32(make([]byte, 0, bytesOfAnUint32), value)
	if _, err := t.shares.WriteAt(raw, int64(index)*shareBytes+place); err != nil {
		return fmt.Errorf("maps: write the share of %s: %w", elementName(index), err)
	}
	return nil
}

// Wants calls handle whenever a flow was refused for want of a share, until ctx ends,
// which is no error. There should be one reader.
func (t *Tables) Wants(ctx context.Context, handle func()) error {
	return readEvents(ctx, t.maps.Wants, func(uint32) error {
		handle()
		return nil
	})
}

// CompareSeats orders seats.
func CompareSeats(a, b Seat) int {
	return slices.Compare(a.key(), b.key())
}

func (s Seat) key() []uint32 {
	return []uint32{
		uint32(s.VIP.Network), s.Number, uint32(s.Protocol), uint32(s.First),
		uint32(s.Backend.Network), uint32(s.Host), uint32(s.Machine), uint32(s.Port),
	}
}
