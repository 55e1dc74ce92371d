package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
)

// echoes sends echo requests to another host's data plane, through the mesh.
type echoes struct {
	conn     net.PacketConn
	to       netip.Addr
	id       uint16
	sequence uint16
	wait     time.Duration // for the answers of a round
	stop     func() bool
}

// newEchoes has the socket that round trips are measured by, one of its own. Its packets
// are never made smaller on the way, nor refused for what was once learnt of it.
func (a *agent) newEchoes(ctx context.Context, host sixpn.Host) (*echoes, error) {
	conn, err := a.echoSocket(ctx, dontFragment, ignorePathMTU)
	if err != nil {
		return nil, fmt.Errorf("open a socket in the private namespace: %w", err)
	}
	e := &echoes{conn: conn, to: sixpn.AgentAddr(0, host), id: uint16(rand.UintN(math.MaxUint16 + 1)), wait: a.config.Timeouts.Call / 4}
	e.stop = context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	return e, nil
}

func ignorePathMTU(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
}

func (e *echoes) close() {
	e.stop()
	_ = e.conn.Close()
}

// echoOverhead is what a packet has beside the data of the echo.
const echoOverhead = ipv6Head + echoHead

// round sends packets of these sizes, in bytes with their IPv6 header, each twice, for
// one may be lost for no reason, and says which came back, and when the first did.
func (e *echoes) round(ctx context.Context, sizes ...int) (passed map[int]bool, first time.Duration, err error) {
	passed = map[int]bool{}
	waiting := map[uint16]int{}
	begin := time.Now()
	for range 2 {
		for _, size := range sizes {
			e.sequence++
			message := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: int(e.id), Seq: int(e.sequence), Data: make([]byte, size-echoOverhead)}}
			packet, err := message.Marshal(nil)
			if err != nil {
				return nil, 0, err
			}
			_, err = e.conn.WriteTo(packet, &net.IPAddr{IP: e.to.AsSlice()})
			if errors.Is(err, unix.EMSGSIZE) {
				continue // it does not pass even to the mesh
			}
			if err != nil {
				return nil, 0, fmt.Errorf("send an echo request: %w", err)
			}
			waiting[e.sequence] = size
		}
	}
	if err := e.conn.SetReadDeadline(begin.Add(e.wait)); err != nil {
		return nil, 0, err
	}
	buffer := make([]byte, math.MaxUint16)
	for len(passed) < len(sizes) && ctx.Err() == nil {
		n, from, err := e.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("receive echo replies: %w", err)
		}
		sender, ok := from.(*net.IPAddr)
		if !ok || n < echoHead || binary.BigEndian.Uint16(buffer[4:]) != e.id {
			continue
		}
		address, _ := netip.AddrFromSlice(sender.IP)
		size, ours := waiting[binary.BigEndian.Uint16(buffer[6:])]
		if !ours || address != e.to || n != size-ipv6Head {
			continue
		}
		if len(passed) == 0 {
			first = time.Since(begin)
		}
		passed[size] = true
	}
	return passed, first, ctx.Err()
}

// rungs is how many sizes are tried at once.
const rungs = 31

// largest finds the largest packet from passing, which is known to pass, up to full.
func (e *echoes) largest(ctx context.Context, passing, full int) (int, error) {
	sizes := []int{full}
	for passing < full {
		passed, _, err := e.round(ctx, sizes...)
		if err != nil {
			return 0, err
		}
		// Sizes that do not pass have larger ones that do not either: what came back by
		// itself above one that was lost twice is as good.
		next := full
		for _, size := range sizes {
			if passed[size] {
				passing = max(passing, size)
			}
		}
		for _, size := range sizes {
			if !passed[size] && size > passing {
				next = min(next, size-1)
			}
		}
		full = next
		sizes = between(passing, full)
	}
	return passing, nil
}

// between is at most rungs sizes above low up to high, evenly apart, the highest last.
func between(low, high int) (sizes []int) {
	step := max(1, (high-low+rungs-1)/rungs)
	for size := high; size > low; size -= step {
		sizes = append(sizes, size)
	}
	return sizes
}
