package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

const (
	manyFlows  = 100_000
	foreignNet = sixpn.Network(6)
	loopback   = 1 // ifindex that a test run's frames come in by
)

// packetCase is one kind of packet, measured as ns a packet by BPF_PROG_TEST_RUN.
type packetCase struct {
	name  string
	frame []byte
	flows uint32 // clients that take turns, 0: one
	syn   bool   // every run is a SYN of a client that has no flow yet
}

// measurePackets times the router on every kind of packet beside a program that
// does nothing. The router's cost is that of the empty program plus what the
// router adds to a program that only puts the headers back.
func measurePackets(ctx context.Context, rounds, repeats int, progress func(string)) ([]Result, error) {
	o, err := loadObjects()
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if err := loopbackPort(o); err != nil {
		return nil, err
	}
	cases, err := packetCases()
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, c := range cases {
		progress(c.name)
		if err := prepareFlows(o, c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		n := repeats
		var values, baselines []float64
		for range rounds {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if c.syn {
				n = manyFlows
			}
			value, baseline, err := measurePacket(o, c, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			values, baselines = append(values, value), append(baselines, baseline)
		}
		results = append(results, newResult(c.name, "ns/packet", "empty program", values, baselines))
	}
	return results, nil
}

func packetCases() ([]packetCase, error) {
	foreign := sixpn.MachineAddr(foreignNet, hostNumber, serverNo)
	cases := []packetCase{
		{name: "packet.forward"}, {name: "packet.drop"},
		{name: "flycast.established_1"}, {name: "flycast.established_100k", flows: manyFlows},
		{name: "flycast.new", flows: manyFlows, syn: true},
	}
	destinations := []struct {
		port uint16
		syn  bool
	}{{backendPort, false}, {backendPort, false}, {vipPort, false}, {vipPort, false}, {vipPort, true}}
	for i := range cases {
		to := vipAddr
		switch i {
		case 0:
			to = serverAddr
		case 1:
			to = foreign
		}
		frame, err := tcpFrame(clientAddr, to, 1024, destinations[i].port, destinations[i].syn)
		if err != nil {
			return nil, err
		}
		cases[i].frame = frame
	}
	return cases, nil
}

// loopbackPort makes the client's port of the device that test runs come in by.
func loopbackPort(o *bpf.MeasureObjects) error {
	port := bpf.RouterPort{
		Ifindex: loopback, Network: uint32(network), Host: uint32(hostNumber), Machine: uint32(clientNo), Counters: 1,
		Mtu: mtu, Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Redirect: 1,
	}
	if err := bpf.PortSlots(o.PortSlots).Put(port); err != nil {
		return err
	}
	server := bpf.RouterMachine{
		Network: uint32(network), Machine: uint32(serverNo), Ifindex: loopback + 1, Counters: 2, Mtu: mtu,
		Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Redirect: 1,
	}
	return bpf.MachineSlots(o.MachineSlots).Put(server)
}

// prepareFlows opens and establishes the flows that a case's packets belong to.
func prepareFlows(o *bpf.MeasureObjects, c packetCase) error {
	if err := emptyFlows(o); err != nil || c.syn {
		return err
	}
	syn, err := tcpFrame(clientAddr, vipAddr, 1024, vipPort, true)
	if err != nil {
		return err
	}
	flows := max(int(c.flows), 1)
	if _, err := timeRuns(o, o.SixpnMeasure, packetCase{frame: syn, flows: c.flows}, flows); err != nil {
		return err
	}
	got, err := establishFlows(o)
	if err != nil {
		return err
	}
	// Slots are hashed: a few of very many flows find all of theirs taken.
	if got < flows*99/100 {
		return fmt.Errorf("%d of %d flows could be opened", got, flows)
	}
	return nil
}

func measurePacket(o *bpf.MeasureObjects, c packetCase, n int) (value, baseline float64, err error) {
	empty, err := timeRuns(o, o.SixpnEmpty, c, n)
	if err != nil {
		return 0, 0, err
	}
	restore, err := timeRuns(o, o.SixpnRestore, c, n)
	if err != nil {
		return 0, 0, err
	}
	router, err := timeRuns(o, o.SixpnMeasure, c, n)
	if err != nil {
		return 0, 0, err
	}
	return router - restore + empty, empty, nil
}

// timeRuns returns the mean time of a run in ns. A signal ends a test run early, and it
// is begun anew: so are the runs' numbers then, and the flows that they made.
func timeRuns(o *bpf.MeasureObjects, program *ebpf.Program, c packetCase, n int) (float64, error) {
	template := bpf.MeasureMeasuredFrame{Flows: c.flows}
	if copy(template.Frame[:], c.frame) != len(template.Frame) {
		return 0, errors.New("the frame is shorter than the template")
	}
	if err := o.FrameTemplate.Put(uint32(0), &template); err != nil {
		return 0, err
	}
	var failed error
	begin := func() {
		failed = o.Runs.Put(uint32(0), uint64(0))
		if failed == nil && c.syn {
			failed = emptyFlows(o)
		}
	}
	begin()
	_, mean, err := program.Benchmark(c.frame, n, begin)
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return float64(mean) / float64(time.Nanosecond), nil
}
