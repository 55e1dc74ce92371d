package reconcile_test

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	red  sixpn.Network = 0x17
	blue sixpn.Network = 0x18
	here sixpn.Host    = 0xa7b0bea
)

// world is a snapshot in the making, and the ports of its Machines.
type world struct {
	snapshot state.Snapshot
	local    reconcile.Local
}

func newWorld() *world {
	return &world{snapshot: state.Snapshot{
		Apps:     map[string]state.App{},
		Machines: map[string]state.Machine{},
		VIPs:     map[netip.Addr]state.VIP{},
	}}
}

func (w *world) app(name string, network sixpn.Network) {
	w.snapshot.Apps[name] = state.App{Name: name, Org: "acme", Network: network}
}

func (w *world) vip(app string, network sixpn.Network, number uint32) {
	vip := state.VIP{Network: network, Number: number, App: app}
	w.snapshot.VIPs[vip.Addr()] = vip
}

// machine adds a started Machine with a port of this host.
func (w *world) machine(app string, number sixpn.Machine, services ...state.Service) string {
	id := fmt.Sprintf("%014x", number)
	network := w.snapshot.Apps[app].Network
	w.snapshot.Machines[id] = state.Machine{
		ID: id, App: app, Network: network, Host: here, Number: number, Region: "ams",
		Desired: state.Started, State: state.Started, Config: state.MachineConfig{Services: services},
	}
	w.local.Ports = append(w.local.Ports, port(id, network, number))
	return id
}

func (w *world) change(id string, do func(*state.Machine)) {
	m := w.snapshot.Machines[id]
	do(&m)
	w.snapshot.Machines[id] = m
}

func port(id string, network sixpn.Network, number sixpn.Machine) reconcile.Port {
	return reconcile.Port{
		MachineID: id, Ifindex: 100 + uint32(number), Network: network, Host: here, Number: number, MTU: 1420, Peer: true,
		GuestMAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(number)}, RouterMAC: net.HardwareAddr{2, 0, 0, 0, 2, byte(number)},
	}
}

var hostPort = reconcile.HostPort{
	Ifindex: 9, MTU: 1420, InsideMAC: net.HardwareAddr{2, 0, 0, 0, 3, 1}, RouterMAC: net.HardwareAddr{2, 0, 0, 0, 3, 2},
}

var meshPort = reconcile.MeshPort{Ifindex: 8, MTU: 1420}

// tcp is a service of one port.
func tcp(external, internal uint16) state.Service {
	return state.Service{Protocol: "tcp", InternalPort: internal, Ports: []state.ServicePort{{Port: external}}}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(*world){
		"empty": func(*world) {},
		"one-machine": func(w *world) {
			w.local.HostPort = hostPort
			w.app("web", red)
			w.machine("web", 1)
		},
		"two-apps": func(w *world) {
			w.app("web", red)
			w.app("api", red)
			w.vip("web", red, 3)
			w.vip("api", red, 4)
			w.machine("web", 1, tcp(80, 8080))
			w.machine("web", 2, tcp(80, 8080))
			w.machine("api", 3, tcp(80, 9090), state.Service{Protocol: "udp", InternalPort: 53, Ports: []state.ServicePort{{Port: 53}}})
		},
		"ranges": func(w *world) {
			w.app("game", red)
			w.vip("game", red, 3)
			w.machine("game", 1, state.Service{Protocol: "udp", InternalPort: 7000, Ports: []state.ServicePort{{StartPort: 7000, EndPort: 7010}, {StartPort: 65530, EndPort: 65535}}})
			w.machine("game", 2, state.Service{Protocol: "udp", InternalPort: 7001, Ports: []state.ServicePort{{Port: 7005}}})
		},
		"two-addresses": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.vip("web", red, 4)
			w.machine("web", 1, tcp(80, 8080))
		},
		"cross-network": func(w *world) {
			w.app("web", red)
			w.app("client", blue)
			w.vip("web", blue, 7)
			w.machine("web", 1, tcp(80, 8080))
			w.machine("client", 2)
		},
		"address-of-a-network-elsewhere": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.vip("web", blue, 7)
			w.machine("web", 1, tcp(80, 8080))
		},
		"draining": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(80, 8080))
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.State = state.Stopping })
			w.change(w.machine("web", 3, tcp(80, 8080)), func(m *state.Machine) { m.Desired = state.Stopped })
		},
		"gone": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			for i, s := range []state.MachineState{state.Created, state.Starting, state.Stopped, state.Failed, state.Destroying} {
				w.change(w.machine("web", sixpn.Machine(i+1), tcp(80, 8080)), func(m *state.Machine) { m.State = s })
			}
		},
		"limits": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			for i, limits := range []state.Concurrency{{SoftLimit: 20}, {SoftLimit: 10, HardLimit: 50}, {HardLimit: 60}} {
				service := tcp(80, 8080)
				service.Concurrency = limits
				w.machine("web", sixpn.Machine(i+1), service)
			}
		},
		"handler": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			service := tcp(443, 8080)
			service.Ports[0].Handlers = []string{"tls"}
			w.machine("web", 1, service, tcp(80, 8080))
		},
		"machine-elsewhere": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(80, 8080))
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Host = here + 1 })
			w.local.Ports = w.local.Ports[:1]
		},
		"machine-elsewhere-by-the-mesh": func(w *world) {
			w.local.Mesh = meshPort
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(80, 8080))
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Host = here + 1 })
			w.local.Ports = w.local.Ports[:1]
		},
		"machine-elsewhere-while-partial": func(w *world) {
			w.local.Partial = true
			w.app("web", red)
			w.vip("web", red, 3)
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Host = here + 1 })
			w.machine("web", 1)
			w.local.Ports = w.local.Ports[1:]
		},
		"allocations": func(w *world) {
			w.local.Mesh = meshPort
			w.app("web", red)
			w.vip("web", blue, 7)
			w.vip("web", blue, 8) // allows the same again
			w.vip("web", red, 9)  // needs none
			w.machine("web", 1, tcp(80, 8080), state.Service{Protocol: "udp", InternalPort: 53, Ports: []state.ServicePort{{Port: 53}}},
				state.Service{Protocol: "tcp", InternalPort: 9090})
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Host = here + 1 })
			w.change(w.machine("web", 3, tcp(80, 8080)), func(m *state.Machine) { m.State = state.Stopped })
			w.change(w.machine("web", 4, tcp(80, 8080)), func(m *state.Machine) { m.Network = blue })
			w.local.Ports = w.local.Ports[:1]
		},
		"record-of-another-network": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(80, 8080))
			w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Network = blue })
		},
		"address-without-an-app": func(w *world) {
			w.app("web", red)
			w.vip("removed", red, 3)
			w.machine("web", 1)
		},
		"ports-that-cannot-be": func(w *world) {
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(0, 8080), state.Service{Protocol: "tcp", InternalPort: 1, Ports: []state.ServicePort{{StartPort: 9, EndPort: 8}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			build(w)
			got := render(reconcile.Compile(&w.snapshot, here, w.local, reconcile.Settings{MachineFlows: 100, NetworkFlows: 1000}))
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("the compile differs (- golden, + now; -update writes it anew):\n%s", d)
			}
		})
	}
}

// render writes a Want for people.
func render(want maps.Want) string {
	var b strings.Builder
	for _, p := range want.Ports {
		fmt.Fprintf(&b, "port %d kind %d network %s host %s machine %s mtu %d peer %v router %s\n", p.Ifindex, p.Kind, p.Network, p.Host, p.Machine, p.MTU, p.Peer, p.RouterMAC)
	}
	for _, m := range want.Machines {
		fmt.Fprintf(&b, "machine %s network %s device %d kind %d mtu %d peer %v guest %s router %s\n", m.Machine, m.Network, m.Ifindex, m.Kind, m.MTU, m.Peer, m.GuestMAC, m.RouterMAC)
	}
	if h := want.HostDevice; h.Ifindex != 0 {
		fmt.Fprintf(&b, "host device %d mtu %d inside %s router %s\n", h.Ifindex, h.MTU, h.InsideMAC, h.RouterMAC)
	}
	if m := want.Mesh; m.Ifindex != 0 {
		fmt.Fprintf(&b, "mesh device %d mtu %d\n", m.Ifindex, m.MTU)
	}
	for _, a := range want.Allocations {
		fmt.Fprintf(&b, "allocation for network %s machine %s network %s protocol %d port %d\n", a.Client, a.Machine, a.Network, a.Protocol, a.Port)
	}
	for _, q := range want.Quotas {
		fmt.Fprintf(&b, "quota network %s machine %s limit %d\n", q.Network, q.Machine, q.Limit)
	}
	for _, v := range want.VIPs {
		fmt.Fprintf(&b, "address %s\n", sixpn.VIPAddr(v.Network, v.Number))
	}
	actions := map[bpf.RouterServiceAction]string{
		bpf.RouterServiceActionSERVICE_REFUSE: "refuse", bpf.RouterServiceActionSERVICE_BALANCE: "balance",
		bpf.RouterServiceActionSERVICE_HANDLER: "handler", bpf.RouterServiceActionSERVICE_WAKE: "wake",
	}
	for _, s := range want.Services {
		fmt.Fprintf(&b, "service %s protocol %d ports %d-%d %s flags %d soft %d hard %d\n", sixpn.VIPAddr(s.Network, s.Number), s.Protocol, s.First, s.Last, actions[s.Action], s.Flags, s.SoftLimit, s.HardLimit)
		for _, backend := range s.Backends {
			fmt.Fprintf(&b, "\tbackend [%s]:%d\n", sixpn.MachineAddr(backend.Network, backend.Host, backend.Machine), backend.Port)
		}
		for _, backend := range s.Draining {
			fmt.Fprintf(&b, "\tdraining [%s]:%d\n", sixpn.MachineAddr(backend.Network, backend.Host, backend.Machine), backend.Port)
		}
	}
	return b.String()
}

// Whatever Machines declare: services never overlap, lead only to Machines of the app's
// network, and a port leads to exactly the Machines that declare it.
func TestCompileRanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.app("web", red)
		w.vip("web", red, 3)
		declared := map[uint16]map[sixpn.Machine]bool{}
		for number := range rapid.IntRange(1, 4).Draw(t, "machines") {
			machine := sixpn.Machine(number + 1)
			var ports []state.ServicePort
			for range rapid.IntRange(0, 3).Draw(t, "ranges") {
				first := rapid.Uint16Range(1, 30).Draw(t, "first")
				last := first + rapid.Uint16Range(0, 10).Draw(t, "more")
				ports = append(ports, state.ServicePort{StartPort: first, EndPort: last})
				for p := first; p <= last; p++ {
					if declared[p] == nil {
						declared[p] = map[sixpn.Machine]bool{}
					}
					declared[p][machine] = true
				}
			}
			w.machine("web", machine, state.Service{Protocol: "tcp", InternalPort: 8080, Ports: ports})
		}
		want := reconcile.Compile(&w.snapshot, here, w.local, reconcile.DefaultSettings)
		if !slices.IsSortedFunc(want.Services, func(a, b maps.Service) int { return int(a.First) - int(b.First) }) {
			t.Fatal("the services are not sorted")
		}
		found := map[uint16]int{}
		for _, service := range want.Services {
			for p := service.First; p <= service.Last; p++ {
				if found[p]++; found[p] > 1 {
					t.Fatalf("port %d is of two services", p)
				}
				if len(service.Backends) != len(declared[p]) {
					t.Fatalf("port %d leads to %v, want %v", p, service.Backends, declared[p])
				}
				for _, backend := range service.Backends {
					if !declared[p][backend.Machine] || backend.Network != red {
						t.Fatalf("port %d leads to %+v, which does not declare it", p, backend)
					}
				}
			}
		}
		if len(found) != len(declared) {
			t.Fatalf("%d ports are compiled, want %d", len(found), len(declared))
		}
	})
}

// However many networks a tenant has, what all may hold fits the table, and each has
// what its Machines are of all.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		name     string
		table    uint32
		machines []int // of each network
		want     []uint32
	}{
		{"one network", 1000, []int{3}, []uint32{800}}, // the limit of a network
		{"one network, no table to share", 0, []int{3}, []uint32{800}},
		{"two alike", 1000, []int{2, 2}, []uint32{500, 500}},
		{"one of three Machines in four", 1000, []int{1, 3}, []uint32{250, 750}},
		{"more Machines than flows", 2, []int{2, 2}, []uint32{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var local reconcile.Local
			for n, count := range c.machines {
				for m := range count {
					local.Ports = append(local.Ports, reconcile.Port{
						Ifindex: uint32(100 + len(local.Ports)), Network: sixpn.Network(1 + n), Host: here, Number: sixpn.Machine(1 + m), MTU: 1420,
					})
				}
			}
			settings := reconcile.Settings{MachineFlows: 600, NetworkFlows: 800, TableFlows: c.table}
			var got []uint32
			for _, quota := range reconcile.Compile(new(state.Snapshot), here, local, settings).Quotas {
				if quota.Machine == 0 {
					got = append(got, quota.Limit)
				} else if want := min(600, c.want[quota.Network-1]); quota.Limit != want {
					t.Errorf("a Machine of network %s may hold %d flows, expected %d", quota.Network, quota.Limit, want)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("networks (- expected, + compiled):\n%s", d)
			}
		})
	}
}
