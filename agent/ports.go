package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/reconcile"
)

// devices is the part of the loader that a port needs.
type devices interface {
	Prepare(ifindex uint32) error
	Attach(ifindex uint32) error
	Raise(ifindex uint32) error
	Detach(ifindex uint32) error
	TakesXDP(ifindex uint32) (bool, error)
}

// ports is the machine manager's view of the router: each Machine's device, its
// rows in the kernel's tables and the program on it, in the one order that is
// safe after every step.
type ports struct {
	devices devices
	loop    *reconcile.Loop
	host    uint32 // ifindex of the device into the private namespace
	// find finds the device of a Machine whose port an earlier agent had made.
	find func(machineID string) (machine.Device, error)
	// byXDP says whether the kernel's tables lead to a Machine by XDP now.
	byXDP func(sixpn.Network, sixpn.Machine) bool

	mu    sync.Mutex
	known map[string]machine.Port // by Machine id
}

var _ machine.Ports = (*ports)(nil)

func newPorts(d devices, loop *reconcile.Loop, host uint32, find func(string) (machine.Device, error), byXDP func(sixpn.Network, sixpn.Machine) bool) *ports {
	return &ports{devices: d, loop: loop, host: host, find: find, byXDP: byXDP, known: map[string]machine.Port{}}
}

// Add is machine.Ports: the drop filter, the tables, the program, and only then
// the device goes up. An adopted device has carried traffic all the time: it
// never goes down, and Attach gives it back whatever it lost.
func (p *ports) Add(ctx context.Context, port machine.Port) error {
	if err := p.remember(port); err != nil {
		return err
	}
	if !port.Adopted {
		if err := p.devices.Prepare(port.Ifindex); err != nil {
			p.forget(port.MachineID)
			return fmt.Errorf("prepare %s: %w", port.Device, err)
		}
	}
	row := p.row(port)
	if err := p.loop.SetPort(ctx, row); err != nil {
		p.forget(port.MachineID)
		return err
	}
	if err := p.devices.Attach(port.Ifindex); err != nil {
		return fmt.Errorf("attach the router to %s: %w", port.Device, err)
	}
	if err := p.devices.Raise(port.Ifindex); err != nil {
		return fmt.Errorf("raise %s: %w", port.Device, err)
	}
	// A veth says whether it takes frames of XDP once it is up.
	before := row.XDP
	if row = p.row(port); row.XDP != before {
		if err := p.loop.SetPort(ctx, row); err != nil {
			return err
		}
	}
	// It may have ceased to meanwhile, when nobody saw that this mattered.
	if row.XDP && !p.takesXDP(port) {
		p.loop.LeaveXDP(port.Ifindex)
	}
	return nil
}

// row is a port for the tables. One that is adopted gets no frames of XDP if it did not
// before: it may have ceased to take them, see keepXDP.
func (p *ports) row(port machine.Port) reconcile.Port {
	row := tablePort(port)
	row.XDP = p.takesXDP(port) && (!port.Adopted || p.byXDP(port.Network, port.Number))
	return row
}

// takesXDP: what the kernel cannot say is no, for tcx does all.
func (p *ports) takesXDP(port machine.Port) bool {
	takes, err := p.devices.TakesXDP(port.Ifindex)
	return err == nil && takes
}

// Remove is machine.Ports. The device goes down first: from then on no packet
// can meet half of a port.
func (p *ports) Remove(ctx context.Context, machineID string) error {
	port, ok := p.recall(machineID)
	if !ok {
		device, err := p.find(machineID)
		if err != nil {
			return p.loop.RemovePort(ctx, machineID) // nothing of it is left
		}
		port = machine.Port{MachineID: machineID, Device: device.Name, Ifindex: device.Ifindex}
		if p.taken(port) != nil {
			return p.loop.RemovePort(ctx, machineID) // it was refused the device, which is another's
		}
	}
	// A device with the router of another agent was refused, and is left alone.
	if err := p.devices.Detach(port.Ifindex); err != nil && !errors.Is(err, loader.ErrForeign) {
		return fmt.Errorf("detach the router from %s: %w", port.Device, err)
	}
	if err := p.loop.RemovePort(ctx, machineID); err != nil {
		return err
	}
	p.forget(machineID)
	return nil
}

// Applied is machine.Ports.
func (p *ports) Applied(ctx context.Context, revision int64) error {
	return p.loop.Applied(ctx, revision)
}

// list returns the ports that are set, by Machine id.
func (p *ports) list() map[string]machine.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]machine.Port, len(p.known))
	for id, port := range p.known {
		all[id] = port
	}
	return all
}

// remember takes a port for a Machine, unless its device is somebody's already.
func (p *ports) remember(port machine.Port) error {
	if err := p.taken(port); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[port.MachineID] = port
	return nil
}

// taken says whose the device of a port is, if it is not that Machine's. Of two
// Machines that want one device the manager refuses the second before it comes here.
func (p *ports) taken(port machine.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port.Ifindex == p.host {
		return fmt.Errorf("device %s leads into the agent's private namespace: attach another", port.Device)
	}
	for id, other := range p.known {
		if id != port.MachineID && other.Ifindex == port.Ifindex {
			return fmt.Errorf("device %s is that of machine %s: detach it there first (sixpn machine detach %s)", port.Device, id, id)
		}
	}
	return nil
}

func (p *ports) recall(id string) (machine.Port, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	port, ok := p.known[id]
	return port, ok
}

func (p *ports) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, id)
}

func tablePort(p machine.Port) reconcile.Port {
	return reconcile.Port{
		MachineID: p.MachineID, Ifindex: p.Ifindex, Network: p.Network, Host: p.Host, Number: p.Number,
		MTU: p.MTU, GuestMAC: p.GuestMAC, RouterMAC: p.RouterMAC, Peer: p.Peer,
	}
}
