package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

const (
	probes = 10
	// A connection that nobody answers is given up before its first retransmission,
	// as a rule; what it sent is counted in any case.
	silence = 700 * time.Millisecond
)

// sameOrg: Machines of one network reach each other by TCP, UDP and ping.
func sameOrg(ctx context.Context, w *world) (string, error) { return talks(ctx, w.client, w.web[0]) }

// talks demands that one Machine reaches a server by TCP, UDP and ping.
func talks(ctx context.Context, from, to *nettest.Machine) (string, error) {
	tcp, err := connections(ctx, from, "-count", fmt.Sprint(probes), at(to.Addr, tcpPort))
	if err != nil {
		return "", err
	}
	if tcp.OK != probes {
		return "", fmt.Errorf("%s → %s: only %d of %d connections came through: %v", from.Name, to.Name, tcp.OK, probes, tcp.Errors)
	}
	udp, err := datagrams(ctx, from, "-count", fmt.Sprint(probes), at(to.Addr, udpPort))
	if err != nil {
		return "", err
	}
	if udp.Received != probes {
		return "", fmt.Errorf("%s → %s: only %d of %d datagrams were answered: %v", from.Name, to.Name, udp.Received, probes, udp.Errors)
	}
	echo, err := ping(ctx, from, "-count", fmt.Sprint(probes), to.Addr.String())
	if err != nil {
		return "", err
	}
	if echo.Received != probes {
		return "", fmt.Errorf("%s → %s: only %d of %d pings were answered: %v", from.Name, to.Name, echo.Received, probes, echo.Errors)
	}
	return fmt.Sprintf("%s → %s: %d connections, %d datagrams, %d pings, all answered", from.Name, to.Name, tcp.OK, udp.Received, echo.Received), nil
}

// crossOrg: no connection leads from one org to another.
func crossOrg(ctx context.Context, w *world) (string, error) {
	if err := w.reaches(ctx, w.spy, w.vault); err != nil {
		return "", err
	}
	var sent uint64
	dropped, err := w.dropped(ctx, "other_network", func() error {
		tcp, err := connections(ctx, w.spy, "-count", "6", "-parallel", "6", "-timeout", silence.String(), at(w.web[0].Addr, tcpPort))
		if err == nil && tcp.OK > 0 {
			err = fmt.Errorf("%d connections went through the wall", tcp.OK)
		}
		sent = tcp.Segments
		return err
	})
	if err != nil {
		return "", err
	}
	return exactly(dropped, sent, "other_network", "spy-1 → web-1: no connection, %d segments sent; spy-1 → vault-1 works", sent)
}

// crossOrgUDP: no datagram does, to a Machine or to a VIP.
func crossOrgUDP(ctx context.Context, w *world) (string, error) {
	own, err := datagrams(ctx, w.spy, "-count", fmt.Sprint(probes), at(w.vault.Addr, udpPort))
	if err != nil {
		return "", err
	}
	if own.Received != probes {
		return "", fmt.Errorf("inside one network only %d of %d datagrams were answered", own.Received, probes)
	}
	sent := 0
	dropped, err := w.dropped(ctx, "other_network", func() error {
		for _, target := range []netip.Addr{w.web[0].Addr, w.webVIP} {
			udp, err := datagrams(ctx, w.spy, "-count", fmt.Sprint(probes), "-timeout", "300ms", at(target, udpPort))
			if err != nil {
				return err
			}
			if udp.Received > 0 {
				return fmt.Errorf("%d datagrams to %s were answered through the wall", udp.Received, target)
			}
			sent += udp.Sent
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return exactly(dropped, uint64(sent), "other_network", "spy-1 → web-1 and its VIP: %d datagrams, no answer; spy-1 → vault-1 works", sent)
}

// reaches is the opposite of a wall: the same probe inside one network.
func (w *world) reaches(ctx context.Context, from, to *nettest.Machine) error {
	tcp, err := connections(ctx, from, at(to.Addr, tcpPort))
	if err == nil && tcp.OK != 1 {
		err = fmt.Errorf("inside one network the same probe fails too: %v", tcp.Errors)
	}
	return err
}

// exactly is the end of a wall's proof: what was dropped is what was sent.
func exactly(dropped, sent uint64, reason, format string, args ...any) (string, error) {
	if dropped != sent {
		return "", fmt.Errorf("%d probes were sent, but %s counts %d", sent, reason, dropped)
	}
	return fmt.Sprintf(format, args...) + fmt.Sprintf("; %s +%d", reason, dropped), nil
}

// spoofedSource: nobody can speak in another's name, inside the network or outside.
func spoofedSource(ctx context.Context, w *world) (string, error) {
	a, err := enter(w.client)
	if err != nil {
		return "", err
	}
	defer a.close()
	const port = 40001
	target := netip.AddrPortFrom(w.web[0].Addr, udpPort)
	probe := func(source netip.Addr) func(int) []byte {
		return func(i int) []byte {
			return udpPacket(netip.AddrPortFrom(source, port), target, fmt.Sprint("probe ", i))
		}
	}
	// The opposite: the same frames with the Machine's own address are answered.
	answered := 0
	if err := a.repeat(probe(w.client.Addr)); err != nil {
		return "", err
	}
	if err := a.receive(ctx, 10*time.Second, func(p []byte) bool {
		if p[6] == protocolUDP && isFrom(p, target.Addr()) {
			answered++
		}
		return answered == probes
	}); err != nil {
		return "", err
	}
	if answered != probes {
		return "", fmt.Errorf("with its own address only %d of %d datagrams were answered", answered, probes)
	}
	sources := []netip.Addr{w.web[1].Addr, w.spy.Addr, netip.MustParseAddr("2001:db8::1")}
	dropped, err := w.dropped(ctx, "spoofed_source", func() error {
		for _, source := range sources {
			if err := a.repeat(probe(source)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return exactly(dropped, uint64(probes*len(sources)), "spoofed_source",
		"client-1 as web-2, as spy-1, as an outsider: %d frames, none forwarded; as itself %d answered", probes*len(sources), answered)
}

func isFrom(p []byte, source netip.Addr) bool {
	return netip.AddrFrom16([16]byte(p[8:24])) == source
}

// rawICMP: hand-made ICMPv6 does not cross the wall either.
func rawICMP(ctx context.Context, w *world) (string, error) {
	a, err := enter(w.spy)
	if err != nil {
		return "", err
	}
	defer a.close()
	const id = 0x6006
	answers := func(target netip.Addr, limit time.Duration) (n int, err error) {
		if err := a.repeat(func(i int) []byte { return echoPacket(w.spy.Addr, target, id, uint16(i)) }); err != nil {
			return 0, err
		}
		err = a.receive(ctx, limit, func(p []byte) bool {
			if p[6] == protocolICMPv6 && p[ipv6Header] == echoReply && isFrom(p, target) {
				n++
			}
			return n == probes
		})
		return n, err
	}
	inside, err := answers(w.vault.Addr, 10*time.Second)
	if err != nil {
		return "", err
	}
	if inside != probes {
		return "", fmt.Errorf("inside one network only %d of %d echo requests were answered", inside, probes)
	}
	dropped, err := w.dropped(ctx, "other_network", func() error {
		outside, err := answers(w.web[0].Addr, 300*time.Millisecond)
		if err == nil && outside > 0 {
			err = errors.New("an echo request was answered through the wall")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return exactly(dropped, probes, "other_network", "spy-1 → web-1: %d echo requests, no answer; spy-1 → vault-1: %d answers", probes, inside)
}
