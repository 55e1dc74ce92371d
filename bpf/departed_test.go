package bpf_test

import (
	"testing"
	"time"

	"github.com/sixpn/sixpn/bpf"
)

// Flows of a Machine that is gone end after the closing timeout, whatever their own is,
// and give back what they hold of their backend's limit. A moment without its row is no end.
func TestDepartedMachine(t *testing.T) {
	timeouts := patient
	timeouts.TimeoutClosing = uint64(30 * time.Second)
	absent := func(w *world) { must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(w.client.key())) }
	w := newWorld(t)
	for name, c := range map[string]struct {
		world   func(*world)
		idle    time.Duration
		expired uint64
	}{
		"there":             {func(*world) {}, time.Hour, 0},
		"gone":              {absent, time.Minute, 1},
		"gone a moment ago": {absent, time.Second, 0},
		"gone and back":     {func(w *world) { absent(w); w.setDevice(w.client, testMTU) }, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			streamService(func(s *bpf.RouterService) { s.HardLimit = 1 })(w)
			w.establish()
			w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) { f.LastSeen = now() - uint64(c.idle) })
			c.world(w)
			w.requirePass(t, timeouts, 1, c.expired, 0)
			syn := from(w.spare, vip(), protocolTCP, tcp(clientPort, vipPort, flagSYN, 1, 0))
			if verdict, _ := w.fire(syn); (verdict == verdictRedirect) != (c.expired == 1) {
				t.Errorf("another client's connection got the verdict %d with %d flows at the backend, of which it may have 1",
					verdict, w.load(streamBackend).Live)
			}
			w.requireLedger(t)
		})
	}
}
