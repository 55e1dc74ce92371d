package flycast

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/maps"
)

// ExchangerConfig is what an Exchanger needs.
type ExchangerConfig struct {
	Host  sixpn.Host
	Times ExchangeTimes
	Seats Seats
	// Wants calls its argument whenever a flow is refused for want of a share.
	Wants func(context.Context, func()) error
	// Learn says what Exchange.Learn takes; it is asked at every step.
	Learn func() (map[maps.Seat]maps.Limits, map[sixpn.Host]Reach)
	// Open opens the socket to the agents of other hosts, at the load port of this one's
	// address among them.
	Open func(context.Context) (net.PacketConn, error)
	// Ledger has what earlier runs granted.
	Ledger Ledger
	Log    *slog.Logger
}

// leastPause lies between two steps, so that what comes together is answered together.
const leastPause = time.Millisecond

// Exchanger keeps an Exchange going.
type Exchanger struct {
	config   ExchangerConfig
	mu       sync.Mutex // of the next two
	exchange *Exchange
	failure  error
	hurry    chan struct{}
	packets  chan packet
}

type packet struct {
	from sixpn.Host
	data []byte
}

// NewExchanger begins the run of an agent.
func NewExchanger(config ExchangerConfig) *Exchanger {
	return &Exchanger{
		config: config, exchange: NewExchange(config.Host, config.Times, config.Ledger), hurry: make(chan struct{}, 1), packets: make(chan packet, 256),
	}
}

// Hurry has the next step made at once: backends have come or gone.
func (e *Exchanger) Hurry() {
	select {
	case e.hurry <- struct{}{}:
	default:
	}
}

// Divisions is Exchange.Divisions, of the latest step.
func (e *Exchanger) Divisions() []Division {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.exchange.Divisions()
}

// Failure is why no share can grow right now; nil: they can.
func (e *Exchanger) Failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure
}

// Run exchanges load until ctx ends, and returns nil then.
func (e *Exchanger) Run(ctx context.Context) error {
	socket, err := e.config.Open(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer func() {
		stop()
		_ = socket.Close()
	}()
	group.Go(func() error { return e.config.Wants(ctx, e.Hurry) })
	group.Go(func() error { return e.listen(ctx, socket) })
	group.Go(func() error { return e.work(ctx, socket) })
	if err := group.Wait(); ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listen takes datagrams of agents. Cryptokey routing proves the host of their sender.
func (e *Exchanger) listen(ctx context.Context, socket net.PacketConn) error {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // an ICMPv6 error about what was sent: its agent is away
			e.config.Log.Debug("load of other hosts", "error", err)
			select { // for an error that lasts
			case <-ctx.Done():
			case <-time.After(leastPause):
			}
			continue
		}
		at, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		fields, _ := sixpn.Parse(at.AddrPort().Addr())
		select {
		case e.packets <- packet{fields.Host, append([]byte(nil), buffer[:n]...)}:
		default: // it is said again
		}
	}
}

func (e *Exchanger) work(ctx context.Context, socket net.PacketConn) error {
	tick := time.NewTicker(e.exchange.times.Interval)
	defer tick.Stop()
	last := time.Time{}
	for {
		urgent := false
		for !urgent {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				urgent = true
			case <-e.hurry:
				urgent = true
			case p := <-e.packets:
				urgent = e.receive(p)
			}
		}
		pause := time.NewTimer(leastPause - time.Since(last))
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		for range len(e.packets) {
			e.receive(<-e.packets)
		}
		last = time.Now()
		out, again, err := e.step(last)
		if err != nil {
			return err
		}
		if again {
			e.Hurry()
		}
		for _, o := range out {
			to := netip.AddrPortFrom(sixpn.AgentAddr(0, o.To), uint16(bpf.RouterLoadPortLOAD_PORT))
			if _, err := socket.WriteTo(o.Data, net.UDPAddrFromAddrPort(to)); err != nil && ctx.Err() == nil {
				e.config.Log.Debug("load for another host", "host", o.To, "error", err) // it is said again
			}
		}
	}
}

func (e *Exchanger) step(now time.Time) (out []Outgoing, again bool, err error) {
	limits, hosts := e.config.Learn()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exchange.Learn(limits, hosts)
	out, again, err = e.exchange.Step(now, e.config.Seats)
	var full *LedgerError
	if errors.As(err, &full) { // a disk that is full, which is no reason to end
		if e.failure == nil {
			e.config.Log.Error("shares of limits cannot be written down, so none grows", "error", err)
		}
		e.failure = full
		return nil, false, nil
	}
	if err == nil && e.failure != nil {
		e.config.Log.Info("shares of limits can be written down again")
		e.failure = nil
	}
	return out, again, err
}

func (e *Exchanger) receive(p packet) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	urgent, err := e.exchange.Receive(p.from, p.data)
	if err != nil {
		e.config.Log.Debug("load of another host", "host", p.from, "error", err)
	}
	return urgent
}
