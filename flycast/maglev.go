package flycast

import (
	"cmp"
	"slices"

	"github.com/sixpn/sixpn/maps"
)

// primes are the lengths that a region may have, about doubling.
var primes = []uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537}

// perBackend is the length of a region a backend: with 100 no backend gets more than
// a few percent above its share.
const perBackend = 100

// RegionLength is the length of the region of so many backends, a prime. Above 655
// backends there are fewer than 100 positions for each.
func RegionLength(backends int) uint32 {
	for _, prime := range primes {
		if uint64(prime) >= uint64(backends)*perBackend {
			return prime
		}
	}
	return primes[len(primes)-1]
}

// Maglev spreads backends over a region: for every position it gives the index of a
// backend in the argument. It is a function of the set of backends alone, their order
// does not matter, so every host of the fleet sends a client's flow to the same one.
// While the length stays the same, a backend that comes or goes moves few positions
// but its own.
//
// The method is section 3.4 of "Maglev: A Fast and Reliable Software Network Load
// Balancer", Eisenbud and others, NSDI 2016.
func Maglev(backends []maps.Backend) []uint32 {
	if len(backends) == 0 {
		return nil
	}
	length := RegionLength(len(backends))

	type walk struct {
		backend    uint32
		hash       uint64
		next, skip uint32
	}
	walks := make([]walk, len(backends))
	for i, backend := range backends {
		hash := hashBackend(backend)
		walks[i] = walk{
			backend: uint32(i),
			hash:    hash,
			next:    uint32(hash>>32) % length,
			skip:    uint32(mix(hash))%(length-1) + 1,
		}
	}
	// Turns are taken in an order that all hosts share. Equal hashes are equal
	// backends, as good as certainly.
	slices.SortFunc(walks, func(a, b walk) int { return cmp.Compare(a.hash, b.hash) })

	const empty = ^uint32(0)
	region := slices.Repeat([]uint32{empty}, int(length))
	for filled := uint32(0); ; {
		for i := range walks {
			w := &walks[i]
			for region[w.next] != empty {
				w.next = (w.next + w.skip) % length
			}
			region[w.next] = w.backend
			if filled++; filled == length {
				return region
			}
		}
	}
}

// hashBackend depends on nothing but who the backend is.
func hashBackend(b maps.Backend) uint64 {
	hash := mix(uint64(b.Network)<<32 | uint64(b.Host))
	return mix(hash ^ mix(uint64(b.Machine)<<16|uint64(b.Port)))
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014): a permutation of
// 64 bits, each of which depends on all.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}
