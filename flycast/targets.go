package flycast

import (
	"cmp"
	"slices"

	"github.com/sixpn/sixpn"
)

// user is a host with clients of a backend.
type user struct {
	host  sixpn.Host
	live  uint32
	share uint32 // that it has
	waits bool   // a flow of it waits for a larger one
}

// weightOfWaiting is how much more of what is left a host gets where flows wait.
const weightOfWaiting = 3

// targets divides a limit: what each host should have, in their order. Nobody should
// have less than its flows. While nobody waits everybody keeps what it has, and what is
// left is dealt out in advance, for whoever has a share need not ask. Otherwise, or when
// somebody has no share though there are enough for everybody, all that is not used is
// divided anew, most of it to those where flows wait.
func targets(limit uint32, users []user) []uint32 {
	out := make([]uint32, len(users))
	anew, none, live, shares := false, false, uint64(0), uint64(0)
	for i, u := range users {
		anew = anew || u.waits
		none = none || u.share == 0
		live += uint64(u.live)
		shares += uint64(u.share)
		out[i] = u.share
	}
	anew = anew || none && live+uint64(len(users)) <= uint64(limit)
	left := uint64(0)
	switch {
	case anew || shares > uint64(limit):
		for i, u := range users {
			out[i] = u.live
		}
		left = uint64(limit) - min(live, uint64(limit))
	default:
		left = uint64(limit) - shares
	}
	if len(users) == 0 || left == 0 {
		return out
	}
	weight := func(u user) uint64 {
		if u.waits {
			return weightOfWaiting
		}
		return 1
	}
	sum := uint64(0)
	for _, u := range users {
		sum += weight(u)
	}
	dealt := uint64(0)
	for i, u := range users {
		n := left * weight(u) / sum
		out[i] += uint32(n)
		dealt += n
	}
	// What cannot be divided goes one by one: to who waits, then to who has least.
	order := make([]int, len(users))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(-cmp.Compare(weight(users[a]), weight(users[b])), cmp.Compare(users[a].live, users[b].live),
			-cmp.Compare(users[a].share, users[b].share), cmp.Compare(users[a].host, users[b].host))
	})
	for i := range int(left - dealt) {
		out[order[i]]++
	}
	return out
}
