package reconcile_test

import (
	"slices"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// TestAbsentHostsTakeNoNewFlow: their backends keep the flows they have, unless they are
// silent as well.
func TestAbsentHostsTakeNoNewFlow(t *testing.T) {
	t.Parallel()
	const there, further = here + 1, here + 2
	for name, row := range map[string]struct {
		absent   []sixpn.Host
		silent   []sixpn.Host
		change   func(*state.Machine) // of the one on there
		backends []sixpn.Host
		draining []sixpn.Host
	}{
		"all present":                 {backends: []sixpn.Host{here, there, further}},
		"one absent":                  {absent: []sixpn.Host{there}, backends: []sixpn.Host{here, further}, draining: []sixpn.Host{there}},
		"all others absent":           {absent: []sixpn.Host{there, further}, backends: []sixpn.Host{here}, draining: []sixpn.Host{there, further}},
		"all absent":                  {absent: []sixpn.Host{here, there, further}, draining: []sixpn.Host{here, there, further}},
		"absent, and its run is over": {absent: []sixpn.Host{there}, change: func(m *state.Machine) { m.State = state.Stopped }, backends: []sixpn.Host{here, further}},
		"absent, and it is stopping":  {absent: []sixpn.Host{there}, change: func(m *state.Machine) { m.State = state.Stopping }, backends: []sixpn.Host{here, further}, draining: []sixpn.Host{there}},
		"silent, but present":         {silent: []sixpn.Host{there}, backends: []sixpn.Host{here, there, further}},
		"absent, and another silent":  {absent: []sixpn.Host{there}, silent: []sixpn.Host{further}, backends: []sixpn.Host{here, further}, draining: []sixpn.Host{there}},
		"absent and silent":           {absent: []sixpn.Host{there}, silent: []sixpn.Host{there}, backends: []sixpn.Host{here, further}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.local.Mesh = meshPort
			w.app("web", red)
			w.vip("web", red, 3)
			w.machine("web", 1, tcp(80, 8080))
			for i, host := range []sixpn.Host{there, further} {
				id := w.machine("web", sixpn.Machine(i+2), tcp(80, 8080))
				w.change(id, func(m *state.Machine) { m.Host = host })
				if host == there && row.change != nil {
					w.change(id, row.change)
				}
			}
			w.local.Ports = w.local.Ports[:1]
			w.snapshot.Absent = map[sixpn.Host]bool{}
			for _, h := range row.absent {
				w.snapshot.Absent[h] = true
			}
			settings := reconcile.DefaultSettings
			settings.Silent = func(h sixpn.Host) bool { return slices.Contains(row.silent, h) }
			services := reconcile.Compile(state.Assemble(w.snapshot), here, w.local, settings).Services
			if len(services) != 1 {
				t.Fatalf("there are %d services, want 1", len(services))
			}
			var backends, draining []sixpn.Host
			for _, b := range services[0].Backends {
				backends = append(backends, b.Host)
			}
			for _, b := range services[0].Draining {
				draining = append(draining, b.Host)
			}
			if !slices.Equal(backends, row.backends) || !slices.Equal(draining, row.draining) {
				t.Errorf("new flows go to %v, and %v drain; want %v and %v", backends, draining, row.backends, row.draining)
			}
		})
	}
}

// TestHostsOfAnotherModeTakeNoNewFlow: no packet passes between an encrypted mesh and a
// native one.
func TestHostsOfAnotherModeTakeNoNewFlow(t *testing.T) {
	t.Parallel()
	const there = here + 1
	for name, row := range map[string]struct {
		own, others state.MeshMode
		reached     bool
	}{
		"both of an older release":  {"", "", true},
		"one of an older release":   {state.MeshWireGuard, "", true},
		"both native":               {state.MeshNative, state.MeshNative, true},
		"the other one is native":   {state.MeshWireGuard, state.MeshNative, false},
		"only this one is native":   {state.MeshNative, state.MeshWireGuard, false},
		"it is native, other older": {state.MeshNative, "", false},
	} {
		w := newWorld()
		w.local.Mesh = meshPort
		w.app("web", red)
		w.vip("web", red, 3)
		w.machine("web", 1, tcp(80, 8080))
		w.change(w.machine("web", 2, tcp(80, 8080)), func(m *state.Machine) { m.Host = there })
		w.local.Ports = w.local.Ports[:1]
		w.snapshot.Hosts = map[sixpn.Host]state.Host{
			here:  {ID: here, Endpoint: "[2001:db8::1]:51821", Mesh: row.own},
			there: {ID: there, Endpoint: "[2001:db8::2]:51821", Mesh: row.others},
		}
		service := reconcile.Compile(state.Assemble(w.snapshot), here, w.local, reconcile.DefaultSettings).Services[0]
		if n := len(service.Backends); (n == 2) != row.reached || n+len(service.Draining) != 2 {
			t.Errorf("%s: new flows go to %+v, and %+v drain; expected the other host among the first: %v", name, service.Backends, service.Draining, row.reached)
		}
	}
}
