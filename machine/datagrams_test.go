package machine_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// listenDatagrams opens a socket of IPv4 on loopback that echoes what it gets, after
// the port that it came from; port 0 is a free one.
func listenDatagrams(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, client, err := server.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Two datagrams, so that the largest can be echoed as well.
			_, _ = server.WriteToUDPAddrPort(fmt.Append(nil, client.Port()), client)
			_, _ = server.WriteToUDPAddrPort(buffer[:n], client)
		}
	}()
	return server
}

// relayDatagrams relays to a server, from IPv6 loopback.
func relayDatagrams(t *testing.T, server net.Addr, idle time.Duration, limit int) (clients *net.UDPConn, r *machine.DatagramRelay, ended <-chan error) {
	t.Helper()
	clients, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	r = machine.NewDatagramRelay(clients, netip.MustParseAddrPort(server.String()), idle, limit)
	done := make(chan error, 1)
	go func() { done <- machine.RunDatagramRelay(r) }()
	t.Cleanup(func() { clients.Close() })
	return clients, r, done
}

func datagramClient(t *testing.T, to net.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp6", nil, to.(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(await.Limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

// exchange sends a datagram, demands its echo, and returns the port that the server
// saw it come from.
func exchange(t *testing.T, c *net.UDPConn, datagram []byte) (port string) {
	t.Helper()
	if _, err := c.Write(datagram); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	n, err := c.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	port = string(buffer[:n])
	if n, err = c.Read(buffer); err != nil || !bytes.Equal(buffer[:n], datagram) {
		t.Fatalf("the echo has %d bytes, %v, expected the %d that were sent", n, err, len(datagram))
	}
	return port
}

func TestDatagramRelayTellsClientsApart(t *testing.T) {
	server := listenDatagrams(t, 0)
	clients, r, ended := relayDatagrams(t, server.LocalAddr(), time.Hour, 100)
	ports := map[string]bool{}
	for i := range 50 {
		c := datagramClient(t, clients.LocalAddr())
		port := exchange(t, c, fmt.Append(nil, "first of ", i))
		if again := exchange(t, c, fmt.Append(nil, "second of ", i)); again != port {
			t.Errorf("client %d had port %s, then %s", i, port, again)
		}
		ports[port] = true
	}
	if len(ports) != 50 || r.Sessions() != 50 {
		t.Errorf("50 clients had %d ports and %d sessions", len(ports), r.Sessions())
	}
	clients.Close()
	select {
	case err := <-ended:
		if err != nil || r.Sessions() != 0 {
			t.Errorf("it ended with %v and %d sessions", err, r.Sessions())
		}
	case <-time.After(await.Limit):
		t.Error("it did not end with its socket")
	}
}

func TestDatagramRelaySizes(t *testing.T) {
	server := listenDatagrams(t, 0)
	clients, _, _ := relayDatagrams(t, server.LocalAddr(), time.Hour, 1)
	c := datagramClient(t, clients.LocalAddr())
	for _, size := range []int{0, 1, 1472, 9000, 65507} {
		exchange(t, c, bytes.Repeat([]byte{'x'}, size))
	}
	// IPv6 carries a little more than IPv4: that is lost, and nothing with it.
	if _, err := c.Write(make([]byte, 65508)); err != nil {
		t.Fatal(err)
	}
	exchange(t, c, []byte("after"))
}

func TestDatagramRelayIsBounded(t *testing.T) {
	server := listenDatagrams(t, 0)
	clients, r, _ := relayDatagrams(t, server.LocalAddr(), time.Hour, 2)
	a, b, c := datagramClient(t, clients.LocalAddr()), datagramClient(t, clients.LocalAddr()), datagramClient(t, clients.LocalAddr())
	ask := func(c *net.UDPConn) string { return exchange(t, c, []byte("hello")) }
	portA, portB := ask(a), ask(b)
	if ask(a) != portA {
		t.Error("the first client lost its port while there was room")
	}
	ask(c) // takes the place of b, which was unused for longest
	if ask(a) != portA {
		t.Error("the client used last lost its port")
	}
	if ask(b) == portB {
		t.Error("the client unused for longest kept its port")
	}
	if n := r.Sessions(); n != 2 {
		t.Errorf("%d sessions, expected 2", n)
	}
}

func TestDatagramRelaySessionsExpire(t *testing.T) {
	server := listenDatagrams(t, 0)
	clients, r, _ := relayDatagrams(t, server.LocalAddr(), 10*time.Millisecond, 100)
	for range 3 {
		c := datagramClient(t, clients.LocalAddr())
		for range 2 { // expired, a client begins anew
			exchange(t, c, []byte("hello"))
			await.True(t, "no session is left", func() bool { return r.Sessions() == 0 })
		}
	}
}

// TestDatagramRelaySurvivesItsServer: the ICMP errors of a closed port end nothing, and
// eat no later datagram.
func TestDatagramRelaySurvivesItsServer(t *testing.T) {
	server := listenDatagrams(t, 0)
	clients, _, _ := relayDatagrams(t, server.LocalAddr(), time.Hour, 100)
	c := datagramClient(t, clients.LocalAddr())
	port := exchange(t, c, []byte("before"))
	buffer := make([]byte, 1<<16)
	for i := range 50 {
		server.Close()
		for range i % 3 {
			if _, err := c.Write([]byte("lost")); err != nil {
				t.Fatalf("the client was told of an error: %v", err)
			}
		}
		server = listenDatagrams(t, server.LocalAddr().(*net.UDPAddr).Port)
		after := fmt.Sprint("after ", i)
		if _, err := c.Write([]byte(after)); err != nil {
			t.Fatal(err)
		}
		// What was to be lost may have come too, and is answered then.
		for answer := ""; answer != after; {
			n, err := c.Read(buffer)
			if err != nil {
				t.Fatalf("no answer to %q: %v", after, err)
			}
			answer = string(buffer[:n])
			if answer != after && answer != "lost" && answer != port {
				t.Fatalf("answer %q, expected %q from port %s", answer, after, port)
			}
		}
	}
}
