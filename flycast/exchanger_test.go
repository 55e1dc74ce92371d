package flycast_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/maps"
)

// loadNetwork is a network between agents; each host's socket is its channel.
type loadNetwork map[sixpn.Host]chan datagramFrom

type datagramFrom struct {
	host sixpn.Host
	data []byte
}

// wireSocket is a host's end of it.
type wireSocket struct {
	net.PacketConn // what is not used
	wire           loadNetwork
	host           sixpn.Host
	closed         context.Context
	close          context.CancelFunc
}

func (w loadNetwork) open(host sixpn.Host) func(context.Context) (net.PacketConn, error) {
	return func(context.Context) (net.PacketConn, error) {
		closed, end := context.WithCancel(context.Background())
		return &wireSocket{wire: w, host: host, closed: closed, close: end}, nil
	}
}

func (s *wireSocket) ReadFrom(into []byte) (int, net.Addr, error) {
	select {
	case d := <-s.wire[s.host]:
		return copy(into, d.data), net.UDPAddrFromAddrPort(netip.AddrPortFrom(sixpn.AgentAddr(0, d.host), 1)), nil
	case <-s.closed.Done():
		return 0, nil, os.ErrClosed
	}
}

func (s *wireSocket) WriteTo(data []byte, to net.Addr) (int, error) {
	fields, _ := sixpn.Parse(to.(*net.UDPAddr).AddrPort().Addr())
	select {
	case s.wire[fields.Host] <- datagramFrom{s.host, data}:
	default: // it is lost
	}
	return len(data), nil
}

func (s *wireSocket) Close() error {
	s.close()
	return nil
}

// oneSeat is a kernel with a seat without flows.
type oneSeat struct {
	mu   sync.Mutex
	load maps.SeatLoad
}

func (k *oneSeat) Seats() ([]maps.SeatLoad, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return []maps.SeatLoad{k.load}, true, nil
}

func (k *oneSeat) SetShares(shares []maps.Share) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range shares {
		k.load.Share, k.load.Elsewhere = s.Limit, s.Elsewhere
	}
	return nil
}

func (k *oneSeat) Void([]maps.Seat) error                    { return nil }
func (k *oneSeat) Fences() ([]maps.Fence, error)             { return nil, nil }
func (k *oneSeat) SetFences(_, _ []maps.Fence) error         { return nil }
func (k *oneSeat) wants(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
func (k *oneSeat) share() uint32                             { k.mu.Lock(); defer k.mu.Unlock(); return k.load.Share }

// disk is a ledger on a disk that may be full.
type disk struct {
	memory
	mu    sync.Mutex
	tried int
}

func (d *disk) Write(all, changed map[maps.Seat]flycast.Bounds, gone []maps.Seat) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried++
	return d.memory.Write(all, changed, gone)
}

func (d *disk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func (d *disk) writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tried
}

// A disk that is full ends no agent. Nothing is granted to others until it has room, which
// the agent says.
func TestExchangerWithAFullDisk(t *testing.T) {
	t.Parallel()
	const limit, owner, client = 6, sixpn.Host(11), sixpn.Host(12)
	seat := seatAt(owner, 1)
	network := loadNetwork{owner: make(chan datagramFrom, 64), client: make(chan datagramFrom, 64)}
	kernels, ledgers, exchangers := map[sixpn.Host]*oneSeat{}, map[sixpn.Host]*disk{}, map[sixpn.Host]*flycast.Exchanger{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for host, other := range map[sixpn.Host]sixpn.Host{owner: client, client: owner} {
		kernels[host] = &oneSeat{load: maps.SeatLoad{Seat: seat, Limits: maps.Limits{Hard: limit}, Element: 1}}
		ledgers[host] = &disk{}
		ledgers[host].fill(host == owner)
		limits := map[maps.Seat]maps.Limits{}
		if host == owner {
			limits[seat] = maps.Limits{Hard: limit}
		}
		exchanger := flycast.NewExchanger(flycast.ExchangerConfig{
			Host: host, Times: flycast.ExchangeTimes{Interval: time.Millisecond, Refresh: 100 * time.Millisecond}, Seats: kernels[host],
			Wants: kernels[host].wants, Open: network.open(host), Ledger: ledgers[host], Log: slog.New(slog.DiscardHandler),
			Learn: func() (map[maps.Seat]maps.Limits, map[sixpn.Host]flycast.Reach) {
				return limits, map[sixpn.Host]flycast.Reach{other: flycast.Reachable}
			},
		})
		exchangers[host] = exchanger
		running.Go(func() {
			if err := exchanger.Run(ctx); err != nil {
				t.Errorf("host %d: %v", host, err)
			}
		})
	}
	await.True(t, "it tries again and again", func() bool { return ledgers[owner].writes() > 20 })
	if err := exchangers[owner].Failure(); err == nil || errors.Unwrap(err).Error() != "it is full" {
		t.Errorf("the failure is %v, expected that of the disk", err)
	}
	if err := exchangers[client].Failure(); err != nil {
		t.Errorf("a host whose disk has room says %v", err)
	}
	if share := kernels[client].share(); share != 0 {
		t.Errorf("the client's host has a share of %d that is not written down", share)
	}
	ledgers[owner].fill(false)
	await.True(t, "the limit is dealt out", func() bool {
		return kernels[client].share() > 0 && kernels[owner].share()+kernels[client].share() == limit
	})
	await.True(t, "all is well", func() bool { return exchangers[owner].Failure() == nil })
	for _, d := range exchangers[owner].Divisions() {
		if d.Seat != seat || len(d.Hosts) != 2 {
			t.Errorf("the limit is divided as %+v", d)
		}
	}
}
