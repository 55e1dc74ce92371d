package machine

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// relays are the relays that an init keeps, by what they are for.
type relays struct {
	init   *initProcess
	spec   RelaySpec
	ports  map[relayPort]*relayed
	told   []uint16 // what the supervisor was told last
	failed bool     // the sockets could not be listed, and that was said
}

// relayed is one port that may be relayed.
type relayed struct {
	alone time.Time               // since when its server listens with IPv4 only; zero: it does not
	doubt bool                    // the last look did not find that server alone
	pid   int                     // of its relay, 0: none
	done  chan syscall.WaitStatus // of its relay
}

// relayRest is how much longer than the interval a look waits when all is at rest.
const relayRest = 10

// keepRelays starts a relay where a server listens with IPv4 only, and ends it when
// that server stops listening, or something wants the port with IPv6. It is init
// that does this, so it needs no agent, and a frozen Machine costs nothing.
func (p *initProcess) keepRelays() {
	spec, addr := p.record.Spec.Relay, p.record.Spec.Addr
	r := &relays{init: p, spec: spec, ports: map[relayPort]*relayed{}}
	for protocol := range openStates {
		for _, port := range spec.ports(protocol) {
			r.ports[relayPort{protocol, netip.AddrPortFrom(addr, port)}] = &relayed{}
		}
	}
	if len(r.ports) == 0 || !addr.IsValid() || spec.Interval <= 0 {
		return
	}
	delay := spec.Interval
	var before map[string][]netip.AddrPort
	for {
		sockets, err := r.sockets()
		busy := false
		if err == nil {
			busy = r.look(sockets)
		} else if !r.failed {
			r.failed = true
			fmt.Fprintf(os.Stderr, "%s: servers that listen with IPv4 only are not found: %v\n", initName, err)
		}
		if busy || !maps.EqualFunc(before, sockets, slices.Equal) {
			delay = spec.Interval
		} else {
			delay = min(2*delay, relayRest*spec.Interval)
		}
		before = sockets
		time.Sleep(delay)
	}
}

// sockets lists the open sockets of the protocols of which a port may be relayed.
func (r *relays) sockets() (open map[string][]netip.AddrPort, err error) {
	open = map[string][]netip.AddrPort{}
	for protocol := range openStates {
		if len(r.spec.ports(protocol)) == 0 {
			continue
		}
		if open[protocol], err = openSockets(protocol); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// look does what the open sockets ask for. It is true while there is something
// to look after closely.
func (r *relays) look(sockets map[string][]netip.AddrPort) (busy bool) {
	var working []uint16
	for port, state := range r.ports {
		if state.pid != 0 {
			select {
			case <-state.done:
				state.pid = 0
			default:
			}
		}
		alone, listens := judge(port.address, state.pid != 0, sockets[port.protocol])
		switch {
		case !alone && state.pid != 0 && !state.doubt:
			// The kernel's list of more than a page may skip a socket when others close
			// meanwhile. What a relay carries is not cut off for that.
			state.doubt, busy = true, true
			continue
		case !alone:
			if state.pid != 0 {
				r.init.endRelay(state.pid)
			}
			*state = relayed{}
			continue
		case state.alone.IsZero():
			state.alone = time.Now()
		case state.pid == 0 && time.Since(state.alone) >= r.spec.Settle:
			r.start(port, state)
		}
		state.doubt, busy = false, true
		if state.pid != 0 && listens {
			working = append(working, port.address.Port())
		}
	}
	r.tell(working)
	return busy
}

// judge says of a port of a Machine's address whether a server is alone on it with
// IPv4, and whether its relay listens, if it has one. What else is bound where the
// relay is shares the port with it.
func judge(port netip.AddrPort, relaying bool, sockets []netip.AddrPort) (alone, listens bool) {
	for _, socket := range sockets {
		switch {
		case socket.Port() != port.Port():
		case socket.Addr() == netip.IPv4Unspecified():
			alone = true
		case relaying && !listens && socket == port:
			listens = true
		case serves(socket.Addr(), port.Addr()):
			return false, false
		}
	}
	return alone, listens
}

func (r *relays) start(port relayPort, state *relayed) {
	done := make(chan syscall.WaitStatus, 1)
	pid, err := r.init.startRelay(port, done)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", initName, err)
		state.alone = time.Now() // and once more after that
		return
	}
	state.pid, state.done = pid, done
	state.alone = time.Now() // one that ends at once is not started again at once
}

// tell lets the supervisor know which ports are relayed, of whichever protocol.
func (r *relays) tell(working []uint16) {
	slices.Sort(working)
	working = slices.Compact(working)
	if slices.Equal(working, r.told) {
		return
	}
	if err := r.init.supervisor.send(message{Op: opRelayed, Relayed: working}); err == nil {
		r.told = working
	}
}
