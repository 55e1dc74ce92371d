package netns_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestConnect: what connects, what is refused, and what never answers, from an
// address that no device has.
func TestConnect(t *testing.T) {
	t.Parallel()
	_, config := newHost(t)
	n := setup(t, config)
	local, here := netip.MustParseAddr("fdaa:0:1:0:3::1"), netip.MustParseAddr("::1")
	listener, err := n.Listen(t.Context(), "tcp6", "[::1]:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	port := uint16(listener.Addr().(*net.TCPAddr).Port)

	conn, err := n.Connect(t.Context(), here, netip.AddrPortFrom(here, port))
	must(t, err)
	peer, err := listener.Accept()
	must(t, err)
	if got, want := peer.RemoteAddr().String(), conn.LocalAddr().String(); got != want {
		t.Errorf("the server sees %s, expected %s", got, want)
	}
	peer.Close()
	conn.Close()

	listener.Close()
	if _, err := n.Connect(t.Context(), here, netip.AddrPortFrom(here, port)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("to a port without a server: %v, expected %v", err, unix.ECONNREFUSED)
	}
	// The other end of the device leads nowhere: nobody answers.
	ended, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Connect(ended, local, netip.MustParseAddrPort("[fdaa:0:1:0:3:0:5:2]:80")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("to nobody: %v, expected that the time ran out", err)
	}
	if _, err := n.Connect(ended, here, netip.AddrPortFrom(here, port)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
