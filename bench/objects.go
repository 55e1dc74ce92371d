package bench

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
)

// flowTable holds the flows of the largest measurement, with as many free places.
const flowTable = 1 << 18

// loadObjects loads the router with the programs that measure it, and one service
// a protocol: the VIP's port leads to the server.
func loadObjects() (*bpf.MeasureObjects, error) {
	spec, err := bpf.LoadMeasure()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["host"].Set(uint32(hostNumber)); err != nil {
		return nil, err
	}
	spec.Maps[bpf.RouterMapFlows].MaxEntries = flowTable
	objects := new(bpf.MeasureObjects)
	if err := spec.LoadAndAssign(objects, nil); err != nil {
		return nil, fmt.Errorf("load the router: %w", err)
	}
	if err := fillServices(objects); err != nil {
		objects.Close()
		return nil, err
	}
	return objects, nil
}

func fillServices(o *bpf.MeasureObjects) error {
	backend := bpf.RouterBackend{
		Network: uint32(network), Host: uint32(hostNumber), Machine: uint32(serverNo), Port: backendPort, Service: serviceID,
		Generation: 1,
	}
	if err := o.Backends.Put(backendNo, backend); err != nil {
		return err
	}
	for i := range uint32(prime) {
		if err := o.Maglev.Put(i, backendNo); err != nil {
			return err
		}
	}
	if err := o.Vips.Put(bpf.RouterVipKey{Network: uint32(network), Number: vipNumber}, uint32(1)); err != nil {
		return err
	}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		key := bpf.RouterServiceKey{Network: uint32(network), Vip: vipNumber, Port: vipPort, Protocol: protocol}
		service := bpf.RouterService{Id: serviceID, Prime: prime, Action: uint8(bpf.RouterServiceActionSERVICE_BALANCE)}
		if err := o.Services.Put(key, service); err != nil {
			return err
		}
	}
	return emptyFlows(o)
}

// emptyFlows forgets every flow, and sets the counts that go with them to zero.
func emptyFlows(o *bpf.MeasureObjects) error {
	var key bpf.RouterFlowKey
	for o.Flows.NextKey(nil, &key) == nil {
		keys, err := flowKeys(o)
		if err != nil {
			return err
		}
		if _, err := o.Flows.BatchDelete(keys, nil); err != nil {
			return fmt.Errorf("empty the flow table: %w", err)
		}
	}
	for _, machine := range []uint32{0, uint32(clientNo), uint32(serverNo)} {
		if err := o.Quotas.Put(bpf.RouterMachineKey{Network: uint32(network), Machine: machine}, bpf.RouterQuota{Limit: flowTable}); err != nil {
			return err
		}
	}
	return o.BackendLoad.Put(backendNo, bpf.RouterLoad{Generation: 1})
}

func flowKeys(o *bpf.MeasureObjects) ([]bpf.RouterFlowKey, error) {
	var (
		cursor ebpf.MapBatchCursor
		keys   = make([]bpf.RouterFlowKey, flowTable)
		flows  = make([]bpf.RouterFlow, flowTable)
	)
	// One batch as large as the table takes all of it.
	n, err := o.Flows.BatchLookup(&cursor, keys, flows, nil)
	if n == 0 && err != nil {
		return nil, fmt.Errorf("read the flow table: %w", err)
	}
	return keys[:n], nil
}

// establishFlows marks every flow as answered, as a reply of its backend would have done.
func establishFlows(o *bpf.MeasureObjects) (int, error) {
	keys, err := flowKeys(o)
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		var flow bpf.RouterFlow
		if err := o.Flows.Lookup(key, &flow); err != nil {
			return 0, err
		}
		flow.State = flow.State&^0xff | uint32(bpf.RouterFlowStateFLOW_ESTABLISHED) | 0x40
		if err := o.Flows.Update(key, flow, ebpf.UpdateExist); err != nil {
			return 0, err
		}
	}
	return len(keys), nil
}

// tcpFrame is the shortest TCP frame, 74 bytes.
func tcpFrame(from, to netip.Addr, fromPort, toPort uint16, syn bool) ([]byte, error) {
	tcp := &layers.TCP{SrcPort: layers.TCPPort(fromPort), DstPort: layers.TCPPort(toPort), SYN: syn, ACK: !syn, Window: 1024}
	return frame(from, to, layers.IPProtocolTCP, tcp, nil, [6]uint8{2, 1}, [6]uint8{2, 2})
}

// udpFrame has 64 bytes: 62 of headers, two of data.
func udpFrame(from, to netip.Addr, fromPort, toPort uint16, fromMAC, toMAC [6]uint8) ([]byte, error) {
	udp := &layers.UDP{SrcPort: layers.UDPPort(fromPort), DstPort: layers.UDPPort(toPort)}
	return frame(from, to, layers.IPProtocolUDP, udp, []byte{0, 0}, fromMAC, toMAC)
}

type transport interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}

func frame(from, to netip.Addr, protocol layers.IPProtocol, l4 transport, data []byte, fromMAC, toMAC [6]uint8) ([]byte, error) {
	ethernet := &layers.Ethernet{SrcMAC: hardware(fromMAC), DstMAC: hardware(toMAC), EthernetType: layers.EthernetTypeIPv6}
	ip := &layers.IPv6{Version: 6, NextHeader: protocol, HopLimit: 64, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	if err := l4.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, ethernet, ip, l4, gopacket.Payload(data)); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}
