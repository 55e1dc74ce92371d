package maps_test

import (
	stdmaps "maps"
	"slices"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

type serviceView struct {
	Action, Flags        uint8
	SoftLimit, HardLimit uint32
	To                   map[sixpnmaps.Backend]int   // positions in its region
	Farther              []map[sixpnmaps.Backend]int // and in those behind it
	Wrong                int                         // positions that lead to nothing, or to another service's backend
}

// backends are all that a service leads to.
func (v serviceView) backends() (all []sixpnmaps.Backend) {
	for _, to := range append(v.Farther, v.To) {
		all = slices.AppendSeq(all, stdmaps.Keys(to))
	}
	return all
}

// follow finds where the positions of a service's regions lead.
func follow(s bpf.RouterService, words []uint32, backends []bpf.RouterBackend, used map[uint32]bool) serviceView {
	v := serviceView{Action: s.Action, Flags: s.Flags, SoftLimit: s.SoftLimit, HardLimit: s.HardLimit}
	region := func(offset, prime uint32) map[sixpnmaps.Backend]int {
		to := map[sixpnmaps.Backend]int{}
		for i := offset; i < offset+prime; i++ {
			used[i] = true
			if b := backends[words[i]]; b.Service == s.Id && b.Machine != 0 && b.Flags == 0 {
				to[backendOf(b)]++
			} else {
				v.Wrong++
			}
		}
		return to
	}
	v.To = region(s.Offset, s.Prime)
	for at := s.Offset + s.Prime; at < s.Offset+s.Length; at += words[at] + 1 {
		used[at] = true
		v.Farther = append(v.Farther, region(at+1, words[at]))
	}
	return v
}

// expectService is the view of one that has what is wanted.
func (k *kernel) expectService(s sixpnmaps.Service) serviceView {
	v := serviceView{Action: uint8(s.Action), Flags: s.Flags, SoftLimit: s.SoftLimit, HardLimit: s.HardLimit}
	spread := func(backends []sixpnmaps.Backend) map[sixpnmaps.Backend]int {
		to := map[sixpnmaps.Backend]int{}
		if n := len(backends); n > 0 {
			for i := range k.length(n) {
				to[backends[i%n]]++
			}
		}
		return to
	}
	groups := append([][]sixpnmaps.Backend{s.Backends}, s.Farther...)
	if len(s.Backends) == 0 && len(s.Farther) > 0 {
		groups = s.Farther
	}
	v.To = spread(groups[0])
	for _, group := range groups[1:] {
		v.Farther = append(v.Farther, spread(group))
	}
	return v
}

func leads(v view, name serviceName, backend sixpnmaps.Backend) bool {
	return slices.Contains(v.Services[name].backends(), backend)
}
