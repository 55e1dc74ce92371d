package maps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// DropEvent is a sampled drop.
type DropEvent struct {
	Time    time.Duration // of CLOCK_MONOTONIC
	Ifindex uint32
	Reason  bpf.DropReason
	Length  uint32 // bytes of the frame
	Frame   []byte // its start, from the Ethernet header on, as it arrived
}

// DropEvents calls handle for every sampled drop until ctx ends, which is no error, or
// handle fails. Of several readers each gets some: there should be one.
func (t *Tables) DropEvents(ctx context.Context, handle func(DropEvent) error) error {
	return readEvents(ctx, t.maps.Events, func(raw bpf.RouterDropEvent) error {
		return handle(DropEvent{
			Time:    time.Duration(raw.Time),
			Ifindex: raw.Ifindex,
			Reason:  bpf.DropReason(raw.Reason),
			Length:  raw.Length,
			Frame:   append([]byte(nil), raw.Data[:min(int(raw.Captured), len(raw.Data))]...),
		})
	})
}

// LostEvents counts the drops that were not sampled, for the limit of events a second
// or for want of a reader.
func (t *Tables) LostEvents() (uint64, error) {
	var perCPU []bpf.RouterBucket
	if err := t.maps.EventBudget.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("maps: read table %q: %w", bpf.RouterMapEventBudget, err)
	}
	var lost uint64
	for _, bucket := range perCPU {
		lost += bucket.Lost
	}
	return lost, nil
}

// ResetEvent is a TCP flow whose backend is gone.
type ResetEvent struct {
	Client netip.AddrPort // as the client knows itself
	VIP    netip.AddrPort // what it is connected to
}

// ResetEvents calls handle for every TCP flow that was found without its backend,
// until ctx ends, which is no error, or handle fails. There should be one reader.
func (t *Tables) ResetEvents(ctx context.Context, handle func(ResetEvent) error) error {
	return readEvents(ctx, t.maps.Resets, func(raw bpf.RouterResetEvent) error {
		client := sixpn.Fields{
			Network: sixpn.Network(raw.Network),
			Host:    sixpn.Host(raw.Host),
			Machine: sixpn.Machine(raw.Machine),
			Low:     raw.ClientLow,
		}
		return handle(ResetEvent{
			Client: netip.AddrPortFrom(client.Addr(), raw.ClientPort),
			VIP:    netip.AddrPortFrom(sixpn.VIPAddr(client.Network, raw.Vip), raw.VipPort),
		})
	})
}

// readEvents reads a ring buffer of fixed events.
func readEvents[E any](ctx context.Context, buffer *ebpf.Map, handle func(E) error) (err error) {
	reader, err := ringbuf.NewReader(buffer)
	if err != nil {
		return fmt.Errorf("maps: open ring buffer %s: %w", buffer, err)
	}
	// Closing is what wakes a read that waits (a new deadline does not); the second
	// time it does nothing.
	stop := context.AfterFunc(ctx, func() { _ = reader.Close() })
	defer func() {
		stop()
		err = errors.Join(err, reader.Close())
	}()

	var record ringbuf.Record
	for ctx.Err() == nil {
		if err := reader.ReadInto(&record); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("maps: read ring buffer %s: %w", buffer, err)
		}
		var event E
		if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &event); err != nil {
			return fmt.Errorf("maps: an event of %d bytes in ring buffer %s: %w", len(record.RawSample), buffer, err)
		}
		if err := handle(event); err != nil {
			return err
		}
	}
	return nil
}
