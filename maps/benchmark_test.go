package maps_test

import (
	"testing"

	"github.com/sixpn/sixpn"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// BenchmarkSync is a Sync with nothing to do, and one in which a single backend comes
// or goes, on tables of the real size with 2000 services.
func BenchmarkSync(b *testing.B) {
	k := newKernel(b, sizes{})
	k.length = func(int) int { return 251 }
	tables := k.open()
	var want sixpnmaps.Want
	for machine := range sixpn.Machine(100) {
		addMachine(&want, 100+uint32(machine), red, machine+1)
	}
	for number := uint32(1); number <= 1000; number++ {
		want.VIPs = append(want.VIPs, sixpnmaps.VIP{Network: red, Number: number})
		want.Services = append(want.Services,
			serviceOf(red, number, 80, 80, backendAt(red, 1, 8080), backendAt(red, 2, 8080)),
			serviceOf(red, number, 1000, 1999, backendAt(red, 1, 8080), backendAt(red, 2, 8080)))
	}
	sync(b, tables, want)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			sync(b, tables, want)
		}
	})
	b.Run("one backend", func(b *testing.B) {
		one, two := want.Services[0].Backends[:1], want.Services[0].Backends
		for i := 0; b.Loop(); i++ {
			want.Services[0].Backends = [][]sixpnmaps.Backend{one, two}[i%2]
			sync(b, tables, want)
		}
	})
}
