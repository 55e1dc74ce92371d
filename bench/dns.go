package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn/netns"
)

// The load: sockets that each keep a few queries under way, so that a server is
// never idle and never has to drop anything.
const (
	dnsSockets = 4
	dnsWindow  = 8 // queries under way on each
	dnsPort    = 53
)

// dnsName is one name that every server has, and how many records it answers.
type dnsName struct {
	name    string
	rrtype  uint16
	records uint16
}

// dnsSample is what one server did in one round.
type dnsSample struct {
	cpu  float64 // µs of the server's processor time a query
	rate float64 // queries/s
}

// measureDNS asks every server for the same names from inside one Machine, server
// after server in every round.
func measureDNS(ctx context.Context, e effort, coredns string, progress func(string)) (results []Result, err error) {
	w, err := newDNSWorld(ctx, coredns, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.host.Close()) }()
	client, err := w.client.Namespace()
	if err != nil {
		return nil, err
	}
	defer client.Close()

	samples := map[string][]dnsSample{} // by server and type
	// One round is thrown away: caches and the Go servers' heaps grow in it.
	for round := -1; round < e.dnsRounds; round++ {
		for offset := range w.servers {
			server := w.servers[(offset+max(round, 0))%len(w.servers)]
			for _, name := range w.names {
				if !server.has(name.rrtype) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				kind := miekg.TypeToString[name.rrtype]
				progress("dns " + server.name + " " + kind)
				sample, err := server.measure(client, name, e.dnsEach)
				if err != nil {
					return nil, fmt.Errorf("ask %s for %s %s: %w", server.name, kind, name.name, err)
				}
				if round >= 0 {
					samples[server.name+kind] = append(samples[server.name+kind], sample)
				}
			}
		}
	}
	return dnsResults(samples), nil
}

// dnsResults pairs what was measured. The hosts plugin has no TXT records, so the
// TXT lists stand beside its addresses too, and beside the file plugin's TXT.
func dnsResults(samples map[string][]dnsSample) []Result {
	cpu := func(key string) []float64 { return pick(samples[key], func(s dnsSample) float64 { return s.cpu }) }
	rate := func(key string) []float64 { return pick(samples[key], func(s dnsSample) float64 { return s.rate }) }
	const used, asked = "µs of CPU/query", "queries/s"
	return []Result{
		newResult("dns.aaaa", used, "coredns hosts", cpu("sixpnAAAA"), cpu("coredns-hostsAAAA")),
		newResult("dns.txt", used, "coredns hosts, AAAA", cpu("sixpnTXT"), cpu("coredns-hostsAAAA")),
		newResult("dns.aaaa_file", used, "coredns file", cpu("sixpnAAAA"), cpu("coredns-fileAAAA")),
		newResult("dns.txt_file", used, "coredns file", cpu("sixpnTXT"), cpu("coredns-fileTXT")),
		newResult("dns.aaaa_unbound", used, "unbound", cpu("sixpnAAAA"), cpu("unboundAAAA")),
		newResult("dns.txt_unbound", used, "unbound", cpu("sixpnTXT"), cpu("unboundTXT")),
		newResult("dns.aaaa_dnsmasq", used, "dnsmasq", cpu("sixpnAAAA"), cpu("dnsmasqAAAA")),
		newResult("dns.txt_dnsmasq", used, "dnsmasq", cpu("sixpnTXT"), cpu("dnsmasqTXT")),
		newResult("dns.aaaa_rate", asked, "coredns hosts", rate("sixpnAAAA"), rate("coredns-hostsAAAA")),
		newResult("dns.txt_rate", asked, "coredns file", rate("sixpnTXT"), rate("coredns-fileTXT")),
	}
}

func pick(samples []dnsSample, field func(dnsSample) float64) (values []float64) {
	for _, s := range samples {
		values = append(values, field(s))
	}
	return values
}

// measure asks for a while, from sockets inside the client's namespace.
func (s dnsServer) measure(client *netns.Namespace, name dnsName, each time.Duration) (dnsSample, error) {
	var sockets []*net.UDPConn
	defer func() {
		for _, socket := range sockets {
			socket.Close()
		}
	}()
	err := client.Do(func() error {
		for range dnsSockets {
			socket, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.address, dnsPort)))
			if err != nil {
				return err
			}
			sockets = append(sockets, socket)
		}
		return nil
	})
	if err != nil {
		return dnsSample{}, err
	}
	before, err := s.cpuTime()
	if err != nil {
		return dnsSample{}, err
	}
	begin := time.Now()
	type outcome struct {
		answered int
		err      error
	}
	outcomes := make(chan outcome, len(sockets))
	for _, socket := range sockets {
		go func() {
			answered, err := ask(socket, name, begin.Add(each))
			outcomes <- outcome{answered, err}
		}()
	}
	answered := 0
	for range sockets {
		o := <-outcomes
		answered += o.answered
		err = errors.Join(err, o.err)
	}
	took := time.Since(begin)
	after, cpuErr := s.cpuTime()
	if err = errors.Join(err, cpuErr); err != nil {
		return dnsSample{}, err
	}
	return dnsSample{
		cpu:  float64((after - before).Nanoseconds()) / 1e3 / float64(answered),
		rate: float64(answered) / took.Seconds(),
	}, nil
}

// ask keeps dnsWindow queries under way until the deadline, then takes what is
// still to come. An answer that is not whole is an error: speed without it says
// nothing.
func ask(socket *net.UDPConn, name dnsName, deadline time.Time) (answered int, err error) {
	query := new(miekg.Msg).SetQuestion(name.name, name.rrtype)
	query.SetEdns0(1232, false)
	packed, err := query.Pack()
	if err != nil {
		return 0, err
	}
	id := uint16(0)
	send := func() error {
		id++
		packed[0], packed[1] = byte(id>>8), byte(id)
		_, err := socket.Write(packed)
		return err
	}
	underWay := 0
	for ; underWay < dnsWindow; underWay++ {
		if err := send(); err != nil {
			return 0, err
		}
	}
	reply := make([]byte, 4096)
	for underWay > 0 {
		if err := socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return answered, err
		}
		n, err := socket.Read(reply)
		if err != nil {
			return answered, fmt.Errorf("after %d answers: %w", answered, err)
		}
		if n < 12 || reply[3]&0x0f != miekg.RcodeSuccess || uint16(reply[6])<<8|uint16(reply[7]) != name.records {
			return answered, fmt.Errorf("an answer of %d bytes (% x …) has not %d records", n, reply[:min(n, 12)], name.records)
		}
		answered++
		if time.Now().After(deadline) {
			underWay--
			continue
		}
		if err := send(); err != nil {
			return answered, err
		}
	}
	return answered, nil
}
