package e2e_test

import (
	"context"
	"errors"
	"fmt"
	xmaps "maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// kernelTables are the pinned tables of a host, and how to compile into them.
type kernelTables struct {
	*maps.Tables
	maps  bpf.RouterMaps
	clock time.Duration // how far the tables' clock is ahead
}

// versionDir has the pins of the tables, of which there is one version.
func versionDir(t *testing.T, h *nettest.Host) string {
	t.Helper()
	versions := nettest.Get[[]string](t)(filepath.Glob(filepath.Join(h.PinDir(), "v*")))
	if len(versions) != 1 {
		t.Fatalf("the versions of tables are %q, expected one", versions)
	}
	return versions[0]
}

// openTables opens all tables that are pinned.
func openTables(t *testing.T, w *world) *kernelTables {
	t.Helper()
	dir := versionDir(t, w.Host)
	k := &kernelTables{}
	fields := reflect.ValueOf(&k.maps).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Tag.Get("ebpf")
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil { // as an adopted table is called
			m = nettest.Get[*ebpf.Map](t)(ebpf.LoadPinnedMap(filepath.Join(dir, name[:min(len(name), 15)]), nil))
		}
		fields.Field(i).Set(reflect.ValueOf(m))
	}
	t.Cleanup(func() { nettest.Must(t, k.maps.Close()) })
	k.Tables = nettest.Get[*maps.Tables](t)(maps.Open(&k.maps, maps.Options{
		Maglev: flycast.Maglev,
		Now:    func() time.Time { return time.Now().Add(k.clock) },
	}))
	return k
}

// checkTables demands that the kernel's tables are what the state makes of them,
// written by an agent that never was interrupted: bringing them there is no work,
// now and when all that could wait to be freed has waited long enough.
func checkTables(ctx context.Context, t *testing.T, w *world, snapshot *state.Snapshot) {
	t.Helper()
	k := openTables(t, w)
	want := nettest.Get[maps.Want](t)(wanted(ctx, w, k, snapshot))
	if len(want.Services) == 0 {
		t.Error("the state wants no service")
	}
	for range 3 {
		changes, err := k.Sync(ctx, want)
		nettest.Must(t, err)
		if changes.Writes > 0 || changes.Waiting > 0 {
			t.Errorf("the tables were not as wanted: %+v", changes)
		}
		k.clock += time.Hour
	}
	// What a Sync compares, said once more in other words.
	ports := map[uint32]maps.Port{}
	for _, counted := range nettest.Get[[]maps.PortCounts](t)(k.PortCounters()) {
		ports[counted.Ifindex] = counted.Port
	}
	for _, port := range want.Ports {
		if ports[port.Ifindex] != port {
			t.Errorf("port %d is %+v, expected %+v", port.Ifindex, ports[port.Ifindex], port)
		}
	}
	if len(ports) != len(want.Ports) {
		t.Errorf("there are %d ports, expected %d", len(ports), len(want.Ports))
	}
	checkCounts(t, k)
}

// wanted is what the state makes of the tables.
func wanted(ctx context.Context, w *world, k *kernelTables, snapshot *state.Snapshot) (maps.Want, error) {
	hosts := slices.Collect(xmaps.Keys(snapshot.Hosts))
	if len(hosts) != 1 {
		return maps.Want{}, fmt.Errorf("the hosts are %+v, expected one", snapshot.Hosts)
	}
	local, err := localPorts(ctx, w, snapshot)
	settings := reconcile.DefaultSettings
	settings.TableFlows = k.maps.Flows.MaxEntries()
	return reconcile.Compile(snapshot, hosts[0], local, settings), err
}

// localPorts finds the devices, as an agent that starts does.
func localPorts(ctx context.Context, w *world, snapshot *state.Snapshot) (local reconcile.Local, err error) {
	err = w.Do(func() error {
		// What the host says of taps cannot be found otherwise.
		left, err := machine.LeftPorts(filepath.Join(w.StateDir(), "machines"))
		if err != nil {
			return err
		}
		for _, id := range running(snapshot) {
			if i := slices.IndexFunc(left, func(p machine.Port) bool { return p.MachineID == id && !p.Peer }); i >= 0 {
				p := left[i]
				local.Ports = append(local.Ports, reconcile.Port{
					MachineID: id, Ifindex: p.Ifindex, Network: p.Network, Host: p.Host, Number: p.Number,
					MTU: p.MTU, GuestMAC: p.GuestMAC, RouterMAC: p.RouterMAC,
				})
				continue
			}
			device, err := machine.FindVeth(id)
			if err != nil {
				return err
			}
			m := snapshot.Machines[id]
			local.Ports = append(local.Ports, reconcile.Port{
				MachineID: id, Ifindex: device.Ifindex, Network: m.Network, Host: m.Host, Number: m.Number,
				MTU: device.MTU, GuestMAC: device.GuestMAC, RouterMAC: device.RouterMAC, Peer: true,
			})
		}
		private, err := netns.SetupPrivate(ctx, netns.PrivateConfig{Name: w.Name, Path: filepath.Join(w.RunDir(), "netns", w.Name)})
		if err != nil {
			return err
		}
		defer private.Close()
		outside, inside := private.HostSide(), private.InsideSide()
		local.HostPort = reconcile.HostPort{Ifindex: outside.Ifindex, MTU: private.MTU(), InsideMAC: inside.MAC, RouterMAC: outside.MAC}
		return nil
	})
	return local, err
}

// client is whose a quota is: of a machine, or of a network as a whole, which has the
// machine 0.
type client struct {
	network sixpn.Network
	machine sixpn.Machine
}

func clientOf(f bpf.RouterFlow) client {
	return client{sixpn.Network(f.Key.Network), sixpn.Machine(f.Key.Machine)}
}

// flows reads the flow table.
func (k *kernelTables) flows() (all []bpf.RouterFlow, err error) {
	var key bpf.RouterFlowKey
	var flow bpf.RouterFlow
	entries := k.maps.Flows.Iterate()
	for entries.Next(&key, &flow) {
		all = append(all, flow)
	}
	return all, entries.Err()
}

// flowsOf describes the flows of one client, for people.
func (k *kernelTables) flowsOf(who client) string {
	var now unix.Timespec
	flows, err := k.flows()
	if err := errors.Join(err, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)); err != nil {
		return err.Error()
	}
	text := ""
	for _, f := range flows {
		if clientOf(f) == who {
			text += fmt.Sprintf("[port %d, VIP %d:%d, protocol %d, state %#x, backend %d, idle for %v]",
				f.Key.Port, f.Vip, f.VipPort, f.Key.Protocol, f.State, f.Backend, time.Duration(now.Nano()-int64(f.LastSeen)))
		}
	}
	return text
}

// flowUncounted is FLOW_UNCOUNTED of types.h: the flow has closed, and holds no place
// of its backend.
const flowUncounted = 0x80

// checkCounts demands that whatever counts flows counts those that there are.
func checkCounts(t *testing.T, k *kernelTables) {
	t.Helper()
	type backend struct{ index, generation uint32 }
	byClient, byBackend := map[client]uint32{}, map[backend]uint32{}
	flows := nettest.Get[[]bpf.RouterFlow](t)(k.flows())
	for _, flow := range flows {
		who := clientOf(flow)
		byClient[who]++
		byClient[client{who.network, 0}]++
		if flow.State&flowUncounted == 0 {
			byBackend[backend{flow.Backend, flow.BackendGeneration}]++
		}
	}
	t.Logf("%d flows at %d backends", len(flows), len(byBackend))
	if len(byBackend) < 2 {
		t.Error("there are no flows that could be counted wrong")
	}
	counted := map[client]uint32{}
	for _, quota := range nettest.Get[[]maps.QuotaUse](t)(k.QuotaUses()) {
		if quota.Used > 0 {
			counted[client{quota.Network, quota.Machine}] = quota.Used
		}
	}
	if diff := cmp.Diff(byClient, counted); diff != "" {
		t.Errorf("flows by client, - as there are, + as quotas count them:\n%s", diff)
	}
	loads := map[backend]uint32{}
	for _, load := range nettest.Get[[]maps.BackendLoad](t)(k.Loads()) {
		var raw bpf.RouterLoad
		nettest.Must(t, k.maps.BackendLoad.Lookup(load.Index, &raw))
		if raw.Live > 0 {
			loads[backend{load.Index, raw.Generation}] = raw.Live
		}
	}
	if diff := cmp.Diff(byBackend, loads); diff != "" {
		t.Errorf("flows by backend, - as there are, + as their load counts them:\n%s", diff)
	}
}
