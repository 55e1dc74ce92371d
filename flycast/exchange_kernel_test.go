package flycast_test

import (
	stdmaps "maps"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// kernel is a host's, in which flows begin whenever the agent looks away.
type kernel struct {
	*model
	host sixpn.Host
}

func (k kernel) Seats() (all []maps.SeatLoad, complete bool, err error) {
	k.meanwhile()
	for _, seat := range k.seats() {
		if e := k.kernels[k.host][seat]; e != nil && (!e.gone || e.ending > 0) {
			one := maps.SeatLoad{Seat: seat, Limits: k.limits[seat], Element: 1, Live: e.live, Ending: e.ending, Share: e.share, Elsewhere: e.elsewhere, Wanted: e.wanted}
			if e.gone {
				one = maps.SeatLoad{Seat: seat, Limits: k.limits[seat], Ending: e.ending}
			}
			all = append(all, one)
			e.wanted = false
		}
	}
	k.meanwhile()
	return all, true, nil
}

func (k kernel) SetShares(shares []maps.Share) error {
	for _, s := range shares {
		k.meanwhile()
		if e := k.kernels[k.host][s.Seat]; e != nil && !e.gone {
			e.share, e.elsewhere = s.Limit, s.Elsewhere
		}
		k.check()
	}
	return nil
}

func (k kernel) Void(seats []maps.Seat) error {
	for _, seat := range seats {
		if e := k.kernels[k.host][seat]; e != nil {
			k.meanwhile()
			*e = element{ending: e.ending + e.live, gone: e.gone}
		}
	}
	return nil
}

func (k kernel) Fences() (all []maps.Fence, err error) {
	return slices.Collect(stdmaps.Keys(k.fences[k.host])), nil
}

func (k kernel) SetFences(add, remove []maps.Fence) error {
	k.meanwhile()
	for _, f := range add {
		k.fences[k.host][f] = true
	}
	for _, f := range remove {
		delete(k.fences[k.host], f)
	}
	k.check()
	return nil
}
