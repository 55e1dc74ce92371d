package wireguard_test

import (
	"net/netip"
	"testing"
)

func TestHostsReachEachOther(t *testing.T) {
	for family := range underlays {
		for _, engine := range []string{"userspace", "auto"} {
			t.Run(family+" "+engine, func(t *testing.T) {
				a, b := newPair(t, family)
				a.config.Engine = engine
				a.meet(b)
				b.reach(a)
				s := a.status(b.number)
				if s.LastHandshake.IsZero() || s.Received == 0 || s.Sent == 0 || s.PublicKey != b.mesh.PublicKey() {
					t.Errorf("after a ping host %d is %+v", b.number, s)
				}
				if want := netip.AddrPortFrom(b.underlay, port); s.Endpoint != want {
					t.Errorf("host %d is at %v, expected %v", b.number, s.Endpoint, want)
				}
			})
		}
	}
}
