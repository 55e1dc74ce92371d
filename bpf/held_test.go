package bpf_test

import (
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

// A backend cannot hold a client's entry open: not from another network, and not from
// any once the connection has ended. The client itself can, until then: after a reset
// that its backend did not believe it would have a connection that counts nowhere.
func TestHeldEntry(t *testing.T) {
	const old = 1000
	w := newWorld(t)
	key := flowKey(w, protocolTCP, vipPort, 0)
	for name, c := range map[string]struct {
		world   func(*world)
		backend func(*world) *member
		end     bool // by a reset of the client
		forward bool // a segment of the client, not of the backend
		renew   bool
	}{
		"backend":                                  {backend: toServer, renew: true},
		"backend, closing":                         {backend: toServer, end: true},
		"backend of another network":               {backend: toForeign, world: crossNetwork},
		"backend of another network, closing":      {backend: toForeign, world: crossNetwork, end: true},
		"client":                                   {backend: toServer, forward: true, renew: true},
		"client, closing":                          {backend: toServer, forward: true, end: true},
		"client of another network":                {backend: toForeign, world: crossNetwork, forward: true, renew: true},
		"client of another network, after the end": {backend: toForeign, world: crossNetwork, forward: true, end: true},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			if c.world != nil {
				c.world(w)
			}
			answer := func(flags uint8) shot {
				return from(c.backend(w), w.client.low(streamSlot()), protocolTCP, tcp(backendPort, clientPort, flags, 2000, 1001))
			}
			w.begin(stream(w, flagSYN), answer(flagSYN|flagACK), stream(w, flagACK))
			want := bpf.RouterFlowStateFLOW_ESTABLISHED
			if c.end {
				w.begin(stream(w, flagRST))
				want = bpf.RouterFlowStateFLOW_CLOSING
			}
			w.changeFlow(key, func(f *bpf.RouterFlow) { f.LastSeen = old })
			if c.forward {
				w.begin(stream(w, flagACK))
			} else {
				w.begin(answer(flagACK))
			}
			if flow := w.requireState(t, want); flow.LastSeen == old == c.renew {
				t.Errorf("last seen is %d, renewed: want %t", flow.LastSeen, c.renew)
			}
		})
	}
}
