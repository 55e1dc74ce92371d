package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn/internal/nettest"
)

// upstream is a resolver of the host's network, which knows one address and
// remembers what it was asked.
type upstream struct {
	address string

	mu    sync.Mutex
	asked map[string]int // by name
}

const (
	outsideName    = "www.example.org."
	outsideAddress = "192.0.2.80"
)

// startUpstream lives as long as the program.
func startUpstream(host *nettest.Host) (*upstream, error) {
	var socket net.PacketConn
	err := host.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, err
	}
	u := &upstream{address: socket.LocalAddr().String(), asked: map[string]int{}}
	go func() { _ = miekg.ActivateAndServe(nil, socket, u) }()
	return u, nil
}

// ServeDNS is miekg.Handler.
func (u *upstream) ServeDNS(w miekg.ResponseWriter, query *miekg.Msg) {
	reply := new(miekg.Msg).SetReply(query)
	name := strings.ToLower(query.Question[0].Name)
	u.mu.Lock()
	u.asked[name]++
	u.mu.Unlock()
	switch {
	case name != outsideName:
		reply.Rcode = miekg.RcodeNameError
	case query.Question[0].Qtype == miekg.TypeA:
		reply.Answer = []miekg.RR{&miekg.A{
			Hdr: miekg.RR_Header{Name: query.Question[0].Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET, Ttl: 60},
			A:   net.ParseIP(outsideAddress),
		}}
	}
	_ = w.WriteMsg(reply)
}

// seen is how often a name was asked for, and whether any name of ours ever was.
func (u *upstream) seen(name string) (times int, leaked string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for asked := range u.asked {
		if strings.HasSuffix(asked, ".internal.") || strings.HasSuffix(asked, ".flycast.") || strings.HasSuffix(asked, ".a.a.d.f.ip6.arpa.") {
			leaked = asked
		}
	}
	return u.asked[name], leaked
}

// startAgent starts the agent with the world's own resolver for other names, and
// with metrics.
func (w *world) startAgent(ctx context.Context) error {
	return w.host.StartAgent(ctx, "--upstream", w.upstream.address, "--metrics-listen", nettest.MetricsAddress)
}

func dnsForwarding(ctx context.Context, w *world) (string, error) {
	const times = 5
	for range times {
		if err := answers(ctx, w.client, "A", outsideName, outsideAddress); err != nil {
			return "", err
		}
	}
	missing, err := lookup(ctx, w.client, "A", "nothing.example.org")
	if err != nil {
		return "", err
	}
	asked, leaked := w.upstream.seen(outsideName)
	switch {
	case missing.Rcode != "NXDOMAIN":
		err = fmt.Errorf("a name that the resolver does not know is %s, expected NXDOMAIN", missing.Rcode)
	case asked != 1:
		err = fmt.Errorf("the resolver was asked %d times for one name that is asked for %d times, expected once", asked, 2*times)
	case leaked != "":
		err = errors.New("the resolver was asked for " + leaked)
	}
	return fmt.Sprintf("%s comes from the host's resolver, asked once and then kept; no name of ours was ever sent to it", outsideName), err
}
