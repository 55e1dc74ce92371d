package netns

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// wholeTries bounds how often a list is asked for again: on a host where devices
// come and go all the time another try is all it takes.
const wholeTries = 100

// Whole asks for a list until the kernel gave it in one piece. Devices, addresses
// and the like that change while they are listed make the kernel mark its answer as
// possibly incomplete (NLM_F_DUMP_INTR, netlink(7)), which is no failure.
func Whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range wholeTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
