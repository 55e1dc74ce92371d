package machine

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sixpn/sixpn/state"
)

// listenInterval is the time from one look for listeners to the next.
const listenInterval = 20 * time.Millisecond

// awaitListeners returns once a Machine listens on the ports of all its services, or
// has had the time for it: a Machine that counts as started is chosen for flows and
// named by DNS, and connections that came before it listens would be refused. It is
// false when something else was asked for meanwhile, so that this start is over.
func (w *worker) awaitListeners(ctx context.Context, record state.Machine, p *Process) bool {
	missing := record.Config.Services
	if len(missing) == 0 {
		return true
	}
	namespace, err := p.NetNS(ctx)
	if err != nil {
		return ctx.Err() == nil // else it has ended, which is noted next
	}
	defer namespace.Close()
	timeout := time.NewTimer(w.m.config.ListenTimeout)
	defer timeout.Stop()
	ticker := time.NewTicker(listenInterval)
	defer ticker.Stop()
	for {
		if missing, err = notListening(ctx, namespace, missing); err != nil || len(missing) == 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.Exited():
			return true
		case <-timeout.C:
			w.log.Warn("a machine does not listen on all ports of its services", "first_missing", fmt.Sprintf("%d/%s", missing[0].InternalPort, missing[0].Protocol))
			return true
		case <-ticker.C:
		case <-w.wake: // the next step looks for itself what the news was
		}
		if r := w.current(); r == nil || r.Desired != state.Started || r.InstanceID != record.InstanceID {
			return false
		}
	}
}

// notListening are the services that nothing in a namespace serves. A server
// that listens with IPv4 only is waited for until its relay serves it; one that is
// bound to some other single address counts as one that listens: there is nothing
// better to wait for.
func notListening(ctx context.Context, namespace *os.File, services []state.Service) (missing []state.Service, err error) {
	open := map[string][]netip.AddrPort{}
	err = inNetNS(ctx, namespace, func() (err error) {
		for protocol := range openStates {
			if open[protocol], err = openSockets(protocol); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		listens := slices.ContainsFunc(open[s.Protocol], func(socket netip.AddrPort) bool {
			return socket.Port() == s.InternalPort && socket.Addr() != netip.IPv4Unspecified()
		})
		if !listens {
			missing = append(missing, s)
		}
	}
	return missing, nil
}
