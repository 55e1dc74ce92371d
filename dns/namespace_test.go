package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// private is a network namespace that takes every address for its own, as the
// daemon's does, with the asker of each network in it.
type private struct {
	*netns.Namespace
	t testing.TB
}

func newPrivate(t testing.TB) private {
	t.Helper()
	made := make(chan *os.File, 1)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- fmt.Errorf("make a network namespace (root is needed): %w", err)
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			failed <- err
			return
		}
		made <- file
	}()
	select {
	case err := <-failed:
		t.Fatal(err)
	case file := <-made:
		p := private{netns.FromFile(file), t}
		t.Cleanup(func() { _ = p.Close() })
		p.run("ip", "link", "set", "lo", "up")
		p.run("ip", "-6", "route", "add", "local", "::/0", "dev", "lo")
		// Bound by dig, which cannot bind what is configured nowhere.
		for _, network := range []sixpn.Network{acme, globex, vacant} {
			p.run("ip", "addr", "add", client(network).String()+"/128", "dev", "lo", "nodad")
		}
		return p
	}
	return private{}
}

// client is where queries of a network come from.
func client(network sixpn.Network) netip.Addr { return sixpn.MachineAddr(network, host, asker) }

// command is a program that runs inside.
func (p private) command(name string, arguments ...string) *exec.Cmd {
	path := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), p.File().Fd())
	return exec.Command("nsenter", append([]string{path, "--", name}, arguments...)...)
}

func (p private) run(name string, arguments ...string) string {
	p.t.Helper()
	output, err := p.command(name, arguments...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %q: %v\n%s", name, arguments, err, output)
	}
	return string(output)
}

// serve runs a server inside until the test ends. Its sockets are the config's
// only lack.
func (p private) serve(config Config) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	packet, err := p.ListenPacket(ctx, "udp6", "[::]:53", netns.FreeBind)
	if err != nil {
		p.t.Fatal(err)
	}
	listener, err := p.Listen(ctx, "tcp6", "[::]:53", netns.FreeBind)
	if err != nil {
		p.t.Fatal(err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Snapshot == nil {
		snapshot := world()
		config.Snapshot = func() *state.Snapshot { return snapshot }
	}
	if config.Distances == nil {
		config.Distances = func() *state.Distances { return fromHere }
	}
	if config.Forward.Dial == nil && config.Forward.Upstreams == nil {
		// No test asks this host's resolvers.
		config.Forward = p.forwarding(p.upstream("127.0.0.1:5300", refuse).address)
	}
	ended := make(chan error, 1)
	go func() { ended <- NewServer(config).Run(ctx, packet, listener) }()
	p.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				p.t.Errorf("the server ended with: %v", err)
			}
		case <-time.After(patience):
			p.t.Error("the server did not end")
		}
	})
}

// dial connects from a client to a resolver's address. A connected socket
// receives only what comes from the address that it asked.
func (p private) dial(network string, from, to netip.Addr) net.Conn {
	p.t.Helper()
	local := net.Addr(&net.UDPAddr{IP: from.AsSlice()})
	if network == "tcp6" {
		local = &net.TCPAddr{IP: from.AsSlice()}
	}
	conn, err := p.Dial(context.Background(), network, local, netip.AddrPortFrom(to, 53).String(), netns.FreeBind)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return conn
}
