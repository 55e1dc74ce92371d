package agent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// dataPlane is the API's view of the kernel.
type dataPlane struct{ *agent }

var _ api.DataPlane = dataPlane{}

// Applied is api.DataPlane.
func (d dataPlane) Applied(ctx context.Context, revision int64) error {
	// What does not concern this host is in its tables as soon as it is known.
	snapshot, err := d.store.Reach(ctx, revision)
	if err != nil {
		return err
	}
	return d.loop.Applied(ctx, min(revision, snapshot.Revision))
}

// progress is the loop's, in revisions of the store: those that do not concern this host
// are wanted and applied as soon as it has passed over them.
func (a *agent) progress() reconcile.Status {
	reached := a.store.Reached()
	snapshot := a.store.Snapshot() // has all up to reached that concerns this host
	status := a.loop.Status()
	if status.Applied >= snapshot.Revision {
		status.Applied = max(status.Applied, reached)
	}
	status.Wanted = max(status.Wanted, snapshot.Revision, reached)
	return status
}

// Status is api.DataPlane: what is in the kernel's tables now, with the names that
// the state has for it.
func (d dataPlane) Status(context.Context) (api.Status, error) {
	progress := d.progress()
	snapshot := d.store.Snapshot()
	from, until := d.certificateTimes()
	status := api.Status{
		Agent: api.AgentStatus{
			Name: d.config.Name, Host: d.host.ID.String(), HostName: d.host.Name, Region: d.host.Region,
			CertificateFrom: from.UTC(), CertificateUntil: until.UTC(),
			Version: d.config.Version, Pid: os.Getpid(), StartedAt: d.started.UTC(), Message: d.trouble(progress),
		},
		Mesh:     d.meshStatus(),
		Revision: api.RevisionStatus{Wanted: progress.Wanted, Applied: progress.Applied},
	}
	machines := byNumber(snapshot, d.host.ID)
	var err error
	if status.Ports, err = d.portStatus(machines); err != nil {
		return api.Status{}, err
	}
	if status.Services, err = d.serviceStatus(snapshot); err != nil {
		return api.Status{}, err
	}
	status.Drops, err = d.dropStatus()
	return status, err
}

// trouble is the worst of what is wrong right now, for people; "" when all is well.
func (a *agent) trouble(progress reconcile.Status) string {
	snapshot := a.store.Snapshot()
	if alarm := snapshot.Alarm(); alarm != "" {
		return alarm
	}
	if progress.Error != "" {
		return progress.Error
	}
	at, away := a.store.Contact()
	switch {
	case state.KindOf(away) == state.Conflict:
		return away.Error()
	case away != nil:
		return fmt.Sprintf("the store has not answered since %s (%v): the last state is in force; look after the store, and the way to it", at.UTC().Format(time.RFC3339), away)
	}
	if n := len(snapshot.Unreadable); n > 0 {
		return fmt.Sprintf("%d records of the store cannot be read by this build; their last readable versions are in force", n)
	}
	if a.exchange != nil {
		if err := a.exchange.Failure(); err != nil {
			return fmt.Sprintf("shares of hard limits cannot be written down, so no other host gets a larger one (%v): make room in %s", err, a.config.ledgerPath())
		}
	}
	return otherModes(snapshot, a.host.ID)
}

// meshStatus is the zero value for a host that is alone.
func (d dataPlane) meshStatus() api.MeshStatus {
	switch {
	case d.native != nil:
		device, xdp := d.native.seen()
		return api.MeshStatus{Mode: api.MeshStatusModeNative, Device: device.name, MTU: int(device.mtu), Xdp: api.MeshStatusXdp(xdp.String())}
	case d.mesh != nil:
		device := d.mesh.Device()
		return api.MeshStatus{Mode: api.MeshStatusModeWireguard, Device: device.Name, MTU: int(device.MTU)}
	}
	return api.MeshStatus{}
}

// numbered is a Machine as addresses know it.
type numbered struct {
	network sixpn.Network
	host    sixpn.Host
	machine sixpn.Machine
}

func byNumber(snapshot *state.Snapshot, hosts ...sixpn.Host) map[numbered]state.Machine {
	found := map[numbered]state.Machine{}
	for _, m := range snapshot.Machines {
		if len(hosts) == 0 || slices.Contains(hosts, m.Host) {
			found[numbered{m.Network, m.Host, m.Number}] = m
		}
	}
	return found
}

func (d dataPlane) portStatus(machines map[numbered]state.Machine) ([]api.PortStatus, error) {
	counts, err := d.tables.PortCounters()
	if err != nil {
		return nil, err
	}
	names := map[uint32]string{d.private.HostSide().Ifindex: d.private.HostSide().Name}
	for _, port := range d.ports.list() {
		names[port.Ifindex] = port.Device
	}
	var ports []api.PortStatus
	for _, c := range counts {
		ports = append(ports, portShown(c, names[c.Ifindex], machines[numbered{c.Network, c.Host, c.Machine}]))
	}
	return ports, nil
}

// portShown is a port of a Machine, or of none: the zero value.
func portShown(c maps.PortCounts, device string, m state.Machine) api.PortStatus {
	port := api.PortStatus{
		Device: device, Ifindex: int(c.Ifindex), Kind: c.Kind.String(), MTU: int(c.MTU),
		RxPackets: c.RxPackets, RxBytes: c.RxBytes, TxPackets: c.TxPackets, TxBytes: c.TxBytes, Dropped: c.Dropped,
	}
	if m.ID != "" {
		port.App, port.MachineID, port.Address = m.App, m.ID, m.Addr().String()
	}
	return port
}

// serviceKey tells services apart as the kernel does.
type serviceKey struct {
	maps.VIP
	protocol uint8
	id       uint32
}

// serviceStatus reads what the kernel balances. A range of ports is several
// elements of one id there, and one service here.
func (d dataPlane) serviceStatus(snapshot *state.Snapshot) ([]api.ServiceStatus, error) {
	placed, err := d.tables.Services()
	if err != nil {
		return nil, err
	}
	loads, err := d.tables.Loads()
	if err != nil {
		return nil, err
	}
	machines := byNumber(snapshot)
	var services []api.ServiceStatus
	index := map[serviceKey]int{}
	for _, p := range placed {
		key := serviceKey{p.VIP, p.Protocol, p.ID}
		if i, ok := index[key]; ok {
			services[i].FirstPort = min(services[i].FirstPort, int(p.First))
			services[i].LastPort = max(services[i].LastPort, int(p.Last))
			continue
		}
		index[key] = len(services)
		vip := sixpn.VIPAddr(p.Network, p.Number)
		service := api.ServiceStatus{
			Vip: vip.String(), App: snapshot.VIPs[vip].App, Protocol: maps.ProtocolName(p.Protocol),
			FirstPort: int(p.First), LastPort: int(p.Last), Action: p.Action.String(),
			CrossNetwork: p.Flags&maps.CrossNetwork != 0,
		}
		for _, load := range loads {
			if load.Service != p.ID || load.Gone {
				continue
			}
			backend := api.BackendStatus{
				Address:      sixpn.MachineAddr(load.Network, load.Host, load.Machine).String(),
				InternalPort: int(load.Port), Flows: uint64(load.Live),
			}
			m, known := machines[numbered{load.Network, load.Host, load.Machine}]
			if known {
				backend.MachineID = m.ID
			}
			if !known || flycast.MachineReadiness(m) != flycast.Ready {
				service.Draining++
			}
			service.Backends = append(service.Backends, backend)
		}
		services = append(services, service)
	}
	return services, nil
}

func (d dataPlane) dropStatus() ([]api.DropStatus, error) {
	counts, err := d.tables.Drops()
	if err != nil {
		return nil, err
	}
	return dropsShown(counts), nil
}

func dropsShown(counts map[bpf.DropReason]uint64) (drops []api.DropStatus) {
	for reason, packets := range counts {
		if packets > 0 {
			drops = append(drops, api.DropStatus{Reason: reason.String(), Packets: packets})
		}
	}
	slices.SortFunc(drops, func(a, b api.DropStatus) int {
		return cmp.Or(-cmp.Compare(a.Packets, b.Packets), strings.Compare(a.Reason, b.Reason))
	})
	return drops
}
