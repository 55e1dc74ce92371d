package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/machine"
)

// gateway: fe80::1, and it alone, has a neighbour's answer.
func gateway(ctx context.Context, w *world) (string, error) {
	a, err := enter(w.client)
	if err != nil {
		return "", err
	}
	defer a.close()
	found, err := a.ask(ctx, w.client.Addr, sixpn.Gateway, 10*time.Second)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(found, a.router) {
		return "", fmt.Errorf("%s is at %v, expected the router's address on this link, %v", sixpn.Gateway, found, a.router)
	}
	others := []netip.Addr{w.web[0].Addr, w.spy.Addr, netip.MustParseAddr("fe80::2")}
	dropped, err := w.dropped(ctx, "neighbour_noise", func() error {
		for _, other := range others {
			found, err := a.ask(ctx, w.client.Addr, other, 100*time.Millisecond)
			if err != nil {
				return err
			}
			if found != nil {
				return fmt.Errorf("%s was answered with %v", other, found)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	// A kernel inside may solicit for reasons of its own meanwhile.
	if dropped < uint64(len(others)) {
		return "", fmt.Errorf("%d solicitations were sent, but neighbour_noise counts %d", len(others), dropped)
	}
	return fmt.Sprintf("%s is at %v; web-1, spy-1 and fe80::2 are nobody's neighbour, neighbour_noise +%d", sixpn.Gateway, found, dropped), nil
}

// ask solicits a neighbour and returns its hardware address, nil without an answer.
func (a *attacker) ask(ctx context.Context, source, target netip.Addr, limit time.Duration) (found net.HardwareAddr, err error) {
	if err := a.send(a.solicitation(source, target)); err != nil {
		return nil, err
	}
	b := target.As16()
	err = a.receive(ctx, limit, func(p []byte) bool {
		const optionAt = ipv6Header + 24 // target link-layer address, RFC 4861, 4.4
		if len(p) < optionAt+8 || p[6] != protocolICMPv6 || p[ipv6Header] != neighbourAdvert || !bytes.Equal(p[ipv6Header+8:optionAt], b[:]) {
			return false
		}
		found = append(net.HardwareAddr{}, p[optionAt+2:optionAt+8]...)
		return true
	})
	return found, err
}

// packetTooBig: what does not fit a receiver's device gets a Packet Too Big, to a
// Machine and through a VIP, and the sender learns from it.
func packetTooBig(ctx context.Context, w *world) (string, error) {
	for _, row := range []struct {
		what   string
		target netip.Addr
		tcp    uint16
	}{
		{"web-1", w.web[0].Addr, tcpPort},
		{"its VIP", w.webVIP, vipPort},
	} {
		const bulk = 1 << 20
		var seen payload.PathMTU
		dropped, err := w.dropped(ctx, "too_big", func() (err error) {
			seen, err = nettest.Probe[payload.PathMTU](ctx, w.big, "path-mtu", "-size", "4000", "-bulk", fmt.Sprint(bulk),
				"-udp", fmt.Sprint(udpPort), "-tcp", fmt.Sprint(row.tcp), row.target.String())
			return err
		})
		if err != nil {
			return "", err
		}
		want := payload.PathMTU{Device: bigMTU, Before: bigMTU, After: machine.DefaultMTU, Refused: true, Delivered: true, Bulk: bulk}
		if seen != want {
			return "", fmt.Errorf("to %s: got %+v, expected %+v", row.what, seen, want)
		}
		if dropped == 0 {
			return "", errors.New("too_big did not count")
		}
	}
	return fmt.Sprintf("client-big (MTU %d) → web-1 and its VIP: path MTU learned as %d, then datagrams and 1 MiB of TCP pass", bigMTU, machine.DefaultMTU), nil
}
