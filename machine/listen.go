package machine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
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

// notListening are the services whose port no socket of a namespace has. One that is
// bound to a single address, or to IPv4, counts as one that listens: there is nothing
// better to wait for.
func notListening(ctx context.Context, namespace *os.File, services []state.Service) (missing []state.Service, err error) {
	open := map[string][]uint16{}
	err = inNetNS(ctx, namespace, func() error {
		for _, table := range []string{"tcp6", "tcp", "udp6", "udp"} {
			// That of the thread: /proc/net is that of the process.
			f, err := os.Open("/proc/thread-self/net/" + table)
			if err != nil {
				return err
			}
			protocol := strings.TrimSuffix(table, "6")
			ports, err := openPorts(bufio.NewScanner(f), protocol)
			f.Close()
			if err != nil {
				return err
			}
			open[protocol] = append(open[protocol], ports...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if !slices.Contains(open[s.Protocol], s.InternalPort) {
			missing = append(missing, s)
		}
	}
	return missing, nil
}

// The states of sockets that take what comes from anywhere, as the kernel writes them:
// TCP_LISTEN, and the TCP_CLOSE of UDP sockets that are not connected.
var openStates = map[string]string{"tcp": "0A", "udp": "07"}

// openPorts reads a socket table of /proc: "sl local_address rem_address st …", an
// address as HEX:PORT.
func openPorts(table *bufio.Scanner, protocol string) (ports []uint16, err error) {
	for table.Scan() {
		fields := strings.Fields(table.Text())
		if len(fields) < 4 || fields[3] != openStates[protocol] {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("the local address %q of a socket is malformed: %w", fields[1], err)
		}
		ports = append(ports, uint16(port))
	}
	return ports, table.Err()
}
