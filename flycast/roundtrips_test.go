package flycast_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv6"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

const patience = 10 * time.Second

// wire is a socket whose other end does with each echo request what answer says.
type wire struct {
	net.PacketConn
	answer func(to sixpn.Host, message []byte) (from sixpn.Host, reply []byte)
	back   chan heard
	closed chan struct{}
}

type heard struct {
	from    sixpn.Host
	message []byte
}

var errClosed = errors.New("closed")

func newWire(answer func(sixpn.Host, []byte) (sixpn.Host, []byte)) *wire {
	return &wire{answer: answer, back: make(chan heard, 1000), closed: make(chan struct{})}
}

func (w *wire) WriteTo(message []byte, to net.Addr) (int, error) {
	address, _ := netip.AddrFromSlice(to.(*net.IPAddr).IP)
	fields, _ := sixpn.Parse(address)
	from, reply := w.answer(fields.Host, message)
	if reply != nil {
		w.back <- heard{from, reply}
	}
	return len(message), nil
}

func (w *wire) ReadFrom(buffer []byte) (int, net.Addr, error) {
	select {
	case h := <-w.back:
		return copy(buffer, h.message), &net.IPAddr{IP: sixpn.AgentAddr(0, h.from).AsSlice()}, nil
	case <-w.closed:
		return 0, nil, errClosed
	}
}

func (w *wire) Close() error {
	close(w.closed)
	return nil
}

func reply(message []byte) []byte {
	answer := append([]byte(nil), message...)
	answer[0] = byte(ipv6.ICMPTypeEchoReply)
	return answer
}

// fleetOf is a snapshot with hosts by region.
func fleetOf(regions map[sixpn.Host]string) *state.Snapshot {
	s := &state.Snapshot{Hosts: map[sixpn.Host]state.Host{}}
	for host, region := range regions {
		s.Hosts[host] = state.Host{ID: host, Region: region}
	}
	return s
}

func measure(t *testing.T, c flycast.RoundTripsConfig) *flycast.RoundTrips {
	t.Helper()
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	c.Interval, c.Gap, c.Timeout, c.Retry = 4*time.Millisecond, time.Millisecond, time.Second, time.Millisecond
	trips, err := flycast.NewRoundTrips(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- trips.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("round trips whose context ended: %v", err)
			}
		case <-time.After(patience):
			t.Error("the measurement did not end with its context")
		}
	})
	return trips
}

// becomes polls a condition.
func becomes(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// Only an answer of the host that was asked, to what it was asked, counts.
func TestRoundTripsTakeOnlyAnswers(t *testing.T) {
	t.Parallel()
	snapshot := fleetOf(map[sixpn.Host]string{3: "ams", 4: "fra", 5: "iad", 6: "nrt", 7: "syd", 8: "gru", 9: "lhr"})
	w := newWire(func(to sixpn.Host, message []byte) (sixpn.Host, []byte) {
		answer := reply(message)
		switch to {
		case 4:
			return to, answer
		case 5:
			return 4, answer // of another host
		case 6:
			binary.BigEndian.PutUint16(answer[4:], binary.BigEndian.Uint16(answer[4:])+1) // to somebody else's
		case 7:
			return to, message // the request itself
		case 8:
			answer = answer[:7]
		case 9:
			return to, nil
		}
		return to, answer
	})
	told := make(chan struct{}, 1000)
	trips := measure(t, flycast.RoundTripsConfig{
		Host: 3, Region: "ams", Snapshot: func() *state.Snapshot { return snapshot },
		Open:        func(context.Context) (net.PacketConn, error) { return w, nil },
		OnDistances: func() { told <- struct{}{} },
	})
	before := trips.Distances()
	if _, measured := before.Measured("fra"); measured {
		t.Error("fra is measured before anything was sent")
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Fatal("nobody told of distances")
	}
	if after := trips.Distances(); after == before {
		t.Error("the distances are the same ones after they changed")
	} else if took, measured := after.Measured("fra"); !measured || took <= 0 {
		t.Errorf("fra is %v away, measured %v", took, measured)
	}
	becomes(t, "requests to all hosts are lost or answered", func() bool {
		n := 0
		for _, trip := range trips.Hosts() {
			if trip.Probes > 0 {
				n++
			}
		}
		return n == 6
	})
	for _, trip := range trips.Hosts() {
		want := 1.0
		if trip.Host == 4 {
			want = 0
		}
		if trip.Loss != want || (trip.Smoothed > 0) != (trip.Host == 4) {
			t.Errorf("to host %d: %+v, want a loss of %v", trip.Host, trip, want)
		}
	}
	if trip, ok := trips.Host(4); !ok || trip.Host != 4 || trip.Loss != 0 {
		t.Errorf("host 4 alone is %+v, %v", trip, ok)
	}
	if trip, ok := trips.Host(3); ok {
		t.Errorf("the way to the host itself is %+v", trip)
	}
	becomes(t, "host 9 is silent", func() bool { return trips.Silent(9) })
	if trips.Silent(4) || trips.Silent(3) {
		t.Errorf("silent: %v one that answers, %v this one", trips.Silent(4), trips.Silent(3))
	}
}

// Whoever goes by it is told when a host becomes silent, and when it is heard again.
func TestRoundTripsTellOfSilence(t *testing.T) {
	t.Parallel()
	snapshot := fleetOf(map[sixpn.Host]string{3: "ams", 4: "fra"})
	var away atomic.Bool
	w := newWire(func(to sixpn.Host, message []byte) (sixpn.Host, []byte) {
		if away.Load() {
			return to, nil
		}
		return to, reply(message)
	})
	told := make(chan struct{}, 1000)
	trips := measure(t, flycast.RoundTripsConfig{
		Host: 3, Region: "ams", Snapshot: func() *state.Snapshot { return snapshot },
		Open:    func(context.Context) (net.PacketConn, error) { return w, nil },
		OnReach: func() { told <- struct{}{} },
	})
	becomes(t, "host 4 is measured", func() bool { _, ok := trips.Host(4); return ok })
	for _, silent := range []bool{true, false, true} {
		away.Store(silent)
		select {
		case <-told:
		case <-time.After(patience):
			t.Fatalf("nobody told that silent is %v", silent)
		}
		becomes(t, "silence as told", func() bool { return trips.Silent(4) == silent })
	}
	if len(told) != 0 {
		t.Errorf("told %d times too often", len(told))
	}
}

// Hosts come and go with the snapshot.
func TestRoundTripsFollowTheFleet(t *testing.T) {
	t.Parallel()
	var snapshot atomic.Pointer[state.Snapshot]
	snapshot.Store(fleetOf(map[sixpn.Host]string{3: "ams"}))
	w := newWire(func(to sixpn.Host, message []byte) (sixpn.Host, []byte) { return to, reply(message) })
	trips := measure(t, flycast.RoundTripsConfig{
		Host: 3, Region: "ams", Snapshot: snapshot.Load,
		Open: func(context.Context) (net.PacketConn, error) { return w, nil },
	})
	measured := func(region string) bool {
		_, ok := trips.Distances().Measured(region)
		return ok
	}
	snapshot.Store(fleetOf(map[sixpn.Host]string{3: "ams", 4: "fra"}))
	becomes(t, "fra is measured", func() bool { return measured("fra") })
	snapshot.Store(fleetOf(map[sixpn.Host]string{3: "ams", 5: "nrt"}))
	becomes(t, "nrt is measured and fra is not any more", func() bool { return measured("nrt") && !measured("fra") })
	if hosts := trips.Hosts(); len(hosts) != 1 || hosts[0].Host != 5 {
		t.Errorf("the hosts are %+v, want only 5", hosts)
	}
}

// A socket that fails, or cannot be had, is had again.
func TestRoundTripsOpenAgain(t *testing.T) {
	t.Parallel()
	snapshot := fleetOf(map[sixpn.Host]string{3: "ams", 4: "fra"})
	opened := 0
	trips := measure(t, flycast.RoundTripsConfig{
		Host: 3, Region: "ams", Snapshot: func() *state.Snapshot { return snapshot },
		Open: func(context.Context) (net.PacketConn, error) {
			opened++
			if opened == 1 {
				return nil, errClosed
			}
			w := newWire(func(to sixpn.Host, message []byte) (sixpn.Host, []byte) { return to, reply(message) })
			if opened == 2 {
				close(w.closed)
				return &broken{w}, nil
			}
			return w, nil
		},
	})
	becomes(t, "fra is measured", func() bool {
		_, ok := trips.Distances().Measured("fra")
		return ok
	})
}

// broken is a wire that has ended by itself.
type broken struct{ *wire }

func (b *broken) Close() error { return nil }
