package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest/await"
)

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func decode[T any](t testing.TB, raw []byte) (value T) {
	t.Helper()
	must(t, binary.Read(bytes.NewReader(raw), binary.NativeEndian, &value))
	return value
}

func (w *world) dropEvents() (events []bpf.RouterDropEvent) {
	w.t.Helper()
	reader, err := ringbuf.NewReader(w.Events)
	must(w.t, err)
	defer func() { must(w.t, reader.Close()) }()
	for _, raw := range drain(w.t, reader) {
		events = append(events, decode[bpf.RouterDropEvent](w.t, raw))
	}
	return events
}

func TestDropEvent(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		shot     shot
		reason   bpf.DropReason
		captured int
	}{
		"short frame": {from(w.client, w.foreign.addr(), protocolUDP, udp(1, 2, 3)), bpf.RouterDropReasonDROP_OTHER_NETWORK, 63},
		"long frame":  {from(w.client, w.foreign.addr(), protocolUDP, udp(1, 2, make([]byte, 500)...)), bpf.RouterDropReasonDROP_OTHER_NETWORK, 128},
		"answered frame": {from(w.client, w.client.own(0x8001), protocolTCP, tcp(1, 2, flagACK, 3, 4)),
			bpf.RouterDropReasonDROP_NO_FLOW, 74},
	} {
		t.Run(name, func(t *testing.T) {
			begin := now()
			w.fire(c.shot)
			events := w.dropEvents()
			if len(events) != 1 {
				t.Fatalf("%d events, want 1", len(events))
			}
			e := events[0]
			if e.Reason != uint32(c.reason) || e.Ifindex != w.client.ifindex || e.Length != uint32(len(c.shot.frame)) {
				t.Errorf("the event is %+v", e)
			}
			if e.Time < begin || e.Time > now() {
				t.Errorf("the time is %d, want one between %d and %d", e.Time, begin, now())
			}
			if int(e.Captured) != c.captured || !bytes.Equal(e.Data[:e.Captured], c.shot.frame[:c.captured]) {
				t.Errorf("captured is % x, want the first %d bytes as they came", e.Data[:e.Captured], c.captured)
			}
			for i, b := range e.Data[e.Captured:] {
				if b != 0 {
					t.Fatalf("byte %d behind what was captured is %#x, want 0", i, b)
				}
			}
		})
	}
}

func TestNoEvent(t *testing.T) {
	w := newWorld(t)
	for name, s := range map[string]shot{
		"forwarded": from(w.client, w.server.addr(), protocolUDP, udp(1, 2)),
		"answered":  solicit(w, linkLocal, sixpn.Gateway),
		"noise":     solicit(w, unspecified, sixpn.Gateway),
	} {
		t.Run(name, func(t *testing.T) {
			w.fire(s)
			if events := w.dropEvents(); len(events) != 0 {
				t.Errorf("%d events, want none: %+v", len(events), events)
			}
		})
	}
}

// A CPU sends a second's worth of events, counts what it does not send, and earns more.
func TestEventRate(t *testing.T) {
	const rate, many = 50, 500
	w := newWorld(t, func(s *settings) { s.eventsPerSecond = rate })
	s := from(w.client, w.foreign.addr(), protocolUDP, udp(1, 2))
	pin(t)
	begin := time.Now()
	for range many {
		w.fire(s)
	}
	earned := rate * (time.Since(begin).Seconds() + 1)
	sent := len(w.dropEvents())
	if sent < rate || float64(sent) > earned+1 {
		t.Errorf("%d events, want at least %d and at most %.0f", sent, rate, earned)
	}
	var buckets []bpf.RouterBucket
	must(t, w.EventBudget.Lookup(uint32(0), &buckets))
	var lost uint64
	for _, bucket := range buckets {
		lost += bucket.Lost
	}
	if lost != uint64(many-sent) {
		t.Errorf("%d events are counted as lost, want %d", lost, many-sent)
	}
	await.True(t, "a token is earned", func() bool {
		w.fire(s)
		return len(w.dropEvents()) > 0
	})
}

func TestEventsOff(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.eventsPerSecond = 0 })
	w.fire(from(w.client, w.foreign.addr(), protocolUDP, udp(1, 2)))
	if events := w.dropEvents(); len(events) != 0 {
		t.Errorf("%d events, want none", len(events))
	}
}
