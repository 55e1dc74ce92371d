package observe_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/maps"
)

// More networks, apps, services and backends than have series of their own are added up
// under "other", and nothing is lost.
func TestBounds(t *testing.T) {
	t.Parallel()
	const machines = 1100
	w := newWorld(t, machines, machines)
	for i := range uint32(machines) {
		w.count(1+i, bpf.RouterCounters{RxPackets: 1})
	}
	series, packets, started := map[string]int{}, 0.0, 0.0
	for name, value := range w.scrape() {
		family, _, _ := strings.Cut(name, "{")
		series[family]++
		if strings.HasPrefix(name, `sixpn_port_packets_total{direction="in",kind="machine"`) {
			packets += value
		}
		if family == "sixpn_machines" {
			started += value
		}
	}
	if packets != machines || started != machines {
		t.Errorf("%v packets and %v Machines, want %d of each", packets, started, machines)
	}
	for family, most := range map[string]int{
		// Two directions, 1,000 networks, the rest, and the host port.
		"sixpn_port_packets_total": 2 * 1002, "sixpn_machines": 1001, "sixpn_network_live_flows": 1001,
		"sixpn_service_live_flows": 1001, "sixpn_backend_live_flows": 1001,
	} {
		if series[family] > most || series[family] < 1000 {
			t.Errorf("%s has %d series, want %d at most", family, series[family], most)
		}
	}
}

// Scrapes, and what happens meanwhile, do not get in each other's way.
func TestConcurrentScrapes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 4)
	names := w.Names()
	var work sync.WaitGroup
	for _, do := range []func(){
		func() { w.scrape() },
		func() { w.protobuf() },
		func() {
			w.apply()
			w.now = w.now.Add(time.Hour)
		},
		func() { w.Applied(time.Millisecond) },
		func() { w.PortRemoved(maps.PortCounts{Port: maps.Port{Ifindex: 999}, RxPackets: 1}) },
		func() {
			names.Health("192.0.2.1:53", true)
			names.Exchanged(dns.Exchanged{Upstream: "192.0.2.1:53", Transport: "udp"})
			names.Answered(dns.Answered{Type: 28, Source: dns.SourceForward, Transport: "udp"})
			names.Forgotten("192.0.2.1:53")
		},
	} {
		work.Go(func() {
			for range 30 {
				do()
			}
		})
	}
	work.Wait()
	expect(t, w.scrape(), map[string]float64{"sixpn_propagation_seconds_count": 30, `sixpn_ports{kind="machine"}`: 4})
}
