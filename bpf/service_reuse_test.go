package bpf_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/bpf"
)

// A service that is replaced while a packet looks for its backend never leads to the
// backend of another service, which has got the element at once.
func TestReusedServiceElement(t *testing.T) {
	const fires, atMost = 200000, 2 * time.Second
	const ownPort, otherPort = 2001, 2009
	w := newWorld(t)
	flycastWorld(w)
	w.quota(red, 0, fires)
	w.quota(red, w.client.machine, fires)
	own, other := w.service(10, w.addBackend(w.server, backendPort, 10)), w.service(11, w.addBackend(w.foreign, backendPort+1, 11))
	ownKey, otherKey := serviceKey(protocolUDP, ownPort), serviceKey(protocolUDP, otherPort)
	otherKey.Network = uint32(blue)
	// Were the other one's flag taken for this one's, the wall would let the packet through.
	other.Flags = 1
	w.put(w.Services, ownKey, own)
	w.put(w.Services, otherKey, other)

	var done atomic.Bool
	var right, astray int
	onCPUs(t, 2, func(cpu int, _ func()) {
		if cpu == 1 {
			for !done.Load() {
				w.put(w.Services, ownKey, own)
				w.put(w.Services, otherKey, other)
			}
			return
		}
		defer done.Store(true)
		end := time.Now().Add(atMost)
		for n := range fires {
			if time.Now().After(end) {
				return
			}
			verdict, frame, err := runProgram(w.SixpnRouter, from(w.client, vip(), protocolUDP, udp(uint16(1+n%60000), ownPort, 1)))
			if err != nil {
				t.Error(err)
				return
			}
			switch {
			case verdict != verdictRedirect || frame[offsetNext] != protocolUDP: // an answer: there was no backend
			case port(frame, offsetL4+2) == backendPort:
				right++
			default:
				astray++
			}
			if n%2000 == 1999 {
				w.expire(bpf.RouterExpiryPass{})
			}
		}
	})
	if astray > 0 || right == 0 {
		t.Errorf("%d flows went to the service's own backend and %d elsewhere, want some and 0", right, astray)
	}
	// A backend that was taken and not used is given back.
	w.requireLedger(t)
}
