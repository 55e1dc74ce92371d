package maps

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

func redirect(peer, xdp bool) uint8 {
	switch {
	case peer && xdp:
		return uint8(bpf.RouterRedirectMethodREDIRECT_XDP)
	case peer:
		return uint8(bpf.RouterRedirectMethodREDIRECT_PEER)
	}
	return uint8(bpf.RouterRedirectMethodREDIRECT_EGRESS)
}

func (p *pass) wantedPorts() map[uint32]Port {
	ports := map[uint32]Port{}
	for _, port := range p.want.Ports {
		ports[port.Ifindex] = port
	}
	return ports
}

func (p *pass) wantedMachines() map[bpf.RouterMachineKey]Machine {
	machines := map[bpf.RouterMachineKey]Machine{}
	for _, machine := range p.want.Machines {
		machines[machineKey(machine.Network, machine.Machine)] = machine
	}
	return machines
}

func (p *pass) wantedVIPs() map[bpf.RouterVipKey]VIP {
	vips := map[bpf.RouterVipKey]VIP{}
	for _, vip := range p.want.VIPs {
		vips[bpf.RouterVipKey{Network: uint32(vip.Network), Number: vip.Number}] = vip
	}
	return vips
}

// cutReusedDevices takes away every entry that leads to a device which is wanted as
// another Machine's: the kernel has given its number anew. Then the device is in no
// table until all about it is written.
func (p *pass) cutReusedDevices() error {
	wanted := p.wantedPorts()
	for key, machine := range p.machines.have {
		port, ok := wanted[machine.Ifindex]
		if !ok || leadsTo(key, port) {
			continue
		}
		if err := p.removeMachine(key); err != nil {
			return err
		}
	}
	if port, ok := wanted[p.host.have[0].Ifindex]; ok && port.Kind != bpf.RouterPortKindPORT_HOST {
		if err := p.putHostDevice(bpf.RouterHostDevice{}); err != nil {
			return err
		}
	}
	if port, ok := wanted[p.mesh.have[0].Ifindex]; ok && port.Kind != bpf.RouterPortKindPORT_MESH && port.Kind != bpf.RouterPortKindPORT_UPLINK {
		if err := p.setMeshDevice(bpf.RouterHostDevice{}); err != nil {
			return err
		}
	}
	for ifindex, have := range p.ports.have {
		port, ok := wanted[ifindex]
		if !ok || have.Network == uint32(port.Network) && have.Host == uint32(port.Host) &&
			have.Machine == uint32(port.Machine) && have.Kind == uint8(port.Kind) {
			continue
		}
		if err := p.removePort(ifindex); err != nil {
			return err
		}
	}
	return nil
}

// leadsTo says whether a Machine's entry may point at a port. Peers share theirs.
func leadsTo(key bpf.RouterMachineKey, port Port) bool {
	switch port.Kind {
	case bpf.RouterPortKindPORT_MACHINE:
		return key == machineKey(port.Network, port.Machine)
	case bpf.RouterPortKindPORT_GATEWAY:
		return true
	default:
		return false
	}
}

// numberPorts gives every wanted port its index into port_counters: the one it has, or
// the lowest that no port has, set to zero.
func (p *pass) numberPorts() error {
	p.counters = map[uint32]uint32{}
	taken := map[uint32]bool{}
	for ifindex, port := range p.ports.have {
		p.counters[ifindex] = port.Counters
		taken[port.Counters] = true
	}
	// A port that found no room, or an interrupted pass, may have left numbers in
	// the other tables: harmless, they are written again with the port's.
	next, limit := uint32(0), p.maps.PortCounters.MaxEntries()
	for _, port := range sortedPorts(p.want.Ports) {
		if _, ok := p.counters[port.Ifindex]; ok {
			continue
		}
		for taken[next] {
			next++
		}
		what := fmt.Sprintf("the counters of device %d", port.Ifindex)
		if next >= limit {
			p.refused = append(p.refused, &CapacityError{tablePortCounters, what, limit, hints[tablePortCounters]})
			continue
		}
		index := next
		next++
		if err := p.write(tablePortCounters, what, limit, func() error {
			return p.maps.PortCounters.Put(index, make([]bpf.RouterCounters, ebpf.MustPossibleCPU()))
		}); err != nil {
			return err
		}
		p.counters[port.Ifindex] = index
	}
	return nil
}

func sortedPorts(ports []Port) []Port {
	return slices.SortedFunc(slices.Values(ports), func(a, b Port) int { return cmp.Compare(a.Ifindex, b.Ifindex) })
}

func (p *pass) putPort(port Port) error {
	counters, ok := p.counters[port.Ifindex]
	if !ok { // refused already
		return nil
	}
	return p.tolerate(p.ports.put(p.writer, fmt.Sprintf("the port of device %d", port.Ifindex), port.Ifindex, bpf.RouterPort{
		Network:  uint32(port.Network),
		Host:     uint32(port.Host),
		Machine:  uint32(port.Machine),
		Counters: counters,
		Mtu:      port.MTU,
		Kind:     uint8(port.Kind),
		Redirect: redirect(port.Peer, false),
		Mac:      port.RouterMAC,
		Ifindex:  port.Ifindex,
	}))
}

// putHostPorts writes the ports that are not Machines', and the way into the private
// namespace.
func (p *pass) putHostPorts() error {
	for _, port := range sortedPorts(p.want.Ports) {
		if port.Kind == bpf.RouterPortKindPORT_MACHINE {
			continue
		}
		if err := p.putPort(port); err != nil {
			return err
		}
	}
	device := p.want.HostDevice
	if device.Ifindex == 0 {
		return nil
	}
	counters, ok := p.counters[device.Ifindex]
	if !ok {
		return nil
	}
	return p.putHostDevice(bpf.RouterHostDevice{
		Ifindex:   device.Ifindex,
		Counters:  counters,
		Mtu:       device.MTU,
		Mac:       device.InsideMAC,
		RouterMac: device.RouterMAC,
	})
}

func (p *pass) putHostDevice(device bpf.RouterHostDevice) error {
	return p.host.put(p.writer, "the host device", 0, device)
}

func (p *pass) putMachinePorts() error {
	for _, port := range sortedPorts(p.want.Ports) {
		if port.Kind != bpf.RouterPortKindPORT_MACHINE {
			continue
		}
		if err := p.putPort(port); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) putMachines() error {
	for _, machine := range p.want.Machines {
		counters, ok := p.counters[machine.Ifindex]
		if !ok {
			continue
		}
		what := fmt.Sprintf("machine %s of network %s", machine.Machine, machine.Network)
		if err := p.tolerate(p.machines.put(p.writer, what, machineKey(machine.Network, machine.Machine), bpf.RouterMachine{
			Ifindex:   machine.Ifindex,
			Counters:  counters,
			Mtu:       machine.MTU,
			Kind:      uint8(machine.Kind),
			Redirect:  redirect(machine.Peer, machine.XDP),
			Mac:       machine.GuestMAC,
			RouterMac: machine.RouterMAC,
			Network:   uint32(machine.Network),
			Machine:   uint32(machine.Machine),
		})); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) putVIPs() error {
	for key, vip := range p.wantedVIPs() {
		what := fmt.Sprintf("address %d of network %s", vip.Number, vip.Network)
		if err := p.tolerate(p.vips.put(p.writer, what, key, 0)); err != nil {
			return err
		}
	}
	return nil
}

// removePorts also closes the ways to other hosts and into the private namespace that are not wanted.
func (p *pass) removePorts() error {
	wanted := p.wantedPorts()
	for ifindex := range p.ports.have {
		if _, ok := wanted[ifindex]; ok {
			continue
		}
		if err := p.removePort(ifindex); err != nil {
			return err
		}
	}
	if p.want.Mesh.Ifindex == 0 {
		if err := p.setMeshDevice(bpf.RouterHostDevice{}); err != nil {
			return err
		}
	}
	if p.want.HostDevice.Ifindex == 0 {
		return p.putHostDevice(bpf.RouterHostDevice{})
	}
	return nil
}

// removePort removes a port, before it the drops that were counted for its device.
func (p *pass) removePort(ifindex uint32) error {
	for _, reason := range bpf.DropReasons() {
		key := bpf.RouterPortDropKey{Ifindex: ifindex, Reason: uint32(reason)}
		var counts []uint64
		err := p.maps.PortDrops.Lookup(key, &counts)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		what := fmt.Sprintf("the drops of device %d", ifindex)
		if err := p.write(tablePortDrops, what, p.maps.PortDrops.MaxEntries(), func() error {
			err := p.maps.PortDrops.Delete(key)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
	}
	last, err := p.lastCounts(ifindex)
	if err != nil {
		return err
	}
	if err := p.ports.remove(p.writer, fmt.Sprintf("the port of device %d", ifindex), ifindex); err != nil {
		return err
	}
	if p.options.PortRemoved != nil {
		p.options.PortRemoved(last)
	}
	return nil
}

// lastCounts reads what a port has counted, if anybody wants to know.
func (p *pass) lastCounts(ifindex uint32) (PortCounts, error) {
	if p.options.PortRemoved == nil {
		return PortCounts{}, nil
	}
	port := p.ports.have[ifindex]
	var perCPU []bpf.RouterCounters
	if err := p.maps.PortCounters.Lookup(port.Counters, &perCPU); err != nil {
		return PortCounts{}, fmt.Errorf("maps: read table %q: device %d: %w", tablePortCounters, ifindex, err)
	}
	return portCounts(port, perCPU), nil
}

func (p *pass) removeVIPs() error {
	wanted := p.wantedVIPs()
	for key := range p.vips.have {
		if _, ok := wanted[key]; ok {
			continue
		}
		if err := p.vips.remove(p.writer, "an address", key); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) removeMachines() error {
	wanted := p.wantedMachines()
	for key := range p.machines.have {
		if _, ok := wanted[key]; ok {
			continue
		}
		if err := p.removeMachine(key); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) removeMachine(key bpf.RouterMachineKey) error {
	return p.machines.remove(p.writer, fmt.Sprintf("machine %s of network %s", sixpn.Machine(key.Machine), sixpn.Network(key.Network)), key)
}
