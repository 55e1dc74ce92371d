package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/machine"
	tables "github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/reconcile"
)

// machineDevices lists the devices in this namespace that agents of this name made
// for Machines, by Machine id.
func machineDevices(name string) (map[string]machine.Device, error) {
	links, err := netns.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	found := map[string]machine.Device{}
	for _, link := range links {
		id, ours := strings.CutPrefix(link.Attrs().Name, machine.DeviceName(""))
		if !ours || link.Attrs().Alias != machine.AliasOf(name, id) {
			continue
		}
		if found[id], err = machine.FindVeth(id); err != nil {
			delete(found, id) // it went meanwhile
		}
	}
	return found, nil
}

// settle waits until the host port and the ports of all Machines that an earlier
// agent left are in the tables again. Only then may anything be taken out of them,
// and devices that belong to no Machine be removed.
func (a *agent) settle(ctx context.Context) error {
	for _, done := range []<-chan struct{}{a.hostUp, a.manager.Adopted()} {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	known := a.ports.list()
	devices, err := machineDevices(a.config.Name)
	if err != nil {
		return err
	}
	for id, device := range devices {
		if _, ok := known[id]; ok || a.mayRun(id) {
			continue
		}
		a.log.Info("removing the device of a machine that is gone", "machine", id, "device", device.Name)
		if err := errors.Join(a.loader.Detach(device.Ifindex), machine.DeleteVeth(id)); err != nil {
			return fmt.Errorf("remove device %s: %w", device.Name, err)
		}
	}
	// The device to other hosts is a port too, whenever its task comes to raise it.
	if err := a.loop.SetMeshPort(ctx, a.meshPort()); err != nil {
		return err
	}
	a.loop.PortsComplete()
	// The tables have no hole from here on: what the API says is what is so.
	if err := a.loop.Applied(ctx, a.loop.Wanted()); err != nil {
		return err
	}
	return a.leaveOtherMode(ctx)
}

// mayRun says whether a Machine runs, or the manager is about to start it.
func (a *agent) mayRun(id string) bool {
	if _, err := a.manager.Process(id); err == nil {
		return true
	}
	_, recorded := a.store.Snapshot().Machines[id]
	return recorded
}

// fill is loader.Config.Fill: a build whose tables have another layout begins with
// all that the state and the devices say, before it takes the place of the running
// one.
func (a *agent) fill(running, fresh *bpf.RouterMaps) error {
	// Flows name services and backends by number: what has one keeps it.
	if err := tables.Carry(running, fresh); err != nil {
		return err
	}
	filled, err := tables.Open(fresh, a.tableOptions())
	if err != nil {
		return err
	}
	left, err := machine.LeftPorts(a.config.driver().Dir)
	if err != nil {
		return err
	}
	snapshot := a.store.Snapshot()
	local := reconcile.Local{HostPort: a.hostPort(), Mesh: a.meshPort()}
	for _, port := range left {
		if _, ok := snapshot.Machines[port.MachineID]; ok {
			row := tablePort(port)
			row.XDP = tables.ByXDP(running, port.Network, port.Number)
			local.Ports = append(local.Ports, row)
		}
	}
	want := reconcile.Compile(snapshot, a.host.ID, local, a.settings(fresh))
	want.AddOnly = true // what goes is the loop's matter, once it knows everything
	_, err = filled.Sync(context.Background(), want)
	return err
}
