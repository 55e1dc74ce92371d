package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// meshSameOrg: Machines of one network on two hosts reach each other by TCP, UDP and
// ping, whoever begins.
func meshSameOrg(ctx context.Context, w *world) (string, error) {
	there, err := talks(ctx, w.client, w.away)
	if err != nil {
		return "", err
	}
	back, err := talks(ctx, w.away, w.web[0])
	return there + "; " + back, err
}

// meshCrossOrg: no packet crosses from one org to another between hosts either. It is
// dropped where it enters.
func meshCrossOrg(ctx context.Context, w *world) (string, error) {
	if _, err := talks(ctx, w.spy, w.outpost); err != nil {
		return "", fmt.Errorf("inside one network: %w", err)
	}
	total, err := crossesNot(ctx, []attempt{{w.spy, w.away.Addr}, {w.outpost, w.web[0].Addr}})
	return fmt.Sprintf("spy-1 → away-1 and outpost-1 → web-1: no answer, other_network +%d; spy-1 → outpost-1 works", total), err
}

// attempt is to reach an address of another org.
type attempt struct {
	from *nettest.Machine
	to   netip.Addr
}

// crossesNot makes attempts, and says how many packets were dropped where they entered,
// which must be all.
func crossesNot(ctx context.Context, attempts []attempt) (total uint64, err error) {
	for _, row := range attempts {
		var sent uint64
		dropped, err := droppedAt(ctx, row.from.Host, "other_network", func() error {
			tcp, err := connections(ctx, row.from, "-count", "6", "-parallel", "6", "-timeout", silence.String(), at(row.to, tcpPort))
			if err != nil {
				return err
			}
			udp, err := datagrams(ctx, row.from, "-count", fmt.Sprint(probes), "-timeout", "300ms", at(row.to, udpPort))
			if err != nil {
				return err
			}
			echo, err := ping(ctx, row.from, "-count", fmt.Sprint(probes), "-timeout", "300ms", row.to.String())
			if err == nil && tcp.OK+udp.Received+echo.Received > 0 {
				err = fmt.Errorf("%s reached %s of another org: %d connections, %d datagrams, %d pings", row.from.Name, row.to, tcp.OK, udp.Received, echo.Received)
			}
			sent = tcp.Segments + uint64(udp.Sent+echo.Sent)
			return err
		})
		if err != nil {
			return 0, err
		}
		if _, err := exactly(dropped, sent, "other_network", ""); err != nil {
			return 0, fmt.Errorf("%s: %w", row.from.Name, err)
		}
		total += sent
	}
	return total, nil
}

// meshSpoofedHost: root of one host writes to its mesh device itself. What bears that
// host's field arrives, what bears another's does not: WireGuard knows who sent it.
func meshSpoofedHost(ctx context.Context, w *world) (string, error) {
	target, err := enter(w.web[0])
	if err != nil {
		return "", err
	}
	defer target.close()
	device, err := w.second().OpenMesh()
	if err != nil {
		return "", err
	}
	defer device.Close()
	f := fields(w.away)
	stranger, here := f, f
	stranger.Host, here.Host = f.Host+1000, fields(w.client).Host
	const port = 40002
	send := func(source netip.Addr, text string) error {
		p := udpPacket(netip.AddrPortFrom(sixpn.Rotate(source), port), netip.AddrPortFrom(sixpn.Rotate(w.web[0].Addr), udpPort), text)
		_, err := device.Write(p)
		return err
	}
	seen := map[string]int{}
	for range probes {
		err := errors.Join(send(stranger.Addr(), "as a stranger"), send(here.Addr(), "as its receiver"), send(w.away.Addr, "as itself"))
		if err != nil {
			return "", err
		}
	}
	err = target.receive(ctx, 10*time.Second, func(p []byte) bool {
		if p[6] == protocolUDP && len(p) > ipv6Header+udpHeader {
			seen[string(p[ipv6Header+udpHeader:])]++
		}
		return seen["as itself"] == probes
	})
	if err != nil {
		return "", err
	}
	if seen["as itself"] != probes || seen["as a stranger"]+seen["as its receiver"] > 0 {
		return "", fmt.Errorf("of %d datagrams each, web-1 got %v, expected only those that bear the sending host's own field", probes, seen)
	}
	return fmt.Sprintf("root of the second host wrote %d packets to its mesh under each of three host fields: only the %d under its own arrived", probes, probes), nil
}

// meshLargePackets: what does not fit between the hosts gets a Packet Too Big, and
// datagrams and streams go on with what was learned.
func meshLargePackets(ctx context.Context, w *world) (string, error) {
	mesh, err := w.host.MeshDevice()
	if err != nil {
		return "", err
	}
	const bulk = 1 << 20
	seen, err := nettest.Probe[payload.PathMTU](ctx, w.big, "path-mtu", "-size", "4000", "-bulk", fmt.Sprint(bulk),
		"-udp", fmt.Sprint(udpPort), "-tcp", fmt.Sprint(tcpPort), w.awayBig.Addr.String())
	if err != nil {
		return "", err
	}
	want := payload.PathMTU{Device: bigMTU, Before: bigMTU, After: mesh.MTU, Refused: true, Delivered: true, Bulk: bulk}
	if seen != want {
		return "", fmt.Errorf("to away-big: got %+v, expected %+v", seen, want)
	}
	return fmt.Sprintf("client-big → away-big, both of MTU %d: path MTU learned as %d, that of the mesh, then datagrams and 1 MiB of TCP pass", bigMTU, mesh.MTU), nil
}

// meshSegmentation: a stream crosses the mesh in packets that are larger than any frame,
// and arrives whole.
func meshSegmentation(ctx context.Context, w *world) (string, error) {
	before, err := w.host.MeshDevice()
	if err != nil {
		return "", err
	}
	const bulk = 32 << 20
	seen, err := nettest.Probe[payload.PathMTU](ctx, w.client, "path-mtu", "-size", "100", "-bulk", fmt.Sprint(bulk),
		"-udp", fmt.Sprint(udpPort), "-tcp", fmt.Sprint(tcpPort), w.away.Addr.String())
	if err != nil {
		return "", err
	}
	after, err := w.host.MeshDevice()
	if err != nil {
		return "", err
	}
	if seen.Bulk != bulk {
		return "", fmt.Errorf("only %d of %d bytes came back: %s", seen.Bulk, bulk, seen.Error)
	}
	mean := func(bytes, packets uint64) uint64 { return bytes / max(packets, 1) }
	b, a := before.Statistics, after.Statistics
	// Half of the packets are bare ACKs, more or less.
	sent := mean(a.TxBytes-b.TxBytes, a.TxPackets-b.TxPackets)
	received := mean(a.RxBytes-b.RxBytes, a.RxPackets-b.RxPackets)
	if after.Kernel {
		return fmt.Sprintf("%d MiB to away-1 and back, no byte wrong, over the kernel's WireGuard of MTU %d, which counts packets after it has cut them", bulk>>20, after.MTU), nil
	}
	if sent <= uint64(after.MTU) || a.TxBytes-b.TxBytes < bulk {
		return "", fmt.Errorf("%d bytes went into the mesh in packets of %d bytes on average, expected more than its MTU of %d", a.TxBytes-b.TxBytes, sent, after.MTU)
	}
	return fmt.Sprintf("%d MiB to away-1 and back, no byte wrong, in packets of %d bytes on average out and %d in, over a mesh of MTU %d", bulk>>20, sent, received, after.MTU), nil
}
