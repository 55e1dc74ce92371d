package machine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A relay is a process inside a Machine, a child of its init, that takes
// connections to one port of the Machine's address and hands them to a server
// there that listens on that port with IPv4 only. It is a process of its own so
// that neither its descriptors nor its end are init's.
const (
	relayDialTimeout = 30 * time.Second      // while the server's backlog is full
	relayPause       = 50 * time.Millisecond // before accepting again, when descriptors ran out
)

// runRelay does a relay's whole work. SIGTERM closes the port at once and lets the
// connections that it has go on to their end.
func runRelay(address string) error {
	listen, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	listener, err := net.ListenTCP("tcp6", net.TCPAddrFromAddrPort(listen))
	if err != nil {
		return err
	}
	go func() {
		<-signals
		listener.Close()
	}()
	server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listen.Port()).String()
	return relay(listener, server)
}

// relay hands every connection that a listener takes to a server, until the
// listener is closed and the last connection has ended.
func relay(listener *net.TCPListener, server string) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		client, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Too many descriptors, or a client that is gone again already.
			if !errors.Is(err, unix.ECONNABORTED) {
				time.Sleep(relayPause)
			}
			continue
		}
		connections.Go(func() { relayConnection(client, server) })
	}
}

// relayConnection copies both ways until both have ended. The end of one way is
// passed on while the other goes on; a failure of one side becomes a reset of the
// other, so that nobody takes a cut-off answer for a whole one.
func relayConnection(client *net.TCPConn, address string) {
	defer client.Close()
	dialer := net.Dialer{Timeout: relayDialTimeout}
	dialed, err := dialer.Dial("tcp4", address)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := dialed.(*net.TCPConn)
	defer server.Close()
	fail := sync.OnceFunc(func() {
		for _, c := range []*net.TCPConn{client, server} {
			_ = c.SetLinger(0)
			c.Close()
		}
	})
	copyWay := func(to, from *net.TCPConn) {
		// Between two TCP sockets this is splice(2): a slow reader slows the writer.
		_, err := io.Copy(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		if err != nil {
			fail()
		}
	}
	var ways sync.WaitGroup
	ways.Go(func() { copyWay(server, client) })
	ways.Go(func() { copyWay(client, server) })
	ways.Wait()
}

// relayName is what a relay is called in process lists.
const relayName = "sixpn-relay"

// RelaySpec is which ports of a Machine's address are relayed when a server inside
// listens on them with IPv4 only.
type RelaySpec struct {
	Ports []uint16 `json:"ports,omitempty"` // TCP
	// Settle is how long such a server must have been alone on its port: most that
	// listen with both protocols open one socket after the other, and could not open
	// the second while the relay has the port.
	Settle time.Duration `json:"settle,omitempty"`
	// Interval is how often init looks at the listening sockets while it relays or
	// something changes; at rest it looks a tenth as often.
	Interval time.Duration `json:"interval,omitempty"`
}

// relayArgs is the command line of a relay.
func relayArgs(addr netip.Addr, port uint16) []string {
	return []string{relayName, netip.AddrPortFrom(addr, port).String()}
}

// startRelay starts one beside the command. done gets its end.
func (p *initProcess) startRelay(port uint16, done chan<- syscall.WaitStatus) (pid int, err error) {
	nowhere, err := null()
	if err != nil {
		return 0, err
	}
	defer nowhere.Close()
	attr := &syscall.ProcAttr{
		// What it has to say is said in the Machine's log.
		Dir: "/", Files: []uintptr{nowhere.Fd(), nowhere.Fd(), 2}, Sys: &syscall.SysProcAttr{Setsid: true},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err = forkUnprivileged("/proc/self/exe", relayArgs(p.record.Spec.Addr, port), attr)
	if err != nil {
		return 0, fmt.Errorf("start a relay for port %d: %w", port, err)
	}
	p.children[pid] = done
	return pid, nil
}

// endRelay closes a relay's port.
func (p *initProcess) endRelay(pid int) {
	// Under the lock it cannot be reaped, so the number is its own.
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, running := p.children[pid]; running {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}
