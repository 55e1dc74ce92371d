package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

func TestSlotIsStable(t *testing.T) {
	for probe, want := range []uint16{0xad16, 0xde29, 0xfd4c, 0xeb39} {
		if got := slot(linkLow, testVIP, vipPort, probe); got != want {
			t.Errorf("probe %d of a known flow is %#x, want %#x: the hash is part of the ABI", probe, got, want)
		}
	}
}

// colliding finds addresses of a client whose flows to the VIP all want one slot first.
func colliding(t *testing.T, count int) []uint16 {
	t.Helper()
	bySlot := map[uint16][]uint16{}
	for low := range uint16(0xffff) {
		first := slot(low, testVIP, vipPort, 0)
		bySlot[first] = append(bySlot[first], low)
		if len(bySlot[first]) == count {
			return bySlot[first]
		}
	}
	t.Fatalf("no %d addresses have one slot", count)
	return nil
}

// Flows of one client and port that want the same slot each get one, and every reply
// finds its own way back.
func TestCollidingFlows(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	lows := colliding(t, 4)
	taken := map[uint16]uint16{}
	for _, low := range lows {
		s := fromAs(w.client, w.client.low(low), vip(), protocolTCP, tcp(clientPort, vipPort, flagSYN, 1, 0))
		probe := 0
		for taken[slot(low, testVIP, vipPort, probe)] != 0 {
			probe++
		}
		w.requireOutcome(t, s, outcome{to: w.server, frame: translated(w, s.frame, w.server, backendPort, probe)})
		taken[slot(low, testVIP, vipPort, probe)] = low
	}
	if got := w.flowCount(); got != len(lows) {
		t.Errorf("%d flows, want %d", got, len(lows))
	}
	for chosen, low := range taken {
		s := reply(w, chosen, flagSYN|flagACK)
		w.requireOutcome(t, s, outcome{to: w.client, frame: rewritten(s.frame, w.client,
			netip.AddrPortFrom(vip(), vipPort), netip.AddrPortFrom(w.client.low(low), clientPort))})
	}
	w.requireLedger(t)
}

// The entry of a flow is found behind slots that have become free since.
func TestFreedSlotsDoNotHideAFlow(t *testing.T) {
	for probe := range 4 {
		w := newWorld(t)
		flycastWorld(w)
		takeSlots(probe)(w)
		w.begin(stream(w, flagSYN))
		for freed := range probe {
			must(t, w.Flows.Delete(flowKey(w, protocolTCP, vipPort, freed)))
		}
		w.quota(red, 0, 1000)
		w.quota(red, w.client.machine, 1000)
		for _, s := range []shot{stream(w, flagSYN), stream(w, flagACK)} {
			w.requireOutcome(t, s, outcome{to: w.server, frame: translated(w, s.frame, w.server, backendPort, probe)})
		}
		s := reply(w, slot(linkLow, testVIP, vipPort, probe), flagACK)
		w.requireOutcome(t, s, outcome{to: w.client, frame: fromVIP(w, s)})
		if got := w.flowCount(); got != 1 {
			t.Errorf("probe %d: %d flows, want 1", probe, got)
		}
	}
}

// loads opens flows from as many ports and returns how many each backend got.
func (w *world) loads(flows int) (perBackend []uint32) {
	w.t.Helper()
	for i := range flows {
		w.fire(synFrom(w, uint16(1000+i)))
	}
	for backend := uint32(1); backend <= w.backend; backend++ {
		perBackend = append(perBackend, w.load(backend).Live)
	}
	return perBackend
}

// New flows go to backends below their soft limit first, then to all, and never beyond
// the hard one.
func TestLimits(t *testing.T) {
	const soft, hard = 10, 15
	w := newWorld(t)
	flycastWorld(w)
	second := w.addBackend(w.spare, backendPort, 1)
	service := w.service(1, streamBackend, streamBackend, streamBackend, streamBackend, streamBackend, streamBackend, second, second)
	service.SoftLimit, service.HardLimit = soft, hard
	w.put(w.Services, serviceKey(protocolTCP, vipPort), service)

	for _, c := range []struct {
		flows         int
		first, second uint32
	}{
		{2 * soft, soft, soft}, // three quarters of the region are the first's, and still
		{200, hard, hard},
	} {
		loads := w.loads(c.flows)
		if loads[streamBackend-1] != c.first || loads[second-1] != c.second {
			t.Errorf("after %d flows the backends have %d and %d, want %d and %d", c.flows,
				loads[streamBackend-1], loads[second-1], c.first, c.second)
		}
	}
	w.requireLedger(t)
	if total := w.load(second).Total; total != hard {
		t.Errorf("the second was given %d flows in all, want %d", total, hard)
	}
}

// A connection that has closed takes no place of its backend, however long its entry
// lingers, and a new one with the same ports takes one place and no more.
func TestClosedFlowTakesNoPlace(t *testing.T) {
	for name, end := range map[string][]func(*world) shot{
		"both FINs": {
			func(w *world) shot { return stream(w, flagFIN|flagACK) },
			func(w *world) shot { return reply(w, streamSlot(), flagFIN|flagACK) },
		},
		"reset by the client": {func(w *world) shot { return stream(w, flagRST) }},
		"reset by the server": {func(w *world) shot { return reply(w, streamSlot(), flagRST) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			service := w.service(1, streamBackend)
			service.HardLimit = 1
			w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
			w.establish()
			w.fire(synFrom(w, 999))
			if refused := w.counts().Drops["backend_limit"]; refused != 1 {
				t.Fatalf("%d new flows were refused beside the one that the limit allows, want 1", refused)
			}
			for _, segment := range end {
				w.begin(segment(w))
			}
			for range 2 { // a late segment changes nothing
				w.begin(stream(w, flagACK))
				w.requireLedger(t)
			}
			w.begin(stream(w, flagSYN))
			if live := w.load(streamBackend).Live; live != 1 {
				t.Errorf("%d flows are counted after the ports were used again, want 1", live)
			}
			w.requireLedger(t)
		})
	}
}

// A region is used as it is: each backend gets flows by its share of it.
func TestRegionShares(t *testing.T) {
	const flows = 2000
	w := newWorld(t)
	flycastWorld(w)
	second := w.addBackend(w.spare, backendPort, 1)
	w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1, streamBackend, second, second, second))
	w.quota(red, 0, flows)
	w.quota(red, w.client.machine, flows)
	loads := w.loads(flows)
	if share := float64(loads[streamBackend-1]) / flows; share < 0.2 || share > 0.3 {
		t.Errorf("a quarter of the region got %.2f of the flows", share)
	}
	if loads[streamBackend-1]+loads[second-1] != flows {
		t.Errorf("the backends have %d flows, want %d", loads[streamBackend-1]+loads[second-1], flows)
	}
}

// Quotas refuse exactly what is beyond them, and count it.
func TestQuotas(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	network := bpf.RouterMachineKey{Network: uint32(red)}
	for name, c := range map[string]struct {
		network, machine uint32
		key              bpf.RouterMachineKey
	}{
		"machine": {100, 7, w.client.key()},
		"network": {7, 100, network},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			w.quota(red, 0, c.network)
			w.quota(red, w.client.machine, c.machine)
			if loads := w.loads(10); loads[streamBackend-1] != 7 {
				t.Errorf("%d flows were made, want 7", loads[streamBackend-1])
			}
			var quota bpf.RouterQuota
			must(t, w.Quotas.Lookup(c.key, &quota))
			if quota.Used != 7 || quota.Refused != 3 {
				t.Errorf("the quota counts %d used and %d refused, want 7 and 3", quota.Used, quota.Refused)
			}
			w.requireLedger(t)
		})
	}
}
