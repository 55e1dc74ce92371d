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
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/netns"
)

// Ping is api.Pinger. It sends from this host's address in the network, which
// Machines answer as any neighbour's.
func (t tenant) Ping(ctx context.Context, network sixpn.Network, e api.Echo, report func(api.PingLine) error) error {
	address, local, err := t.pingTarget(ctx, network, e.Target)
	if err != nil {
		return err
	}
	options := []netns.SocketOption{netns.FreeBind, dontFragment}
	if local {
		options = append(options, viaLoopback)
	}
	conn, err := t.private.ListenPacket(ctx, "ip6:ipv6-icmp", sixpn.AgentAddr(network, t.host.ID).String(), options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	p := &pinger{
		echo: e, address: address, report: report,
		conn: ipv6.NewPacketConn(conn), id: uint16(rand.UintN(math.MaxUint16 + 1)),
		heard: make(chan heard, e.Count), minimum: math.Inf(1),
	}
	if err := p.prepare(); err != nil {
		return err
	}
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		p.listen()
	}()
	err = p.run(ctx)
	_ = conn.Close() // ends listen
	<-listening
	return err
}

// pingTarget finds the address to ping, and whether it is in the private namespace.
func (t tenant) pingTarget(ctx context.Context, network sixpn.Network, target string) (address netip.Addr, local bool, err error) {
	refuse := func(format string, args ...any) (netip.Addr, bool, error) {
		return netip.Addr{}, false, api.Invalid("target", "target is %.300q: %s", target, fmt.Sprintf(format, args...))
	}
	if target == "" {
		return sixpn.NetworkDNS(network), true, nil
	}
	if address, err = netip.ParseAddr(target); err != nil {
		query, err := question(target, "AAAA")
		if err != nil {
			return refuse("it is neither an address nor a name")
		}
		reply := t.resolver(network).Resolve(ctx, network, query)
		if reply == nil || reply.Rcode != miekg.RcodeSuccess {
			return refuse("there is no such name in this network; list its apps with: sixpn dig txt _apps.internal")
		}
		for _, record := range reply.Answer {
			if aaaa, ok := record.(*miekg.AAAA); ok {
				address, _ = netip.AddrFromSlice(aaaa.AAAA)
				break
			}
		}
		if !address.IsValid() {
			return refuse("the name has no address now: no Machine of it is started")
		}
	}
	fields, ours := sixpn.Parse(address)
	switch kind := fields.Kind(); {
	case !ours:
		return refuse("%s is no address of a private network (fdaa::/16)", address)
	case address == sixpn.DNS:
		return address, true, nil
	case fields.Network != network:
		return refuse("%s is an address of another network; name its org with --org", address)
	case kind == sixpn.KindVIP:
		return refuse("%s is a Flycast address, which answers Machines only; ping a Machine of the app, or ping it from inside one: sixpn machine exec ID -- ping %s", address, address)
	case kind == sixpn.KindDNS:
		return address, true, nil
	case kind == sixpn.KindAgent && fields.Host == t.host.ID:
		return address, true, nil
	case kind != sixpn.KindMachine:
		return refuse("%s is the address of no Machine", address)
	}
	return address, false, nil
}

func dontFragment(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
}

// viaLoopback is for addresses that are the private namespace's own.
func viaLoopback(fd int) error { return unix.BindToDevice(fd, "lo") }

// heard is an answer: a reply to a request, or an error about it.
type heard struct {
	at       time.Time
	sequence int
	line     api.PingLine
}

// pinger is one Ping.
type pinger struct {
	echo    api.Echo
	address netip.Addr
	report  func(api.PingLine) error
	conn    *ipv6.PacketConn
	id      uint16
	heard   chan heard

	sent, received          int
	minimum, maximum, total float64 // µs
}

func (p *pinger) prepare() error {
	if err := p.conn.SetControlMessage(ipv6.FlagHopLimit, true); err != nil {
		return fmt.Errorf("ask for the hop limit of replies: %w", err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	for _, kind := range []ipv6.ICMPType{
		ipv6.ICMPTypeEchoReply, ipv6.ICMPTypeDestinationUnreachable, ipv6.ICMPTypePacketTooBig, ipv6.ICMPTypeTimeExceeded,
	} {
		filter.Accept(kind)
	}
	if err := p.conn.SetICMPFilter(&filter); err != nil {
		return fmt.Errorf("choose the kinds of ICMPv6: %w", err)
	}
	return nil
}

func (p *pinger) line(kind string) api.PingLine {
	return api.PingLine{Type: kind, Target: p.echo.Target, Address: p.address.String()}
}

// run sends at each interval and reports what comes, until all is answered or timed
// out.
func (p *pinger) run(ctx context.Context) error {
	sentAt := map[int]time.Time{} // by sequence: not answered yet
	next := time.NewTimer(0)
	defer next.Stop()
	for p.sent < p.echo.Count || len(sentAt) > 0 {
		oldest, overdue := 0, (<-chan time.Time)(nil)
		for sequence := range sentAt {
			if oldest == 0 || sequence < oldest {
				oldest = sequence
			}
		}
		if oldest != 0 {
			overdue = time.After(time.Until(sentAt[oldest].Add(p.echo.Timeout)))
		}
		var line api.PingLine
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
			p.sent++
			at := time.Now()
			if err := p.send(p.sent); err != nil {
				line = p.line("error")
				line.Sequence, line.Message = p.sent, err.Error()
			} else {
				sentAt[p.sent] = at
			}
			if p.sent < p.echo.Count {
				next.Reset(p.echo.Interval)
			}
		case <-overdue:
			delete(sentAt, oldest)
			line = p.line("timeout")
			line.Sequence = oldest
		case answer := <-p.heard:
			at, waiting := sentAt[answer.sequence]
			if !waiting {
				continue // a second answer, or one too late
			}
			delete(sentAt, answer.sequence)
			line = answer.line
			line.Sequence = answer.sequence
			if line.Type == "reply" {
				line.RoundTripUs = float64(answer.at.Sub(at).Nanoseconds()) / 1000
				p.count(line.RoundTripUs)
			}
		}
		if line.Type != "" {
			if err := p.report(line); err != nil {
				return err
			}
		}
	}
	return p.report(p.summary())
}

func (p *pinger) count(us float64) {
	p.received++
	p.total += us
	p.minimum, p.maximum = min(p.minimum, us), max(p.maximum, us)
}

func (p *pinger) summary() api.PingLine {
	line := p.line("summary")
	line.Sent, line.Received = p.sent, p.received
	if p.received > 0 {
		line.MinUs, line.MaxUs, line.MeanUs = p.minimum, p.maximum, p.total/float64(p.received)
	}
	return line
}

func (p *pinger) send(sequence int) error {
	message := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{
		ID: int(p.id), Seq: sequence, Data: make([]byte, p.echo.Size),
	}}
	packet, err := message.Marshal(nil) // the kernel adds the checksum
	if err != nil {
		return err
	}
	_, err = p.conn.WriteTo(packet, nil, &net.IPAddr{IP: p.address.AsSlice()})
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%d bytes of data are more than one packet of this network takes; give a smaller --size", p.echo.Size)
	}
	return err
}

// Offsets in an ICMPv6 message, RFC 4443: an echo has its id and sequence at 4 and
// 6; an error quotes the packet it is about from 8 on.
const (
	echoHead = 8
	ipv6Head = 40
)

// listen passes on what concerns this ping until the socket is closed.
func (p *pinger) listen() {
	buffer := make([]byte, math.MaxUint16)
	for {
		n, control, from, err := p.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		answer, ok := p.understand(buffer[:n], from)
		if !ok {
			continue
		}
		if control != nil {
			answer.line.HopLimit = control.HopLimit
		}
		select {
		case p.heard <- answer:
		default: // more answers than requests: somebody makes them up
		}
	}
}

// understand reads one message; ok is false for one about something else.
func (p *pinger) understand(message []byte, from net.Addr) (answer heard, ok bool) {
	answer.at = time.Now()
	sender, _ := from.(*net.IPAddr)
	if len(message) < echoHead || sender == nil {
		return answer, false
	}
	address, _ := netip.AddrFromSlice(sender.IP)
	echo, kind := message, ipv6.ICMPType(message[0])
	answer.line = p.line("reply")
	answer.line.Bytes = len(message)
	if kind != ipv6.ICMPTypeEchoReply {
		answer.line = p.line("error")
		answer.line.Address = address.String()
		answer.line.Message = errorText(kind, message[1])
		quoted := message[echoHead:]
		if len(quoted) < ipv6Head+echoHead || netip.AddrFrom16([16]byte(quoted[24:ipv6Head])) != p.address {
			return answer, false
		}
		echo = quoted[ipv6Head:]
	} else if address != p.address {
		return answer, false
	}
	answer.sequence = int(binary.BigEndian.Uint16(echo[6:]))
	return answer, binary.BigEndian.Uint16(echo[4:]) == p.id
}

// errorText is what an ICMPv6 error says, RFC 4443 section 3.
func errorText(kind ipv6.ICMPType, code byte) string {
	reasons := map[byte]string{0: "no route", 1: "administratively prohibited", 3: "address unreachable", 4: "port unreachable"}
	if reason, ok := reasons[code]; ok && kind == ipv6.ICMPTypeDestinationUnreachable {
		return reason
	}
	return fmt.Sprintf("%v, code %d", kind, code)
}
