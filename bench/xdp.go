package bench

import (
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/netns"
)

// farHost is another host of the fabric.
const farHost = sixpn.Host(8)

// newUplinkCase sends frames of another host's Machine to the server: the client's wire is
// the uplink. By XDP they are redirected before the kernel makes packets of its own of
// them; without, by the program on tcx.
func newUplinkCase(byXDP bool) (*liveCase, error) {
	o, err := loadObjects()
	if err != nil {
		return nil, err
	}
	w, err := newWorld("uplink")
	if err != nil {
		o.Close()
		return nil, err
	}
	w.closers = append(w.closers, func() { o.Close() })
	c := &liveCase{world: w, program: o.SixpnLive, sunk: o.Sunk}
	if byXDP {
		w.name = "uplink by XDP"
	}
	if err := c.prepareUplink(o, byXDP); err != nil {
		w.close()
		return nil, fmt.Errorf("prepare %s: %w", w.name, err)
	}
	return c, nil
}

func (c *liveCase) prepareUplink(o *bpf.MeasureObjects, byXDP bool) (err error) {
	w := c.world
	method := bpf.RouterRedirectMethodREDIRECT_PEER
	if byXDP {
		method = bpf.RouterRedirectMethodREDIRECT_XDP
	}
	if err := w.attachMachine(o, serverNo, "server", w.hostServer, w.serverLink, method); err != nil {
		return err
	}
	uplink := bpf.RouterPort{
		Ifindex: uint32(w.hostClient.Attrs().Index), Host: uint32(hostNumber), Counters: uint32(clientNo), Mtu: mtu,
		Kind: uint8(bpf.RouterPortKindPORT_UPLINK),
	}
	if err := bpf.PortSlots(o.PortSlots).Put(uplink); err != nil {
		return err
	}
	if err := w.attach(w.host, w.hostClient, o.SixpnUplink); err != nil {
		return err
	}
	// A Machine's device is like that where the mesh is native, whoever brings the frames.
	if err := w.server.do(func() error { return netns.SetFeature("eth0", netns.GRO, true) }); err != nil {
		return err
	}
	from, to := sixpn.Rotate(sixpn.MachineAddr(network, farHost, clientNo)), sixpn.Rotate(serverAddr)
	if c.frame, err = udpFrame(from, to, 1024, backendPort, mac(w.clientLink), mac(w.hostClient)); err != nil {
		return err
	}
	if byXDP {
		err = c.liveXDP(o)
	} else {
		var short bpf.MeasureShortFrame
		copy(short.Frame[:], c.frame)
		err = o.LiveFrame.Put(uint32(0), &short)
	}
	if err != nil {
		return err
	}
	if err := w.attach(w.server, w.serverLink, o.SixpnSink); err != nil {
		return err
	}
	return w.attachPass(w.hostClient)
}

// liveXDP loads the program that begins with the frame and goes on as XDP on the uplink,
// with the tables of the others.
func (c *liveCase) liveXDP(o *bpf.MeasureObjects) error {
	spec, err := bpf.LoadMeasureUplink()
	if err != nil {
		return err
	}
	if err := spec.Variables["host"].Set(uint32(hostNumber)); err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{}
	tables := reflect.ValueOf(o.MeasureMaps)
	for i := range tables.NumField() {
		name := tables.Type().Field(i).Tag.Get("ebpf")
		if table := spec.Maps[name]; table != nil {
			shared[name] = tables.Field(i).Interface().(*ebpf.Map)
			table.MaxEntries = shared[name].MaxEntries()
		}
	}
	var loaded struct {
		Program *ebpf.Program `ebpf:"sixpn_live_xdp"`
		Frame   *ebpf.Map     `ebpf:"live_uplink"`
	}
	if err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		return fmt.Errorf("load XDP: %w", err)
	}
	c.world.closers = append(c.world.closers, func() {
		_ = loaded.Program.Close()
		_ = loaded.Frame.Close()
	})
	c.program = loaded.Program
	var first bpf.MeasureUplinkUplinkFrame
	copy(first.Frame[:], c.frame)
	return loaded.Frame.Put(uint32(0), &first)
}
