package agent

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/net/ipv6"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/netns"
)

// openRoundTrips makes what measures the way to other hosts. Until it has, distances
// are those of the great circle.
func (a *agent) openRoundTrips(context.Context) (err error) {
	a.trips, err = flycast.NewRoundTrips(flycast.RoundTripsConfig{
		Host: a.host.ID, Region: a.host.Region, Snapshot: a.store.Snapshot, Open: func(ctx context.Context) (net.PacketConn, error) { return a.echoSocket(ctx) },
		OnDistances: a.farther, OnReach: a.farther, Interval: a.config.Timeouts.RoundTrip, Log: a.log,
	})
	return err
}

// echoSocket takes echo replies to this host's address among hosts, out of the private
// namespace, and no other message.
func (a *agent) echoSocket(ctx context.Context, options ...netns.SocketOption) (net.PacketConn, error) {
	conn, err := a.private.ListenPacket(ctx, "ip6:ipv6-icmp", sixpn.AgentAddr(0, a.host.ID).String(), append(options, netns.FreeBind)...)
	if err != nil {
		return nil, err
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeEchoReply)
	if err := ipv6.NewPacketConn(conn).SetICMPFilter(&filter); err != nil {
		return nil, fmt.Errorf("choose the kinds of ICMPv6: %w", err)
	}
	return conn, nil
}

// farther has the tables go by other distances, or by hosts that became silent or were
// heard again; names ask for distances at each query.
func (a *agent) farther() { a.loop.Recompile() }

// distance ranks regions for Flycast.
func (a *agent) distance(region string) int { return a.trips.Distances().Rank(region) }

// measureRoundTrips works once the way out of the private namespace is there.
func (a *agent) measureRoundTrips(ctx context.Context) error {
	select {
	case <-a.hostUp:
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.trips.Run(ctx)
}
