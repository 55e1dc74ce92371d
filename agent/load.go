package agent

import (
	"context"
	"net"
	"net/netip"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/reconcile"
)

// openExchange makes what agrees with other hosts on the limits of backends. A host that
// is alone has its limits for itself.
func (a *agent) openExchange() error {
	if a.alone() {
		return nil
	}
	boot, err := machine.BootID()
	if err != nil {
		return err
	}
	ledger := flycast.OpenLedger(a.config.ledgerPath(), boot)
	a.closers = append(a.closers, ledger.Close)
	a.exchange = flycast.NewExchanger(flycast.ExchangerConfig{
		Host: a.host.ID, Times: flycast.ExchangeTimes{Interval: a.config.Timeouts.Load}, Seats: seats{a.tables, a}, Wants: a.tables.Wants,
		Learn: a.learner(), Open: a.loadSocket, Ledger: ledger, Log: a.log,
	})
	return nil
}

// seats are the tables', of which a Sync ends what is void.
type seats struct {
	*maps.Tables
	agent *agent
}

func (s seats) Void(void []maps.Seat) error {
	if len(void) == 0 {
		return nil
	}
	err := s.Tables.Void(void)
	s.agent.loop.Recompile()
	return err
}

// alone is whether there is no way to other hosts.
func (a *agent) alone() bool { return a.mesh == nil && a.native == nil }

// learner remembers the limits of one snapshot.
func (a *agent) learner() func() (map[maps.Seat]maps.Limits, map[sixpn.Host]flycast.Reach) {
	var revision int64 = -1
	var limits map[maps.Seat]maps.Limits
	return func() (map[maps.Seat]maps.Limits, map[sixpn.Host]flycast.Reach) {
		snapshot := a.store.Snapshot()
		if snapshot.Revision != revision {
			limits, revision = reconcile.Limits(snapshot, a.host.ID), snapshot.Revision
		}
		hosts := map[sixpn.Host]flycast.Reach{}
		for id, host := range snapshot.Hosts {
			if id == a.host.ID || host.Endpoint == "" {
				continue
			}
			switch silent := a.trips.Silent(id); {
			case silent && !snapshot.Present(id):
				hosts[id] = flycast.Lost
			case silent:
				hosts[id] = flycast.Silent
			default:
				hosts[id] = flycast.Reachable
			}
		}
		return limits, hosts
	}
}

// divisions is how limits are divided among hosts; nothing on a host that is alone.
func (a *agent) divisions() []flycast.Division {
	if a.exchange == nil {
		return nil
	}
	return a.exchange.Divisions()
}

// loadSocket is at this host's address among hosts, out of the private namespace.
func (a *agent) loadSocket(ctx context.Context) (net.PacketConn, error) {
	at := netip.AddrPortFrom(sixpn.AgentAddr(0, a.host.ID), uint16(bpf.RouterLoadPortLOAD_PORT))
	return a.private.ListenPacket(ctx, "udp6", at.String(), netns.FreeBind)
}

// exchangeLoad works once the way out of the private namespace is there, and every port
// of before a restart: until then it is not known what flows there are.
func (a *agent) exchangeLoad(ctx context.Context) error {
	for _, done := range []<-chan struct{}{a.hostUp, a.manager.Adopted()} {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a.exchange.Run(ctx)
}

// syncTables is the tables' Sync, after which new backends get their shares at once.
type syncTables struct{ *agent }

func (s syncTables) Sync(ctx context.Context, want maps.Want) (maps.Changes, error) {
	changes, err := s.tables.Sync(ctx, want)
	if s.exchange != nil {
		s.exchange.Hurry()
	}
	return changes, err
}
