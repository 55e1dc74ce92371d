package observe

import (
	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

const sectionPackets = "Packets"

var (
	portPackets = counter(sectionPackets, "port_packets_total", "Packets that the router forwarded since the agent began: in by the port that they came by, out by the one that they left by", "kind", "org", "network", "direction")
	portBytes   = counter(sectionPackets, "port_bytes_total", "Bytes of these packets, Ethernet headers included, one for all the segments that are still one frame", "kind", "org", "network", "direction")
	portDropped = counter(sectionPackets, "port_dropped_packets_total", "Packets that came in by these ports and did not go on", "kind", "org", "network")
	portsGauge  = gauge(sectionPackets, "ports", "Ports of the router", "kind")

	dropped    = counter(sectionPackets, "dropped_packets_total", "Dropped packets by reason since the tables were made; docs/drop-reasons.md explains the reasons", "reason")
	lostEvents = counter(sectionPackets, "drop_events_lost_total", "Drops that were counted but not sampled, for there were too many a second")
)

// portID is a port as long as it is the same one.
type portID struct {
	ifindex uint32
	network sixpn.Network
	host    sixpn.Host
	machine sixpn.Machine
}

// portSum is what the packets of ports are added up by.
type portSum struct {
	kind    bpf.RouterPortKind
	network sixpn.Network // 0: of no network
	beyond  bool          // of a network that has no series of its own
}

func idOf(c maps.PortCounts) portID { return portID{c.Ifindex, c.Network, c.Host, c.Machine} }

func portValues(c maps.PortCounts) values {
	return values{c.RxPackets, c.RxBytes, c.TxPackets, c.TxBytes, c.Dropped}
}

func (o *Collector) portSum(c maps.PortCounts) portSum {
	if c.Network != 0 && !o.networks.admits(c.Network) {
		return portSum{kind: c.Kind, beyond: true}
	}
	return portSum{kind: c.Kind, network: c.Network}
}

func (o *Collector) beginPorts() error {
	ports, err := o.config.Tables.PortCounters()
	for _, port := range ports {
		o.ports.begin(idOf(port), portValues(port))
	}
	return err
}

// PortRemoved takes the last counts of a port: see maps.Options.
func (o *Collector) PortRemoved(last maps.PortCounts) { o.lastPorts.add(last) }

func (o *Collector) collectPorts(s *state.Snapshot, to *batch) error {
	ports, err := o.config.Tables.PortCounters()
	if err != nil {
		return err
	}
	kinds := map[bpf.RouterPortKind]int{bpf.RouterPortKindPORT_MACHINE: 0, bpf.RouterPortKindPORT_HOST: 0}
	for _, port := range ports {
		kinds[port.Kind]++
		o.ports.see(idOf(port), o.portSum(port), portValues(port))
	}
	// After what was read: what goes in between was seen, or is among these.
	for _, last := range o.lastPorts.take() {
		o.ports.gone(idOf(last), o.portSum(last), portValues(last))
	}
	o.ports.sweep(func(sum portSum) bool {
		_, ok := s.Networks[sum.network]
		return ok || sum.network == 0
	})
	for kind, count := range kinds {
		portsGauge.emit(to, float64(count), kind.String())
	}
	for sum, v := range o.ports.sums {
		kind := sum.kind.String()
		org, network := other, other
		if !sum.beyond {
			org, network = o.networkNames(s, sum.network)
		}
		portPackets.emit(to, float64(v[0]), kind, org, network, "in")
		portBytes.emit(to, float64(v[1]), kind, org, network, "in")
		portPackets.emit(to, float64(v[2]), kind, org, network, "out")
		portBytes.emit(to, float64(v[3]), kind, org, network, "out")
		portDropped.emit(to, float64(v[4]), kind, org, network)
	}
	return nil
}

func (o *Collector) collectDrops(_ *state.Snapshot, to *batch) error {
	drops, err := o.config.Tables.Drops()
	if err != nil {
		return err
	}
	for reason, packets := range drops {
		dropped.emit(to, float64(packets), reason.String())
	}
	for reason, name := range refusalReasons {
		flowRefusals.emit(to, float64(drops[reason]), name)
	}
	lost, err := o.config.Tables.LostEvents()
	if err == nil {
		lostEvents.emit(to, float64(lost))
	}
	return err
}
