package observe_test

import (
	"strings"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// divide makes backend 1 + i of the world one with limits of all hosts.
func (w *world) divide(i, soft, hard uint32, hosts ...flycast.HostShare) {
	machine := sixpn.Machine(i + 1)
	w.divided = append(w.divided, flycast.Division{
		Seat: maps.Seat{
			VIP: maps.VIP{Network: 1, Number: i + 1}, Protocol: maps.ProtocolTCP, First: 80,
			Backend: maps.Backend{Network: 1, Host: here, Machine: machine, Port: 8080},
		},
		Limits: maps.Limits{Soft: soft, Hard: hard}, Element: w.elementOf(machine), Elsewhere: 4, Hosts: hosts,
	})
}

// elementOf is where the kernel has a Machine's backend, of its first service.
func (w *world) elementOf(machine sixpn.Machine) uint32 {
	w.t.Helper()
	loads, err := w.tables.Loads()
	must(w.t, err)
	for _, load := range loads {
		if load.Machine == machine {
			return load.Index
		}
	}
	w.t.Fatalf("Machine %s is no backend", machine)
	return 0
}

// What hosts have agreed on is told by backend for this host's clients, and by host for
// all others' together.
func TestShares(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3)
	for id, name := range map[sixpn.Host]string{5: "near", 6: "quiet", 8: "lost"} {
		w.records.Hosts[id] = state.Host{ID: id, Name: name, Region: "iad"}
	}
	w.apply()
	w.divide(0, 10, 20, flycast.HostShare{Host: here, Flows: 3, Share: 7}, flycast.HostShare{Host: 5, Flows: 2, Share: 9},
		flycast.HostShare{Host: 6, Flows: 2, Share: 4, Standing: flycast.Quiet}, flycast.HostShare{Host: 8, Standing: flycast.Fenced})
	w.divide(1, 0, 20, flycast.HostShare{Host: here}, flycast.HostShare{Host: 5, Flows: 1, Share: 20})
	w.divide(2, 10, 0, flycast.HostShare{Host: here, Share: 5}, flycast.HostShare{Host: 5, Flows: 6, Share: 6})
	other := w.divided[2]
	other.Seat.Host, other.Element = 5, 0 // which is another host's backend, and has nothing to do with what others have here
	w.divided = append(w.divided, other)
	got := w.scrape()
	backend := func(metric string, n string) string {
		return metric + `{app="app` + n + `",machine="0000000000000` + n + `",port="80",protocol="tcp",vip="fdaa:0:1:0:1::` + n + `"}`
	}
	expect(t, got, map[string]float64{
		backend("sixpn_backend_share_flows", "1"): 7, backend("sixpn_backend_elsewhere_flows", "1"): 4,
		backend("sixpn_backend_share_flows", "2"): 0, backend("sixpn_backend_elsewhere_flows", "3"): 4,
		`sixpn_host_flows{host="near"}`: 9, `sixpn_host_share_flows{host="near"}`: 29, `sixpn_host_quiet_backends{host="near"}`: 0,
		`sixpn_host_flows{host="quiet"}`: 2, `sixpn_host_share_flows{host="quiet"}`: 4, `sixpn_host_quiet_backends{host="quiet"}`: 1,
		`sixpn_host_flows{host="lost"}`: 0, `sixpn_host_fenced_backends{host="lost"}`: 1, `sixpn_host_fenced_backends{host="near"}`: 0,
	})
	for name, want := range map[string]int{"sixpn_backend_share_flows{": 2, "sixpn_backend_elsewhere_flows{": 3, "sixpn_host_flows{": 3} {
		n := 0
		for series := range got {
			if strings.HasPrefix(series, name) {
				n++
			}
		}
		if n != want {
			t.Errorf("there are %d series %s…}, want %d", n, name, want)
		}
	}
}
