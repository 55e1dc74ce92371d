package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/bpf"
)

const (
	// liveBatch is how many frames the kernel hands on at a time, its default and a NAPI budget.
	liveBatch = 64
	// xdpTestRunLive is BPF_F_TEST_XDP_LIVE_FRAMES of linux/bpf.h.
	xdpTestRunLive = 1 << 1
)

// liveCase sends frames from a Machine through a world.
type liveCase struct {
	world   *world
	program *ebpf.Program // sixpn_live, with a frame of its own
	frame   []byte
	sunk    *ebpf.Map
}

// measureLive counts frames a second, from the host's end of the client's wire to
// the server's device, in batches that arrive as from a NIC's poll. What the
// server's device counts must be what was sent.
func measureLive(ctx context.Context, rounds, frames int, progress func(string)) ([]Result, error) {
	forward, err := newLiveCase("sixpn", false)
	if err != nil {
		return nil, err
	}
	defer forward.world.close()
	flycast, err := newLiveCase("sixpn", true)
	if err != nil {
		return nil, err
	}
	defer flycast.world.close()
	routed, err := newLiveCase("routing", false)
	if err != nil {
		return nil, err
	}
	defer routed.world.close()
	isolated, err := newLiveCase("nftables", false)
	if err != nil {
		return nil, err
	}
	defer isolated.world.close()

	byXDP, err := newUplinkCase(true)
	if err != nil {
		return nil, err
	}
	defer byXDP.world.close()
	byTCX, err := newUplinkCase(false)
	if err != nil {
		return nil, err
	}
	defer byTCX.world.close()

	var samples [6][]float64
	for range rounds {
		for i, c := range []*liveCase{forward, flycast, routed, isolated, byXDP, byTCX} {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			progress("pps " + c.world.name)
			pps, err := c.run(frames)
			if err != nil {
				return nil, fmt.Errorf("live frames through %s: %w", c.world.name, err)
			}
			samples[i] = append(samples[i], pps)
		}
	}
	return []Result{
		newResult("pps.forward", "frames/s", "routing", samples[0], samples[2]),
		newResult("pps.flycast", "frames/s", "routing", samples[1], samples[2]),
		newResult("pps.forward_isolated", "frames/s", "nftables, 1000 networks", samples[0], samples[3]),
		newResult("pps.flycast_isolated", "frames/s", "nftables, 1000 networks", samples[1], samples[3]),
		newResult("pps.uplink_xdp", "frames/s", "tcx", samples[4], samples[5]),
	}, nil
}

func newLiveCase(kind string, toVIP bool) (*liveCase, error) {
	o, err := loadObjects()
	if err != nil {
		return nil, err
	}
	var w *world
	switch kind {
	case "sixpn":
		w, err = newSixpnWorld(o)
	case "routing":
		w, err = newRoutedWorld(kind)
	case "nftables":
		if w, err = newRoutedWorld(kind); err == nil {
			err = w.isolate(isolatedNetworks)
		}
	}
	if err != nil {
		o.Close()
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	w.closers = append(w.closers, func() { o.Close() })
	c := &liveCase{world: w, program: o.SixpnLive, sunk: o.Sunk}
	if err := c.prepare(o, toVIP); err != nil {
		w.close()
		return nil, fmt.Errorf("prepare %s: %w", kind, err)
	}
	return c, nil
}

func (c *liveCase) prepare(o *bpf.MeasureObjects, toVIP bool) (err error) {
	w := c.world
	to, port := serverAddr, uint16(backendPort)
	if toVIP {
		w.name, to, port = "flycast", vipAddr, vipPort
	}
	if c.frame, err = udpFrame(clientAddr, to, 1024, port, mac(w.clientLink), mac(w.hostClient)); err != nil {
		return err
	}
	var short bpf.MeasureShortFrame
	copy(short.Frame[:], c.frame)
	if err := o.LiveFrame.Put(uint32(0), &short); err != nil {
		return fmt.Errorf("set the frame: %w", err)
	}
	if err := w.attach(w.server, w.serverLink, o.SixpnSink); err != nil {
		return err
	}
	// The kernel gives live frames only to a device with a registered XDP queue.
	return w.attachPass(w.hostClient)
}

// attachPass puts an XDP program on a device that lets everything pass.
func (w *world) attachPass(device netlink.Link) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer program.Close()
	return w.host.do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Interface: device.Attrs().Index, Program: program, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach XDP to %s: %w", device.Attrs().Name, err)
		}
		w.closers = append(w.closers, func() { l.Close() })
		return nil
	})
}

// run sends frames and returns how many a second went through. A signal ends a test
// run early, and it is begun anew: so are the clock and the count then.
func (c *liveCase) run(frames int) (float64, error) {
	// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
	xdp := make([]byte, 24)
	binary.NativeEndian.PutUint32(xdp[4:], uint32(len(c.frame)))
	binary.NativeEndian.PutUint32(xdp[12:], uint32(c.world.hostClient.Attrs().Index))
	var (
		before uint64
		start  time.Time
		took   time.Duration
		failed error
	)
	begin := func() {
		before, failed = c.settled()
		start = time.Now()
	}
	err := c.world.host.do(func() error {
		begin()
		_, err := c.program.Run(&ebpf.RunOptions{
			Data: c.frame, Context: xdp, Repeat: uint32(frames), Flags: xdpTestRunLive, BatchSize: liveBatch,
			Reset: begin, //nolint:staticcheck // nothing else tells of a run that is begun anew
		})
		took = time.Since(start)
		return err
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	after, err := c.settled()
	if err != nil {
		return 0, err
	}
	if after-before != uint64(frames) {
		return 0, fmt.Errorf("%d frames were sent, %d arrived", frames, after-before)
	}
	return float64(frames) / took.Seconds(), nil
}

// settled is the sink's count when nothing is under way any more: it stood still for
// a while that no backlog of this host survives.
func (c *liveCase) settled() (uint64, error) {
	last, err := c.count()
	for quiet := 0; err == nil && quiet < 5; quiet++ {
		<-time.After(time.Millisecond)
		var now uint64
		if now, err = c.count(); now != last {
			last, quiet = now, -1
		}
	}
	return last, err
}

func (c *liveCase) count() (uint64, error) {
	var perCPU []uint64
	if err := c.sunk.Lookup(uint32(0), &perCPU); err != nil {
		return 0, errors.Join(errors.New("read the sink's count"), err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}
