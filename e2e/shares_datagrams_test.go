package e2e_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// A flow of datagrams ends when none has passed for datagramLife, which is far more than
// senders here ever pause.
const (
	datagramLife  = 6 * time.Second
	datagramPause = 50 * time.Millisecond
)

// sender has a flow of datagrams, or waits for one.
type sender struct {
	client int
	stop   context.CancelFunc
}

// flowsOfDatagrams has sockets of both clients send on and on. Those that are answered have
// a place until they stop, and then somebody who waits has it.
func (l *limited) flowsOfDatagrams(ctx context.Context, t *testing.T) {
	const want = sharedLimit + 3
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	answered := make(chan *sender, want)
	for i := range want {
		each, stop := context.WithCancel(ctx)
		s := &sender{client: i % 2, stop: stop}
		conn := nettest.Get[net.Conn](t)(l.inside[s.client].Dial(ctx, "udp6", nil, l.vip.String()))
		sending.Go(func() {
			defer conn.Close()
			sendUntil(each, conn, func() { answered <- s })
		})
	}
	take := func() *sender {
		t.Helper()
		select {
		case s := <-answered:
			return s
		case <-ctx.Done():
			t.Fatal("nobody of who waits gets a flow that is free")
			return nil
		}
	}
	var have []*sender
	for range sharedLimit {
		have = append(have, take())
	}
	// Who waits is refused again and again, and nobody who has a flow loses it.
	refused := l.refused(ctx, t)
	nettest.Must(t, nettest.Eventually(ctx, "who waits is refused", func(ctx context.Context) error {
		if n := l.refused(ctx, t) - refused; n < 10*want {
			return fmt.Errorf("%d datagrams were refused", n)
		}
		return nil
	}))
	if n := len(answered); n > 0 {
		t.Errorf("%d flows of datagrams have begun, the limit is %d", sharedLimit+n, sharedLimit)
	}
	for _, s := range have {
		s.stop()
	}
	by := [2]int{}
	for range want - sharedLimit {
		have = append(have, take())
	}
	for _, s := range have {
		by[s.client]++
	}
	if by != [2]int{want / 2, want / 2} {
		t.Errorf("the clients got %v flows, want half each", by)
	}
}

// refused is how many packets both hosts have dropped for want of a place.
func (l *limited) refused(ctx context.Context, t *testing.T) (n uint64) {
	t.Helper()
	for _, h := range l.fleet.Hosts {
		n += nettest.Get[uint64](t)(h.Drops(ctx, "backend_limit"))
	}
	return n
}

// sendUntil sends a datagram, waits a moment for its answer, and again; first is called at
// the first one.
func sendUntil(ctx context.Context, conn net.Conn, first func()) {
	buffer := make([]byte, 64)
	for once := sync.OnceFunc(first); ctx.Err() == nil; {
		_, _ = conn.Write([]byte("x"))
		_ = conn.SetReadDeadline(time.Now().Add(datagramPause))
		if _, err := conn.Read(buffer); err == nil {
			once()
			pass(ctx, datagramPause)
		}
	}
}
