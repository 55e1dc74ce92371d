package maps_test

import (
	"testing"

	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// town is a Want with something in every table.
func town() sixpnmaps.Want {
	var want sixpnmaps.Want
	addMachine(&want, 7, red, 1)
	addMachine(&want, 8, red, 2)
	addMachine(&want, 9, blue, 3)
	want.Ports = append(want.Ports, sixpnmaps.Port{Ifindex: 5, Kind: 2, Host: here, MTU: 1420, Peer: true})
	want.HostDevice = sixpnmaps.HostDevice{Ifindex: 5, MTU: 1420, InsideMAC: sixpnmaps.MAC{2, 1}, RouterMAC: sixpnmaps.MAC{2, 2}}
	want.VIPs = []sixpnmaps.VIP{{Network: red, Number: 3}, {Network: blue, Number: 3}}
	want.Services = []sixpnmaps.Service{
		serviceOf(red, 3, 80, 80, backendAt(red, 1, 8080), backendAt(red, 2, 8080)),
		serviceOf(red, 3, 8000, 8010, backendAt(red, 1, 8080), backendAt(red, 2, 8080)),
		serviceOf(blue, 3, 443, 443, backendAt(blue, 3, 8443)),
	}
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: red, Limit: 1000}, sixpnmaps.Quota{Network: blue, Limit: 1000})
	return want
}

func TestSync(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	sync(t, tables, town())
	k.settle(t, tables, town())

	got := k.picture()
	if len(got.Ports) != 4 || len(got.Machines) != 3 || len(got.VIPs) != 2 || len(got.Services) != 5 || len(got.Quotas) != 5 || len(got.Backends) != 5 || got.Strays != 0 {
		t.Errorf("the tables hold %+v", got)
	}

	// Another agent finds all as it should be.
	k.settle(t, k.open(), town())

	k.settle(t, tables, sixpnmaps.Want{})
	empty := newKernel(t, small)
	diff(t, k.picture(), empty.picture(), "after all was removed")
}
