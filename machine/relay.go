package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A relay is a process inside a Machine, a child of its init, that takes what comes
// to one port of the Machine's address and hands it to a server there that listens on
// that port with IPv4 only. It is a process of its own so that neither its descriptors
// nor its end are init's.
const (
	relayDialTimeout = 30 * time.Second      // while the server's backlog is full
	relayPause       = 50 * time.Millisecond // before accepting again, when descriptors ran out
)

// runRelay does a relay's whole work. SIGTERM closes the port at once and lets the
// connections that it has go on to their end.
func runRelay(args []string) error {
	port, spec, err := parseRelayArgs(args)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	closeAtEnd := func(port io.Closer) {
		go func() {
			<-signals
			port.Close()
		}()
	}
	server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port.address.Port())
	config := net.ListenConfig{Control: sharePort}
	if port.protocol == "udp" {
		clients, err := config.ListenPacket(context.Background(), "udp6", port.address.String())
		if err != nil {
			return err
		}
		closeAtEnd(clients)
		r := datagramRelay{clients: clients.(*net.UDPConn), server: server, idle: spec.Idle, limit: spec.Sessions}
		return r.run()
	}
	listener, err := config.Listen(context.Background(), "tcp6", port.address.String())
	if err != nil {
		return err
	}
	closeAtEnd(listener)
	return relay(listener.(*net.TCPListener), server.String())
}

// sharePort lets a server that shares its ports too (SO_REUSEPORT as root, or with UDP
// SO_REUSEADDR) have this one with IPv6 while there is a relay, which then ends.
// Nothing can be done for others: the kernel refuses them, and does not say so here.
func sharePort(_, _ string, socket syscall.RawConn) error {
	var failed error
	return errors.Join(socket.Control(func(fd uintptr) {
		for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
			failed = errors.Join(failed, os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1)))
		}
	}), failed)
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
	UDP   []uint16 `json:"udp,omitempty"`
	// Settle is how long such a server must have been alone on its port: most that
	// listen with both protocols open one socket after the other, and could not open
	// the second while the relay has the port.
	Settle time.Duration `json:"settle,omitempty"`
	// Interval is how often init looks at the sockets while it relays or something
	// changes; at rest it looks a tenth as often.
	Interval time.Duration `json:"interval,omitempty"`
	// Idle is how long a UDP client keeps its port towards the server while nothing
	// passes, and Sessions how many clients of one port have one.
	Idle     time.Duration `json:"idle,omitempty"`
	Sessions int           `json:"sessions,omitempty"`
}

// ports are the ports of one protocol, "tcp" or "udp".
func (s RelaySpec) ports(protocol string) []uint16 {
	if protocol == "udp" {
		return s.UDP
	}
	return s.Ports
}

// relayPort is what one relay is for.
type relayPort struct {
	protocol string
	address  netip.AddrPort
}

func (p relayPort) String() string { return fmt.Sprintf("%d/%s", p.address.Port(), p.protocol) }

// relayArgs is the command line of a relay: PROTOCOL ADDRESS:PORT IDLE SESSIONS.
func relayArgs(p relayPort, s RelaySpec) []string {
	return []string{relayName, p.protocol, p.address.String(), s.Idle.String(), strconv.Itoa(s.Sessions)}
}

// parseRelayArgs reads what relayArgs wrote, without the name.
func parseRelayArgs(args []string) (p relayPort, s RelaySpec, err error) {
	if len(args) != 4 {
		return p, s, fmt.Errorf("%d arguments, expected PROTOCOL ADDRESS:PORT IDLE SESSIONS", len(args))
	}
	p.protocol = args[0]
	p.address, err = netip.ParseAddrPort(args[1])
	if err == nil {
		s.Idle, err = time.ParseDuration(args[2])
	}
	if err == nil {
		s.Sessions, err = strconv.Atoi(args[3])
	}
	return p, s, err
}

// startRelay starts one beside the command. done gets its end.
func (p *initProcess) startRelay(port relayPort, done chan<- syscall.WaitStatus) (pid int, err error) {
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
	pid, err = forkUnprivileged("/proc/self/exe", relayArgs(port, p.record.Spec.Relay), attr)
	if err != nil {
		return 0, fmt.Errorf("start a relay for port %s: %w", port, err)
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
