package wireguard_test

import (
	"net/netip"
	"testing"
)

func TestHostsReachEachOther(t *testing.T) {
	for family := range underlays {
		t.Run(family, func(t *testing.T) {
			a, b := newMesh(t, family)
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
