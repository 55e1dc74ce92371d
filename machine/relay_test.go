package machine_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// relayTo runs a relay to a server and returns its listener and what it returned.
func relayTo(t *testing.T, server string) (listener *net.TCPListener, ended <-chan error) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- machine.Relay(listener, server) }()
	t.Cleanup(func() { listener.Close() })
	return listener, done
}

func dialTCP(t *testing.T, to net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", to.String(), await.Limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(await.Limit)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// server listens on a free port and hands each connection to serve.
func tcpServer(t *testing.T, serve func(*net.TCPConn)) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return listener
}

func TestRelayPassesTheEndOfOneWayOn(t *testing.T) {
	// The server answers only once the client has said all.
	server := tcpServer(t, func(c *net.TCPConn) {
		defer c.Close()
		asked, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(append([]byte("you said "), asked...))
		}
	})
	listener, ended := relayTo(t, server.Addr().String())
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			c := dialTCP(t, listener.Addr())
			_, err := c.Write([]byte("hello"))
			if err = errors.Join(err, c.CloseWrite()); err != nil {
				t.Error(err)
			}
			if answer, err := io.ReadAll(c); err != nil || string(answer) != "you said hello" {
				t.Errorf("answer %q, %v", answer, err)
			}
		})
	}
	clients.Wait()
	listener.Close()
	select {
	case err := <-ended: // nothing of any connection is left
		if err != nil {
			t.Error(err)
		}
	case <-time.After(await.Limit):
		t.Error("the relay did not end with its connections")
	}
}

func TestRelayPassesAResetOn(t *testing.T) {
	server := tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
		c.Close()
	})
	listener, _ := relayTo(t, server.Addr().String())
	c := dialTCP(t, listener.Addr())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, expected a reset", err)
	}
}

func TestRelayRefusesWhatItsServerRefuses(t *testing.T) {
	server := tcpServer(t, nil)
	server.Close()
	listener, _ := relayTo(t, server.Addr().String())
	c, err := net.DialTimeout("tcp", listener.Addr().String(), await.Limit)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) { // as soon as at the dial
		t.Errorf("the client sees %v, expected a reset", err)
	}
}

// TestRelaySlowsTheWriter: a client can send no more than the buffers on the way
// hold while the server does not read, and all of it arrives once it does.
func TestRelaySlowsTheWriter(t *testing.T) {
	read, got := make(chan struct{}), make(chan []byte, 1)
	server := tcpServer(t, func(c *net.TCPConn) {
		defer c.Close()
		<-read
		all, _ := io.ReadAll(c)
		got <- all
	})
	listener, _ := relayTo(t, server.Addr().String())
	c := dialTCP(t, listener.Addr())
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	var sent []byte
	for {
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(chunk)
		sent = append(sent, chunk[:n]...)
		if err != nil {
			break
		}
		if len(sent) > 256<<20 {
			t.Fatal("the relay took 256 MiB that nobody read")
		}
	}
	close(read)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case all := <-got:
		if !bytes.Equal(all, sent) {
			t.Errorf("%d bytes arrived of %d that were sent, or others", len(all), len(sent))
		}
	case <-time.After(await.Limit):
		t.Error("not all arrived")
	}
}

// TestRelayThatClosesKeepsItsConnections: what was accepted goes on.
func TestRelayThatClosesKeepsItsConnections(t *testing.T) {
	server := tcpServer(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	listener, ended := relayTo(t, server.Addr().String())
	c := dialTCP(t, listener.Addr())
	for _, word := range []string{"before", "after!"} {
		if _, err := c.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len(word))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != word {
			t.Fatalf("answer %q, %v", answer, err)
		}
		listener.Close()
	}
	select {
	case err := <-ended:
		t.Errorf("the relay ended before its connection: %v", err)
	default:
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Errorf("the relay of a closed listener ended with: %v", err)
	}
}

func TestReadSockets(t *testing.T) {
	const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	const rest = " 00000000:00000000 00:00000000 00000000 0 0 "
	for _, c := range []struct {
		name, protocol, table string
		want                  []netip.AddrPort
		fails                 bool
	}{
		{"none", "tcp", heading, nil, false},
		{"all of IPv4", "tcp", heading + "   0: 00000000:1F90 00000000:0000 0A" + rest + "1\n", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8080")}, false},
		{"one of IPv4", "tcp", heading + "   0: 0100007F:0050 00000000:0000 0A" + rest + "2\n", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}, false},
		{"all of IPv6", "tcp", heading + "   0: 00000000000000000000000000000000:0050 0:0000 0A" + rest + "3\n", []netip.AddrPort{netip.MustParseAddrPort("[::]:80")}, false},
		{"a mapped address", "tcp", heading + "   0: 0000000000000000FFFF000000000000:0050 0:0000 0A" + rest + "4\n", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}, false},
		{"a Machine's", "tcp", heading + "   0: 0000AAFD000018000000070002000A00:0050 0:0000 0A" + rest + "5\n", []netip.AddrPort{netip.MustParseAddrPort("[fdaa:0:18:0:7:0:a:2]:80")}, false},
		{"a connection", "tcp", heading + "   0: 0100007F:0050 0100007F:1234 01" + rest + "6\n", nil, false},
		{"a datagram socket", "udp", heading + "   0: 00000000:0035 00000000:0000 07" + rest + "7\n", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, false},
		{"one that is connected before", "udp", heading + "   0: 0100007F:0035 0100007F:1234 01" + rest + "8\n   1: 00000000:0035 00000000:0000 07" + rest + "9\n", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, false},
		{"one listed twice", "udp", heading + strings.Repeat("   0: 00000000:0035 00000000:0000 07"+rest+"7\n", 2), []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, false},
		{"two of one port", "udp", heading + "   0: 00000000:0035 00000000:0000 07" + rest + "7\n   0: 00000000:0035 00000000:0000 07" + rest + "8\n", slices.Repeat([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}, 2), false},
		{"a short line", "tcp", heading + "   0: 00000000:0050\n", nil, true},
		{"a bad port", "tcp", heading + "   0: 00000000:XYZ 00000000:0000 0A" + rest + "10\n", nil, true},
		{"a bad address", "tcp", heading + "   0: 0000:0050 00000000:0000 0A" + rest + "11\n", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := machine.ReadSockets(strings.NewReader(c.table), c.protocol)
			if (err != nil) != c.fails || !slices.Equal(got, c.want) {
				t.Errorf("read %v, %v, expected %v", got, err, c.want)
			}
		})
	}
}
