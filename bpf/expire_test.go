package bpf_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/bpf"
)

// never is a timeout that no test reaches.
const never = math.MaxInt64

// patient is what the expiry program is told when nothing shall time out.
var patient = bpf.RouterExpiryPass{TimeoutSyn: never, TimeoutEstablished: never, TimeoutClosing: never, TimeoutUdp: never}

// expire judges every flow once and returns what was counted.
func (w *world) expire(timeouts bpf.RouterExpiryPass) bpf.RouterExpiryPass {
	w.t.Helper()
	w.put(w.Expiry, uint32(0), timeouts)
	var listed uint32
	var key bpf.RouterFlowKey
	var flow bpf.RouterFlow
	entries := w.Flows.Iterate()
	for entries.Next(&key, &flow) {
		w.put(w.ExpiryKeys, listed, key)
		listed++
	}
	// Beside deletions the walk may not end; what it did not list is left for the next.
	if err := entries.Err(); !errors.Is(err, ebpf.ErrIterationAborted) {
		must(w.t, err)
	}
	w.runExpiry(listed)
	var pass bpf.RouterExpiryPass
	must(w.t, w.Expiry.Lookup(uint32(0), &pass))
	return pass
}

func (w *world) runExpiry(count uint32) {
	w.t.Helper()
	_, err := w.SixpnExpire.Run(&ebpf.RunOptions{Context: &bpf.RouterExpiryRequest{Count: count}})
	must(w.t, err)
}

func (w *world) requirePass(t testing.TB, timeouts bpf.RouterExpiryPass, seen, expired, gone uint64) {
	t.Helper()
	pass := w.expire(timeouts)
	if pass.Seen != seen || pass.Expired != expired || pass.Gone != gone {
		t.Errorf("expiry saw %d, deleted %d, marked %d; want %d, %d, %d", pass.Seen, pass.Expired, pass.Gone, seen, expired, gone)
	}
	w.requireLedger(t)
}

// Each state has a timeout of its own: a flow that is older than every other state's lives.
func TestTimeouts(t *testing.T) {
	const timeout = uint64(time.Hour)
	w := newWorld(t)
	for name, c := range map[string]struct {
		state bpf.RouterFlowState
		own   func(*bpf.RouterExpiryPass) *uint64
	}{
		"syn":         {bpf.RouterFlowStateFLOW_SYN, func(p *bpf.RouterExpiryPass) *uint64 { return &p.TimeoutSyn }},
		"established": {bpf.RouterFlowStateFLOW_ESTABLISHED, func(p *bpf.RouterExpiryPass) *uint64 { return &p.TimeoutEstablished }},
		"closing":     {bpf.RouterFlowStateFLOW_CLOSING, func(p *bpf.RouterExpiryPass) *uint64 { return &p.TimeoutClosing }},
		"udp":         {bpf.RouterFlowStateFLOW_UDP, func(p *bpf.RouterExpiryPass) *uint64 { return &p.TimeoutUdp }},
		"gone":        {bpf.RouterFlowStateFLOW_GONE, func(p *bpf.RouterExpiryPass) *uint64 { return &p.TimeoutClosing }},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			w.begin(stream(w, flagSYN))
			seen := uint64(now())
			age := func(by time.Duration) {
				w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) {
					setState(c.state)(f)
					f.LastSeen = seen - timeout + uint64(by)
				})
			}
			others := bpf.RouterExpiryPass{TimeoutSyn: 1, TimeoutEstablished: 1, TimeoutClosing: 1, TimeoutUdp: 1}
			*c.own(&others) = timeout
			age(time.Minute)
			w.requirePass(t, others, 1, 0, 0)
			own := patient
			*c.own(&own) = timeout
			age(0)
			w.requirePass(t, own, 1, 1, 0)
			if _, found := w.flow(flowKey(w, protocolTCP, vipPort, 0)); found {
				t.Error("the flow is still there")
			}
		})
	}
}

// A packet of another CPU may have renewed the flow after the program read the clock.
func TestExpiryOfTheFuture(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	w.begin(stream(w, flagSYN))
	w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) { f.LastSeen = now() + uint64(time.Hour) })
	w.requirePass(t, bpf.RouterExpiryPass{}, 1, 0, 0)
}

// What Go lists may have changed since: absent, dead and busy entries are passed over.
func TestExpiryPassesOver(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	for _, state := range []bpf.RouterFlowState{bpf.RouterFlowStateFLOW_DEAD, bpf.RouterFlowStateFLOW_BUSY} {
		w.empty(w.Flows)
		w.quota(red, 0, 10)
		w.quota(red, w.client.machine, 10)
		w.put(w.BackendLoad, uint32(streamBackend), bpf.RouterLoad{Generation: 7})
		w.begin(stream(w, flagSYN))
		w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), setState(state))
		w.requirePass(t, bpf.RouterExpiryPass{}, 0, 0, 0)
	}
	w.put(w.ExpiryKeys, uint32(0), bpf.RouterFlowKey{Network: 1})
	w.put(w.Expiry, uint32(0), bpf.RouterExpiryPass{})
	w.runExpiry(1)
	// More than there are is as many as there are.
	w.runExpiry(math.MaxUint32)
}

// resetEvents reads what lies in the ring buffer.
func (w *world) resetEvents() (events []bpf.RouterResetEvent) {
	w.t.Helper()
	reader, err := ringbuf.NewReader(w.Resets)
	must(w.t, err)
	defer func() { must(w.t, reader.Close()) }()
	for _, raw := range drain(w.t, reader) {
		events = append(events, decode[bpf.RouterResetEvent](w.t, raw))
	}
	return events
}

// A flow whose backend is gone is marked once and told once. From then on no packet of it
// passes, and it counts for its client only, until it ends.
func TestGoneBackend(t *testing.T) {
	w := newWorld(t)
	for name, lose := range map[string]func(*bpf.RouterBackend){
		"flag":       func(b *bpf.RouterBackend) { b.Flags = 1 },
		"generation": func(b *bpf.RouterBackend) { b.Generation++ },
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			w.establish()
			w.begin(datagram(w))
			w.requirePass(t, patient, 2, 0, 0)
			w.changeBackend(streamBackend, lose)
			w.changeBackend(datagramBackend, lose)
			w.requirePass(t, patient, 2, 0, 2)
			for _, backend := range []uint32{streamBackend, datagramBackend} {
				if live := w.load(backend).Live; live != 0 {
					t.Errorf("backend %d, which is gone, has still %d live flows", backend, live)
				}
			}
			w.requireLedger(t)
			w.requirePass(t, patient, 2, 0, 0)
			want := []bpf.RouterResetEvent{{
				Network: uint32(red), Host: uint32(thisHost), Machine: uint32(w.client.machine), Vip: testVIP,
				ClientLow: linkLow, ClientPort: clientPort, VipPort: vipPort,
			}}
			if diff := cmp.Diff(want, w.resetEvents(), cmpopts.IgnoreUnexported(bpf.RouterResetEvent{})); diff != "" {
				t.Errorf("reset events (-want +got):\n%s", diff)
			}
			// The client's answer to the daemon's bare segment is what the reset answers.
			s := stream(w, flagACK)
			w.requireOutcome(t, s, outcome{reason: bpf.RouterDropReasonDROP_BACKEND_GONE, frame: resetAnswer(w, s)})
			forever := patient
			forever.TimeoutClosing = 0
			w.requirePass(t, forever, 2, 2, 0)
		})
	}
}

// A connection that was closing when its backend went has nobody left to tell.
func TestGoneBackendOfAClosingFlow(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	w.establish()
	w.begin(stream(w, flagRST|flagACK))
	w.requireState(t, bpf.RouterFlowStateFLOW_CLOSING)
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Flags = 1 })
	w.requirePass(t, patient, 1, 0, 1)
	if events := w.resetEvents(); len(events) != 0 {
		t.Errorf("reset events %+v, want none", events)
	}
}

// A flow that moved to a new backend is counted there alone, and ends there alone.
func TestRestartedFlowIsCountedOnce(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	w.establish()
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Flags = 1 })
	w.requirePass(t, patient, 1, 0, 1)
	w.moveService()
	w.begin(stream(w, flagSYN))
	w.requireLedger(t)
	if live := w.load(w.backend).Live; live != 1 {
		t.Errorf("the new backend has %d flows, want 1", live)
	}
	flow := w.requireState(t, bpf.RouterFlowStateFLOW_SYN)
	if flow.Backend != w.backend || flow.BackendMachine != uint32(w.spare.machine) {
		t.Errorf("the flow goes to backend %d on machine %#x", flow.Backend, flow.BackendMachine)
	}
	w.requirePass(t, bpf.RouterExpiryPass{}, 1, 1, 0)
}

// The life of a TCP flow by the segments that are seen of it.
func TestStates(t *testing.T) {
	const syn, established, closing = bpf.RouterFlowStateFLOW_SYN, bpf.RouterFlowStateFLOW_ESTABLISHED, bpf.RouterFlowStateFLOW_CLOSING
	type segment struct {
		reply bool
		flags uint8
		want  bpf.RouterFlowState
	}
	handshake := []segment{{false, flagSYN, syn}, {true, flagSYN | flagACK, syn}, {false, flagACK, established}}
	w := newWorld(t)
	for name, segments := range map[string][]segment{
		"a syn again":                     {{false, flagSYN, syn}, {false, flagSYN, syn}},
		"no answer, then an ack":          {{false, flagSYN, syn}, {false, flagACK, syn}},
		"refused":                         {{false, flagSYN, syn}, {true, flagRST | flagACK, closing}},
		"given up":                        {{false, flagSYN, syn}, {false, flagRST, closing}},
		"closed by the client, then both": append(handshake, segment{false, flagFIN | flagACK, established}, segment{true, flagACK, established}, segment{true, flagFIN | flagACK, closing}, segment{false, flagACK, closing}),
		"closed by the server, then both": append(handshake, segment{true, flagFIN | flagACK, established}, segment{false, flagACK, established}, segment{false, flagFIN | flagACK, closing}),
		"one end twice":                   append(handshake, segment{true, flagFIN | flagACK, established}, segment{true, flagFIN | flagACK, established}),
		"reset by the client":             append(handshake, segment{false, flagRST, closing}),
		"reset by the server":             append(handshake, segment{true, flagRST, closing}),
		// What ended before the new SYN was another connection.
		"a new connection on one that the client closed": append(handshake, segment{false, flagFIN | flagACK, established}, segment{false, flagSYN, established}, segment{true, flagSYN | flagACK, established}, segment{false, flagACK, established}, segment{true, flagFIN | flagACK, established}, segment{false, flagFIN | flagACK, closing}),
		"a new connection on one that the server closed": append(handshake, segment{true, flagFIN | flagACK, established}, segment{false, flagSYN, established}, segment{false, flagFIN | flagACK, established}, segment{true, flagFIN | flagACK, closing}),
		"a new connection on closing":                    append(handshake, segment{true, flagRST, closing}, segment{false, flagSYN, syn}, segment{true, flagSYN | flagACK, syn}, segment{false, flagACK, established}),
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			for i, s := range segments {
				if s.reply {
					w.begin(reply(w, streamSlot(), s.flags))
				} else {
					w.begin(stream(w, s.flags))
				}
				if flow, _ := w.flow(flowKey(w, protocolTCP, vipPort, 0)); state(flow) != s.want {
					t.Fatalf("after segment %d the state is %d, want %d", i, state(flow), s.want)
				}
			}
			w.requireLedger(t)
		})
	}
}

// A datagram of the client renews a flow; a reply does too, but not across networks,
// where another org could hold the client's entry open for ever.
func TestRenewal(t *testing.T) {
	const old = 1000
	w := newWorld(t)
	inner := slot(linkLow, testVIP, datagramPort, 0)
	answer := func(m *member) shot {
		return from(m, w.client.low(inner), protocolUDP, udp(datagramInner, clientPort, 1))
	}
	for name, c := range map[string]struct {
		cross bool
		shot  func() shot
		renew bool
	}{
		"client":                 {false, func() shot { return datagram(w) }, true},
		"reply":                  {false, func() shot { return answer(w.server) }, true},
		"client across networks": {true, func() shot { return datagram(w) }, true},
		"reply across networks":  {true, func() shot { return answer(w.foreign) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			flycastWorld(w)
			if c.cross {
				w.changeBackend(datagramBackend, func(b *bpf.RouterBackend) {
					b.Network, b.Machine = uint32(blue), uint32(w.foreign.machine)
				})
				service := w.service(2, datagramBackend)
				service.Flags = 1
				w.put(w.Services, serviceKey(protocolUDP, datagramPort), service)
			}
			w.begin(datagram(w))
			key := flowKey(w, protocolUDP, datagramPort, 0)
			w.changeFlow(key, func(f *bpf.RouterFlow) { f.LastSeen = old })
			w.begin(c.shot())
			if flow, _ := w.flow(key); flow.LastSeen == old == c.renew {
				t.Errorf("last seen is %d, renewed: want %t", flow.LastSeen, c.renew)
			}
		})
	}
}

// drain reads every record that is there.
func drain(t testing.TB, reader *ringbuf.Reader) (raw [][]byte) {
	t.Helper()
	reader.SetDeadline(time.Now())
	for {
		record, err := reader.Read()
		if errors.Is(err, ringbuf.ErrFlushed) || isDeadline(err) {
			return raw
		}
		must(t, err)
		raw = append(raw, record.RawSample)
	}
}
