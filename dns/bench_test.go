package dns

import (
	"math"
	"net"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// BenchmarkAnswer is the pure function alone, of a network of 1,000 Machines.
func BenchmarkAnswer(b *testing.B) {
	for _, row := range []struct {
		title, name string
		rrtype      uint16
	}{
		{"one address", "00000000000001.vm.web.internal.", miekg.TypeAAAA},
		{"ten addresses", "fra.web.internal.", miekg.TypeAAAA},
		{"all addresses", "web.internal.", miekg.TypeAAAA},
		{"regions", "regions.web.internal.", miekg.TypeTXT},
		{"nothing", "nope.internal.", miekg.TypeAAAA},
		{"reverse", arpa("fdaa:0:863:a7b:bea:0:1:2"), miekg.TypePTR},
	} {
		b.Run(row.title, func(b *testing.B) {
			view := NewView(crowd(1000), fromHere)
			query := ask(row.name, row.rrtype)
			view.Answer(acme, query) // makes the zones
			b.ReportAllocs()
			for b.Loop() {
				reply, _ := view.answer(acme, query, MaxUDP)
				Fit(reply, query, true)
			}
		})
	}
}

// BenchmarkZones is what the first question after a change of the state costs.
func BenchmarkZones(b *testing.B) {
	snapshot := crowd(1000)
	b.ReportAllocs()
	for b.Loop() {
		NewView(snapshot, fromHere).Answer(acme, ask("web.internal.", miekg.TypeAAAA))
	}
}

// BenchmarkServer is a query over a socket, there and back, one after the other.
func BenchmarkServer(b *testing.B) {
	for _, network := range []string{"udp6", "tcp6"} {
		b.Run(network, func(b *testing.B) {
			p := newPrivate(b)
			p.serve(Config{QueriesConnection: math.MaxInt})
			conn := p.dial(network, client(acme), sixpn.DNS)
			wire, err := ask("web.internal.", miekg.TypeAAAA).Pack()
			if err != nil {
				b.Fatal(err)
			}
			if network == "tcp6" {
				wire = append([]byte{0, byte(len(wire))}, wire...)
				if err := conn.(*net.TCPConn).SetNoDelay(true); err != nil {
					b.Fatal(err)
				}
			}
			buffer := make([]byte, MaxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(wire); err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Read(buffer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
