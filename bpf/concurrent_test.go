package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sixpn/sixpn/bpf"
)

// onCPUs runs a function on several CPUs at once, each call kept on its own, and gives
// them a barrier that all must reach.
func onCPUs(t *testing.T, count int, f func(cpu int, barrier func())) {
	t.Helper()
	cpus, err := usableCPUs()
	must(t, err)
	var waiting, group atomic.Int64
	var all sync.WaitGroup
	for cpu := range count {
		all.Go(func() {
			runtime.LockOSThread()
			var one unix.CPUSet
			one.Set(cpus[cpu%len(cpus)])
			// A thread that ends locked is not used again.
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Errorf("pin to CPU %d: %v", cpu, err)
			}
			f(cpu, func() {
				generation := group.Load()
				if waiting.Add(1) == int64(count) {
					waiting.Store(0)
					group.Add(1)
				}
				// Whoever waits spins, so that all leave within nanoseconds; not for ever,
				// for there may be fewer CPUs than calls.
				for spins := 0; group.Load() == generation; spins++ {
					if spins > 10000 {
						runtime.Gosched()
					}
				}
			})
		})
	}
	all.Wait()
}

func (w *world) flowCount() (count int) {
	w.t.Helper()
	var key bpf.RouterFlowKey
	var flow bpf.RouterFlow
	entries := w.Flows.Iterate()
	for entries.Next(&key, &flow) {
		count++
	}
	must(w.t, entries.Err())
	return count
}

func synFrom(w *world, port uint16) shot {
	return from(w.client, vip(), protocolTCP, tcp(port, vipPort, flagSYN, 1, 0))
}

// The same SYN on two CPUs makes one flow, and both copies go to its backend.
func TestOneSynOnTwoCPUs(t *testing.T) {
	const rounds, cpus = 2000, 2
	w := newWorld(t, func(s *settings) { s.flows = 2 * rounds })
	flycastWorld(w)
	w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1, streamBackend, w.addBackend(w.spare, backendPort, 1)))
	w.quota(red, 0, 2*rounds)
	w.quota(red, w.client.machine, 2*rounds)
	var frames [cpus][rounds][]byte
	onCPUs(t, cpus, func(cpu int, barrier func()) {
		for round := range rounds {
			s := synFrom(w, uint16(1000+round))
			barrier()
			verdict, frame, err := runProgram(w.SixpnRouter, s)
			if err != nil || verdict != verdictRedirect {
				t.Errorf("round %d on CPU %d: verdict %d, %v", round, cpu, verdict, err)
			}
			frames[cpu][round] = frame
		}
	})
	for round := range rounds {
		if string(frames[0][round]) != string(frames[1][round]) {
			t.Fatalf("round %d: the two copies left as\n% x\n% x", round, frames[0][round], frames[1][round])
		}
	}
	if got := w.flowCount(); got != rounds {
		t.Errorf("%d flows, want %d", got, rounds)
	}
	w.requireLedger(t)
}

// flipService makes a service of one place in its region, and a function that gives the
// place to the other of two backends: a flow that begins anew goes elsewhere each time.
func (w *world) flipService() (flip func()) {
	w.t.Helper()
	both := [2]uint32{streamBackend, w.addBackend(w.spare, backendPort, 1)}
	service := w.service(1, both[0])
	w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
	next := 1
	return func() {
		w.put(w.Maglev, service.Offset, both[next%2])
		next++
	}
}

// The same SYN on two CPUs, on a flow that has ended: it is given away once.
func TestOneSynOnTwoCPUsReused(t *testing.T) {
	const rounds, cpus = 5000, 2
	w := newWorld(t)
	flycastWorld(w)
	flip := w.flipService()
	key := flowKey(w, protocolTCP, vipPort, 0)
	w.begin(stream(w, flagSYN))
	var forwarded atomic.Int64
	onCPUs(t, cpus, func(cpu int, barrier func()) {
		syn := stream(w, flagSYN)
		for range rounds {
			barrier()
			if cpu == 0 {
				w.changeFlow(key, setState(bpf.RouterFlowStateFLOW_CLOSING))
				flip()
			}
			barrier()
			verdict, _, err := runProgram(w.SixpnRouter, syn)
			if err != nil {
				t.Error(err)
			}
			if verdict == verdictRedirect {
				forwarded.Add(1)
			}
		}
	})
	if got := w.flowCount(); got != 1 {
		t.Errorf("%d flows, want 1", got)
	}
	if forwarded.Load() < rounds {
		t.Errorf("%d packets went through, want at least one of each of %d rounds", forwarded.Load(), rounds)
	}
	w.requireState(t, bpf.RouterFlowStateFLOW_SYN)
	w.requireLedger(t)
}

// One flow is ended and begun again on one CPU while expiry ends it on another: each end
// is counted by whoever made it, and by nobody else.
func TestRestartBesideExpiry(t *testing.T) {
	const rounds, cpus = 60000, 3
	w := newWorld(t)
	flycastWorld(w)
	flip := w.flipService()
	w.put(w.ExpiryKeys, uint32(0), flowKey(w, protocolTCP, vipPort, 0))
	over := patient
	over.TimeoutClosing = 0
	w.put(w.Expiry, uint32(0), over)
	var done atomic.Int64
	onCPUs(t, cpus, func(cpu int, _ func()) {
		if cpu == cpus-1 {
			for done.Load() < cpus-1 {
				flip()
				w.runExpiry(1)
			}
			return
		}
		defer done.Add(1)
		syn, reset := stream(w, flagSYN), stream(w, flagRST)
		for range rounds {
			for _, s := range []shot{syn, reset} {
				if _, _, err := runProgram(w.SixpnRouter, s); err != nil {
					t.Error(err)
				}
			}
		}
	})
	w.requireLedger(t)
	w.expire(bpf.RouterExpiryPass{})
	w.requireLedger(t)
}

// Packets on two CPUs beside expiry, backends that come and go, and full quotas: when
// all is quiet, every count is what is in the table, and 0 when that is empty.
func TestCountsDoNotDrift(t *testing.T) {
	const rounds, cpus, limit = 20000, 3, 60
	w := newWorld(t, func(s *settings) { s.eventsPerSecond = 0 })
	flycastWorld(w)
	service := w.service(1, streamBackend, w.addBackend(w.spare, backendPort, 1))
	service.SoftLimit, service.HardLimit = limit/10, limit/5
	w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
	w.quota(red, 0, 2*limit)
	w.quota(red, w.client.machine, limit)
	onCPUs(t, cpus, func(cpu int, _ func()) {
		random := rand.New(rand.NewPCG(uint64(cpu), 1))
		for round := range rounds {
			if cpu == cpus-1 {
				if round%100 == 0 {
					expireSome(w, random)
				}
				continue
			}
			port := uint16(1000 + random.IntN(2*limit))
			flags := []uint8{flagSYN, flagSYN, flagACK, flagRST, flagFIN | flagACK}[random.IntN(5)]
			s := from(w.client, vip(), protocolTCP, tcp(port, vipPort, flags, 1, 1))
			if random.IntN(4) == 0 {
				s = from(w.client, vip(), protocolUDP, udp(port, datagramPort))
			}
			if _, _, err := runProgram(w.SixpnRouter, s); err != nil {
				t.Error(err)
			}
		}
	})
	w.requireLedger(t)
	w.expire(bpf.RouterExpiryPass{})
	if got := w.flowCount(); got != 0 {
		t.Errorf("%d flows are left", got)
	}
	w.requireLedger(t)
	drops := w.counts().Drops
	for _, reason := range []bpf.DropReason{bpf.RouterDropReasonDROP_MACHINE_QUOTA, bpf.RouterDropReasonDROP_BACKEND_LIMIT} {
		if drops[reason.String()] == 0 {
			t.Errorf("the test is too tame: not one packet was dropped for %s", reason)
		}
	}
	if got := drops[bpf.RouterDropReasonDROP_INTERNAL.String()]; got != 0 {
		t.Errorf("%d packets were dropped for an internal reason", got)
	}
}

// expireSome ends flows of some states, after a backend was lost or came back.
func expireSome(w *world, random *rand.Rand) {
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Flags ^= 1 })
	timeouts := patient
	for _, timeout := range []*uint64{&timeouts.TimeoutSyn, &timeouts.TimeoutEstablished, &timeouts.TimeoutClosing, &timeouts.TimeoutUdp} {
		if random.IntN(2) == 0 {
			*timeout = 0
		}
	}
	w.expire(timeouts)
}

// Any order of packets and ends of flows leaves every count exact after each step.
func TestCountsByAnyOrder(t *testing.T) {
	const ports = 6
	w := newWorld(t, func(s *settings) { s.eventsPerSecond = 0 })
	rapid.Check(t, func(r *rapid.T) {
		w.t = t
		w.reset()
		flycastWorld(w)
		service := w.service(1, streamBackend, w.addBackend(w.spare, backendPort, 1), w.addBackend(w.client, backendPort, 1))
		service.HardLimit = 2
		w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
		w.quota(red, 0, ports-1)
		w.quota(red, w.client.machine, ports-2)
		port := rapid.Custom(func(r *rapid.T) uint16 { return uint16(clientPort + rapid.IntRange(0, ports-1).Draw(r, "port")) })
		r.Repeat(map[string]func(*rapid.T){
			"segment": func(r *rapid.T) {
				flags := rapid.SampledFrom([]uint8{flagSYN, flagACK, flagRST, flagFIN | flagACK}).Draw(r, "flags")
				w.fire(from(w.client, vip(), protocolTCP, tcp(port.Draw(r, "port"), vipPort, flags, 1, 1)))
			},
			"reply": func(r *rapid.T) {
				flags := rapid.SampledFrom([]uint8{flagSYN | flagACK, flagACK, flagRST, flagFIN | flagACK}).Draw(r, "flags")
				m := rapid.SampledFrom([]*member{w.server, w.spare}).Draw(r, "backend")
				w.fire(from(m, w.client.low(streamSlot()), protocolTCP, tcp(backendPort, port.Draw(r, "port"), flags, 1, 1)))
			},
			"datagram": func(r *rapid.T) {
				w.fire(from(w.client, vip(), protocolUDP, udp(port.Draw(r, "port"), datagramPort)))
			},
			"lose a backend": func(r *rapid.T) {
				index := rapid.Uint32Range(1, w.backend).Draw(r, "backend")
				w.changeBackend(index, func(b *bpf.RouterBackend) { b.Flags ^= 1 })
			},
			"time": func(r *rapid.T) {
				timeouts := patient
				for _, timeout := range []*uint64{&timeouts.TimeoutSyn, &timeouts.TimeoutEstablished, &timeouts.TimeoutClosing, &timeouts.TimeoutUdp} {
					if rapid.Bool().Draw(r, "over") {
						*timeout = 0
					}
				}
				w.expire(timeouts)
			},
			"": func(r *rapid.T) { w.requireLedger(ledgerOf{t, r}) },
		})
	})
}

// ledgerOf lets a property report what a ledger finds.
type ledgerOf struct {
	testing.TB
	r *rapid.T
}

func (l ledgerOf) Errorf(format string, arguments ...any) {
	l.r.Fatalf("%s", fmt.Sprintf(format, arguments...))
}
