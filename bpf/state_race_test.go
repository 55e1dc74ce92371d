package bpf_test

import (
	"sync/atomic"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

// A packet that is under way while one of the other direction changes the state of its
// flow goes where it would have gone without, and what each of them says is noted.
func TestPacketBesideAStateChange(t *testing.T) {
	const rounds, cpus = 20000, 2
	for _, row := range []struct {
		name           string
		forward, reply uint8
		state          bpf.RouterFlowState // afterwards
	}{
		{"data beside the server's FIN", flagACK | flagPSH, flagFIN | flagACK, bpf.RouterFlowStateFLOW_ESTABLISHED},
		{"data beside the client's FIN", flagFIN | flagACK, flagACK | flagPSH, bpf.RouterFlowStateFLOW_ESTABLISHED},
		{"FIN beside FIN", flagFIN | flagACK, flagFIN | flagACK, bpf.RouterFlowStateFLOW_CLOSING},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			w.establish()
			key := flowKey(w, protocolTCP, vipPort, 0)
			shots := [cpus]shot{stream(w, row.forward), reply(w, streamSlot(), row.reply)}
			var alone [cpus]string // how they leave when nothing else is going on
			for cpu, s := range shots {
				_, frame := w.fire(s)
				alone[cpu] = string(frame)
			}
			var astray, forgotten atomic.Int64
			onCPUs(t, cpus, func(cpu int, barrier func()) {
				for range rounds {
					if cpu == 0 {
						w.changeFlow(key, setState(bpf.RouterFlowStateFLOW_ESTABLISHED))
						w.put(w.BackendLoad, uint32(streamBackend), bpf.RouterLoad{Live: 1, Generation: 7})
					}
					barrier()
					_, frame, err := runProgram(w.SixpnRouter, shots[cpu])
					if err != nil {
						t.Error(err)
					}
					if string(frame) != alone[cpu] {
						astray.Add(1)
					}
					barrier()
					if flow, _ := w.flow(key); cpu == 0 && state(flow) != row.state {
						forgotten.Add(1)
					}
				}
			})
			if n := astray.Load(); n > 0 {
				t.Errorf("%d of %d packets went astray; drops: %v", n, cpus*rounds, w.counts().Drops)
			}
			if n := forgotten.Load(); n > 0 {
				t.Errorf("in %d of %d rounds the flow was in another state than %d", n, rounds, row.state)
			}
			w.requireLedger(t)
		})
	}
}
