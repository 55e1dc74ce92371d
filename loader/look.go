package loader

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// Seen is what stands between a device and the host; names of agents, empty where
// there is nothing of sixpn's.
type Seen struct {
	Router string // whose router decides on what arrives
	Filter string // whose drop filter is behind it; an uplink has none
	XDP    XDP    // how a program of sixpn's takes frames of an uplink
}

// Look reads what is on a device of this network namespace. It changes nothing and
// needs no Loader.
func Look(ifindex uint32) (Seen, error) {
	device, err := deviceOf(ifindex)
	if err != nil {
		return Seen{}, err
	}
	var seen Seen
	if _, seen.Filter, err = filterOf(device); err != nil {
		return Seen{}, err
	}
	attached, err := attachedTo(ifindex)
	if err != nil {
		return Seen{}, err
	}
	for _, program := range attached {
		agent, _, err := owner(program.ID)
		if err != nil {
			return Seen{}, fmt.Errorf("device %s: %w", device.Attrs().Name, err)
		}
		if agent != "" {
			seen.Router = agent
		}
	}
	seen.XDP, err = seenXDP(device)
	return seen, err
}

// seenXDP is how the kernel says that an agent's XDP program runs on a device.
func seenXDP(device netlink.Link) (XDP, error) {
	xdp := device.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return XDPNone, nil
	}
	agent, _, err := owner(ebpf.ProgramID(xdp.ProgId))
	switch {
	case err != nil:
		return XDPNone, fmt.Errorf("device %s: %w", device.Attrs().Name, err)
	case agent == "":
		return XDPNone, nil
	case xdp.AttachMode == nl.XDP_ATTACHED_DRV:
		return XDPDriver, nil
	}
	return XDPGeneric, nil
}

// Probe says whether this kernel has what the router needs; it wraps ErrKernel if
// it has not.
func Probe() error { return probe() }
