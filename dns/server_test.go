package dns

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// converse sends a query and reads one reply.
func converse(t testing.TB, conn net.Conn, query *miekg.Msg) *miekg.Msg {
	t.Helper()
	client := &miekg.Conn{Conn: conn, UDPSize: 65535}
	if err := client.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	return receive(t, conn)
}

func receive(t testing.TB, conn net.Conn) *miekg.Msg {
	t.Helper()
	reply, err := (&miekg.Conn{Conn: conn, UDPSize: 65535}).ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// The table of the pure function, over both transports, at both addresses of the
// resolver; each reply comes from the address that was asked.
func TestServer(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	for _, transport := range []string{"udp6", "tcp6"} {
		t.Run(transport, func(t *testing.T) {
			for _, row := range table {
				t.Run(row.title, func(t *testing.T) {
					row, query := row.defaults()
					for _, resolver := range []netip.Addr{sixpn.DNS, sixpn.NetworkDNS(row.asker)} {
						p := private{p.Namespace, t}
						conn := p.dial(transport, client(row.asker), resolver)
						equal(t, describe(converse(t, conn, query)), row.want)
					}
				})
			}
		})
	}
}

// What a source may learn depends on its address alone.
func TestServerJudgesTheSource(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	refused := expect("REFUSED")
	for _, test := range []struct {
		title  string
		source netip.Addr
		to     netip.Addr
		want   string
	}{
		{"a Machine", client(acme), sixpn.DNS, expect("NOERROR aa", webMachines...)},
		{"another address of its /112", sixpn.Fields{Network: acme, Host: host, Machine: asker, Low: 0xffff}.Addr(), sixpn.DNS, expect("NOERROR aa", webMachines...)},
		{"a Machine of another network", client(globex), sixpn.DNS, missing},
		{"it, at the first one's resolver", client(globex), sixpn.NetworkDNS(acme), missing},
		{"an agent", sixpn.AgentAddr(acme, host), sixpn.DNS, refused},
		{"a VIP", sixpn.VIPAddr(acme, 3), sixpn.DNS, refused},
		{"a Machine seen by itself", sixpn.Fields{Network: acme, Host: sixpn.HostOwnBackend, Machine: asker, Low: 9}.Addr(), sixpn.DNS, refused},
		{"no network", sixpn.Fields{Host: host, Machine: asker, Low: 2}.Addr(), sixpn.DNS, refused},
		{"the host itself", netip.IPv6Loopback(), sixpn.DNS, refused},
		{"elsewhere", netip.MustParseAddr("2001:db8::1"), sixpn.DNS, refused},
	} {
		t.Run(test.title, func(t *testing.T) {
			p := private{p.Namespace, t}
			for _, transport := range []string{"udp6", "tcp6"} {
				conn := p.dial(transport, test.source, test.to)
				equal(t, describe(converse(t, conn, ask("web.internal.", miekg.TypeAAAA))), test.want)
			}
		})
	}
}

func TestServerTruncatesOverUDPOnly(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{Snapshot: func() *state.Snapshot { return crowd(100) }})
	query := ask("web.internal.", miekg.TypeAAAA)

	reply := converse(t, p.dial("udp6", client(acme), sixpn.DNS), query)
	if !reply.Truncated || len(reply.Answer) == 0 || len(reply.Answer) >= 100 {
		t.Errorf("over UDP: %d records, truncation bit %v", len(reply.Answer), reply.Truncated)
	}
	reply = converse(t, p.dial("tcp6", client(acme), sixpn.DNS), query)
	if reply.Truncated || len(reply.Answer) != 100 {
		t.Errorf("over TCP: %d records, truncation bit %v", len(reply.Answer), reply.Truncated)
	}
}

func TestServerKeepsSilence(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	reply := ask("web.internal.", miekg.TypeAAAA)
	reply.Response = true
	wire, err := reply.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []string{"udp6", "tcp6"} {
		for title, message := range map[string][]byte{"a reply": wire, "half a header": wire[:6]} {
			t.Run(transport+" "+title, func(t *testing.T) {
				conn := private{p.Namespace, t}.dial(transport, client(acme), sixpn.DNS)
				if _, err := (&miekg.Conn{Conn: conn}).Write(message); err != nil {
					t.Fatal(err)
				}
				// Whatever was answered would come before this.
				query := ask("api.internal.", miekg.TypeAAAA)
				query.Id = 1
				if first := converse(t, conn, query); first.Id != 1 {
					t.Errorf("got a reply: %v", first)
				}
			})
		}
	}
}

func TestServerRejectsWhatItCannotRead(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	wire, err := ask("web.internal.", miekg.TypeAAAA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	wire[12] = 63 // the first label reaches beyond the end
	for _, transport := range []string{"udp6", "tcp6"} {
		conn := p.dial(transport, client(acme), sixpn.DNS)
		if _, err := (&miekg.Conn{Conn: conn}).Write(wire); err != nil {
			t.Fatal(err)
		}
		if reply := receive(t, conn); reply.Rcode != miekg.RcodeFormatError || reply.Id != 4711 {
			t.Errorf("%s: %v", transport, reply)
		}
	}
}

func TestServerContainsPanics(t *testing.T) {
	p := newPrivate(t)
	var calls atomic.Int32
	log := make(recording, 16)
	p.serve(Config{
		Snapshot: func() *state.Snapshot {
			if calls.Add(1) == 1 {
				panic("made by the test")
			}
			return world()
		},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	conn := p.dial("udp6", client(acme), sixpn.DNS)
	query := ask("web.internal.", miekg.TypeAAAA)
	equal(t, describe(converse(t, conn, query)), "SERVFAIL")
	equal(t, describe(converse(t, conn, query)), expect("NOERROR aa", webMachines...))
	if line := <-log; !strings.Contains(line, "made by the test") {
		t.Errorf("the log does not tell of it: %s", line)
	}
}

// recording is a log to read from.
type recording chan string

func (r recording) Write(line []byte) (int, error) {
	r <- string(line)
	return len(line), nil
}

// Several queries in one write are each answered, in order.
func TestServerPipelines(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	conn := p.dial("tcp6", client(acme), sixpn.DNS)
	var stream bytes.Buffer
	for id := range uint16(100) {
		query := ask("web.internal.", miekg.TypeAAAA)
		query.Id = id
		wire, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte{byte(len(wire) >> 8), byte(len(wire))})
		stream.Write(wire)
	}
	if _, err := conn.Write(stream.Bytes()); err != nil {
		t.Fatal(err)
	}
	for id := range uint16(100) {
		if reply := receive(t, conn); reply.Id != id {
			t.Fatalf("reply %d came when %d was due", reply.Id, id)
		}
	}
}

func TestServerClosesConnections(t *testing.T) {
	query := ask("web.internal.", miekg.TypeAAAA)
	for _, test := range []struct {
		title   string
		config  Config
		queries int
	}{
		{"that say nothing", Config{ReadTimeout: 50 * time.Millisecond}, 0},
		{"that went idle", Config{IdleTimeout: 50 * time.Millisecond}, 2},
		{"that asked enough", Config{QueriesConnection: 3}, 3},
	} {
		t.Run(test.title, func(t *testing.T) {
			p := newPrivate(t)
			p.serve(test.config)
			conn := p.dial("tcp6", client(acme), sixpn.DNS)
			for range test.queries {
				converse(t, conn, query)
			}
			expectClosed(t, conn)
		})
	}
}

func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := conn.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection was not closed: %v", err)
	}
}

func TestServerLimitsConnections(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{Connections: 3, ConnectionsNetwork: 3, ConnectionsMachine: 2})
	query := ask("web.internal.", miekg.TypeAAAA)
	other := sixpn.MachineAddr(acme, host, asker+1)
	third := sixpn.MachineAddr(acme, host, asker+2)

	first := p.dial("tcp6", client(acme), sixpn.DNS)
	converse(t, first, query)
	converse(t, p.dial("tcp6", client(acme).Next(), sixpn.DNS), query) // the same Machine by its next address
	expectClosed(t, p.dial("tcp6", client(acme), sixpn.DNS))           // a Machine's third
	converse(t, p.dial("tcp6", other, sixpn.DNS), query)
	expectClosed(t, p.dial("tcp6", third, sixpn.DNS)) // the fourth of all

	_ = first.Close()
	deadline := time.Now().Add(patience)
	for !replies(p.dial("tcp6", third, sixpn.DNS), query) {
		if time.Now().After(deadline) {
			t.Fatal("the place of a closed connection was not given to another")
		}
	}
}

// However many Machines a network has, others have connections left.
func TestServerLimitsConnectionsOfANetwork(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{Connections: 8}) // of which a network has two
	query := ask("web.internal.", miekg.TypeAAAA)
	for n := range sixpn.Machine(2) {
		converse(t, p.dial("tcp6", sixpn.MachineAddr(acme, host, asker+n), sixpn.DNS), query)
	}
	expectClosed(t, p.dial("tcp6", sixpn.MachineAddr(acme, host, asker+2), sixpn.DNS))
	converse(t, p.dial("tcp6", client(globex), sixpn.DNS), query)
}

// Whoever asks and does not read loses its connection, and others its place.
func TestServerDropsWhoDoesNotRead(t *testing.T) {
	p := newPrivate(t)
	snapshot := crowd(1000)
	p.serve(Config{Snapshot: func() *state.Snapshot { return snapshot }, ReadTimeout: 100 * time.Millisecond, ConnectionsMachine: 1, QueriesConnection: 1 << 20})
	deaf := &miekg.Conn{Conn: p.dial("tcp6", client(acme), sixpn.DNS)}
	query := ask("web.internal.", miekg.TypeAAAA)
	asked := 0
	for ; deaf.WriteMsg(query) == nil; asked++ {
	}
	if asked < 2 {
		t.Errorf("the connection took %d queries", asked)
	}
	until(t, "its place is free", func() bool { return replies(p.dial("tcp6", client(acme), sixpn.DNS), query) })
}

func replies(conn net.Conn, query *miekg.Msg) bool {
	client := &miekg.Conn{Conn: conn}
	if client.WriteMsg(query) != nil {
		return false
	}
	_, err := client.ReadMsg()
	return err == nil
}

func TestServerNeedsAUDPSocket(t *testing.T) {
	p := newPrivate(t)
	listener, err := p.Listen(t.Context(), "tcp6", "[::]:53", netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := NewServer(Config{Log: slog.New(slog.DiscardHandler)}).Run(t.Context(), nil, listener); err == nil {
		t.Error("a server without a UDP socket ran")
	}
}

// A socket that fails ends Run, with both transports.
func TestServerEndsWithItsSocket(t *testing.T) {
	p := newPrivate(t)
	packet, err := p.ListenPacket(t.Context(), "udp6", "[::]:53", netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := p.Listen(t.Context(), "tcp6", "[::]:53", netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- NewServer(Config{Snapshot: world, Log: slog.New(slog.DiscardHandler)}).Run(t.Context(), packet, listener)
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		t.Error("Run goes on")
	}
}
