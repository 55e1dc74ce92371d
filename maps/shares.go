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
	Element   uint32 // where it is in the kernel; 0: nowhere any more, it only ends
	Live      uint32 // flows now, without those that end
	Ending    uint32 // flows of before the backend went, or Void, until they are stopped
	Share     uint32 // flows that may be live, if there is a hard limit
	Elsewhere uint32 // flows of other hosts, as it was last set
	Wanted    bool   // a flow was refused for want of a share since the last look
}

// Share is what hosts agreed on for a seat.
type Share struct {
	Seat
	Element   uint32 // SeatLoad's: of another one it is not; 0: of any
	Limit     uint32 // live flows that this host may have, of the hard limit
	Elsewhere uint32 // live flows that other hosts have
}

// seat is where a Seat is in the kernel.
type seat struct {
	Limits
	index uint32
}

// endedSeat is an element that was a Seat's, until a Sync flagged it gone.
type endedSeat struct {
	name       Seat
	limits     Limits
	generation uint32
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

// endedSeats finds the elements of seats that are gone, of which packets may still pass.
func (p *pass) endedSeats() map[uint32]endedSeat {
	ended := map[uint32]endedSeat{}
	for index, one := range p.ended { // its service may be gone as well
		if element := p.backends.all[index]; isGone(element) && element.Generation == one.generation {
			ended[index] = one
		}
	}
	for name, where := range p.Tables.seats {
		if element := p.backends.all[where.index]; isGone(element) {
			ended[where.index] = endedSeat{name, where.Limits, element.Generation}
		}
	}
	services := map[uint32]Service{} // after a start it is they that tell
	for _, service := range p.want.Services {
		if service.Flags&Shared != 0 {
			services[p.placed[service.key()].id] = service
		}
	}
	for index := uint32(1); index <= p.highest; index++ {
		element := p.backends.all[index]
		service, ok := services[element.Service]
		if ok && isGone(element) && !free(element) {
			ended[index] = endedSeat{
				Seat{service.VIP, service.Protocol, service.First, backendOf(element)}, Limits{service.SoftLimit, service.HardLimit}, element.Generation,
			}
		}
	}
	return ended
}

// Seats reads the load of all services with shared limits, in no order, and forgets what
// was wanted. A flow that began by a share that is lowered before is in what is read. So
// is every flow of a backend that is gone, until the expiry program has seen it.
// Before a Sync of a complete Want it is not known what there is, and complete is false.
func (t *Tables) Seats() (all []SeatLoad, complete bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ending, err := t.ending()
	if err != nil {
		return nil, false, err
	}
	for name, where := range t.seats {
		load, err := t.loadOf(where.index)
		if err != nil {
			return nil, false, err
		}
		raw := make([]byte, shareBytes)
		if _, err := t.shares.ReadAt(raw, int64(where.index)*shareBytes); err != nil {
			return nil, false, fmt.Errorf("maps: read the share of %s: %w", elementName(where.index), err)
		}
		one := SeatLoad{
			Seat: name, Limits: where.Limits, Element: where.index, Live: uint32(max(0, int32(load.Live))), Ending: ending[name].Ending,
			Share: binary.NativeEndian.Uint32(raw), Elsewhere: binary.NativeEndian.Uint32(raw[shareElsewhere:]),
			Wanted: binary.NativeEndian.Uint32(raw[shareWanted:]) != 0,
		}
		if one.Wanted {
			if err := t.storeWord(where.index, shareWanted, 0); err != nil {
				return nil, false, err
			}
		}
		all = append(all, one)
		delete(ending, name)
	}
	for _, one := range ending {
		all = append(all, one)
	}
	return all, t.seats != nil, nil
}

// ending counts the flows of backends that are gone. An element without any is done with:
// nothing leads a new one to it.
func (t *Tables) ending() (map[Seat]SeatLoad, error) {
	all := map[Seat]SeatLoad{}
	for index, one := range t.ended {
		load, err := t.loadOf(index)
		if err != nil {
			return nil, err
		}
		if load.Generation != one.generation || int32(load.Live) <= 0 {
			continue
		}
		sum := all[one.name]
		sum.Seat, sum.Limits = one.name, one.limits
		sum.Ending += load.Live
		all[one.name] = sum
	}
	return all, nil
}

func (t *Tables) loadOf(index uint32) (load bpf.RouterLoad, err error) {
	if err := t.maps.BackendLoad.Lookup(index, &load); err != nil {
		return load, fmt.Errorf("maps: read the load of %s: %w", elementName(index), err)
	}
	return load, nil
}

// Void has the next Sync end all flows that seats have now, as if their backends had gone:
// until the expiry program has seen them they are among those that end. Until then the
// seats are as they were.
func (t *Tables) Void(seats []Seat) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range seats {
		where, ok := t.seats[name]
		if !ok {
			continue
		}
		load, err := t.loadOf(where.index)
		if err != nil {
			return err
		}
		if int32(load.Live) > 0 {
			if t.void == nil {
				t.void = map[uint32]bool{}
			}
			t.void[where.index] = true
		}
	}
	return nil
}

// SetShares writes shares. Those of seats that are not in the tables, or by now elsewhere
// in them, are left out: who comes into the tables has none.
func (t *Tables) SetShares(shares []Share) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, share := range shares {
		if where, ok := t.seats[share.Seat]; ok && (share.Element == 0 || share.Element == where.index) {
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
