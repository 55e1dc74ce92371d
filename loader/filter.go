package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
)

// The drop filter is a cls_bpf filter that drops whatever reaches it. The router's
// tcx program is asked first and never says "next", so the filter is met only
// where the router is gone. Attached by netlink, it needs no pin and no process:
// the device stays closed, for IPv4 too, even when bpffs was deleted.
const (
	filterPrefix   = "sixpn:" // and the agent's name
	filterPriority = 1
	filterHandle   = 1
	verdictShot    = 2 // TC_ACT_SHOT, linux/pkt_cls.h
)

func newFilterProgram() (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sixpn_closed", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdictShot), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load the drop filter: %w", err)
	}
	return program, nil
}

// filterOf finds the filter that decides first on what arrives. agent is whose it
// is; "" with found set means that sixpn did not make it.
func filterOf(device netlink.Link) (filter netlink.Filter, agent string, err error) {
	filters, err := netns.Whole(func() ([]netlink.Filter, error) { return netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS) })
	if err != nil {
		return nil, "", fmt.Errorf("list the filters of %s: %w", device.Attrs().Name, err)
	}
	for _, filter := range filters {
		if filter.Attrs().Priority != filterPriority {
			continue
		}
		if closed, ok := filter.(*netlink.BpfFilter); ok {
			agent, ours := strings.CutPrefix(closed.Name, filterPrefix)
			if ours {
				return filter, agent, nil
			}
		}
		return filter, "", nil
	}
	return nil, "", nil
}

// closeDevice puts the drop filter on a device that does not have it.
func (l *Loader) closeDevice(device netlink.Link) error {
	name := device.Attrs().Name
	found, agent, err := filterOf(device)
	if err != nil {
		return err
	}
	if found != nil && agent == l.config.Name {
		return nil
	}
	if found != nil {
		return fmt.Errorf("%w: %s has a tc filter of priority %d already (agent %q); remove it (tc filter del dev %s ingress)",
			ErrForeign, name, filterPriority, agent, name)
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the clsact queueing discipline to %s: %w", name, err)
	}
	if err := l.config.step("clsact"); err != nil {
		return err
	}
	if err := netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS,
			Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Fd: l.filter.FD(), Name: filterPrefix + l.config.Name, DirectAction: true,
	}); err != nil {
		return fmt.Errorf("add the drop filter to %s: %w", name, err)
	}
	return nil
}

// removeFilter takes an agent's filter off, and the clsact with it when nothing
// else uses that. It is no error if there is none.
func removeFilter(device netlink.Link, agent string) error {
	name := device.Attrs().Name
	filter, whose, err := filterOf(device)
	if err != nil || filter == nil || whose != agent {
		return err
	}
	if err := netlink.FilterDel(filter); err != nil {
		return fmt.Errorf("remove the drop filter of %s: %w", name, err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		left, err := netns.Whole(func() ([]netlink.Filter, error) { return netlink.FilterList(device, parent) })
		if err != nil {
			return fmt.Errorf("list the filters of %s: %w", name, err)
		}
		if len(left) > 0 {
			return nil
		}
	}
	err = netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the clsact queueing discipline of %s: %w", name, err)
	}
	return nil
}
