package nettest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

const echoPort = 7000

// hosts are some on one underlay, each with an echo of datagrams.
func hosts(t *testing.T, n int) (*nettest.Underlay, []*nettest.Host) {
	t.Helper()
	u := nettest.Get[*nettest.Underlay](t)(nettest.NewUnderlay(0))
	t.Cleanup(func() { nettest.Must(t, u.Close()) })
	made := make([]*nettest.Host, n)
	for i := range made {
		made[i] = nettest.Get[*nettest.Host](t)(nettest.NewHost(nettest.Config{Underlay: u}))
		t.Cleanup(func() { nettest.Must(t, made[i].Close()) })
		nettest.Must(t, made[i].Do(func() error {
			socket, err := net.ListenPacket("udp", fmt.Sprintf(":%d", echoPort))
			if err == nil {
				t.Cleanup(func() { socket.Close() })
				go echo(socket)
			}
			return err
		}))
	}
	return u, made
}

func echo(socket net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = socket.WriteTo(buffer[:n], from)
	}
}

// ask sends a datagram and says whether it came back in time.
func ask(t *testing.T, from *nettest.Host, to netip.Addr, limit time.Duration) bool {
	t.Helper()
	answered := false
	nettest.Must(t, from.Do(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(to, echoPort).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("who")); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 16))
		answered = err == nil
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
		return err
	}))
	return answered
}

// TestCuts: who reaches whom, by a question and its answer, for each cut.
func TestCuts(t *testing.T) {
	_, h := hosts(t, 3)
	a, b, c := h[0].Uplink, h[1].Uplink, h[2].Uplink
	for _, row := range []struct {
		name    string
		cut     func() error
		answers string // of the six questions, in their order
	}{
		{"nothing is cut", func() error { return nil }, "ab ac ba bc ca cb"},
		{"a host", a.Cut, "bc cb"},
		{"what a host sends", func() error { return a.CutTo(nil) }, "bc cb"},
		{"from one to another", func() error { return a.CutTo(b) }, "ac bc ca cb"},
		{"datagrams from one to another", func() error { return a.CutUDPTo(b) }, "ac bc ca cb"},
		{"between two hosts", func() error { return errors.Join(b.CutTo(c), c.CutTo(b)) }, "ab ac ba ca"},
		{"all hosts", func() error { return errors.Join(a.Cut(), b.Cut(), c.Cut()) }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			nettest.Must(t, row.cut())
			if got := answered(t, h); got != row.answers {
				t.Errorf("answered are %q, expected %q", got, row.answers)
			}
			nettest.Must(t, errors.Join(a.Heal(), b.Heal(), c.Heal()))
			if got := answered(t, h); got != "ab ac ba bc ca cb" {
				t.Errorf("healed, answered are %q", got)
			}
		})
	}
}

// answered are the pairs of hosts of which the first gets an answer from the second, in
// both families.
func answered(t *testing.T, h []*nettest.Host) string {
	t.Helper()
	var pairs []string
	for i, from := range h {
		for j, to := range h {
			if i == j {
				continue
			}
			v4, v6 := ask(t, from, to.Uplink.V4, 500*time.Millisecond), ask(t, from, to.Uplink.V6, 500*time.Millisecond)
			if v4 != v6 {
				t.Errorf("host %d gets an answer from host %d: IPv4 %v, IPv6 %v", i, j, v4, v6)
			}
			if v4 {
				pairs = append(pairs, string(rune('a'+i))+string(rune('a'+j)))
			}
		}
	}
	return strings.Join(pairs, " ")
}

// TestDelay: a delayed link is late each way, can be cut, and is as before afterwards.
func TestDelay(t *testing.T) {
	u, h := hosts(t, 2)
	capture := nettest.Get[*nettest.Capture](t)(u.Capture())
	const each = 300 * time.Millisecond // more than a busy machine adds
	took := func() time.Duration {
		began := time.Now()
		if !ask(t, h[0], h[1].Uplink.V6, 5*time.Second) {
			t.Fatal("no answer")
		}
		return time.Since(began)
	}
	took() // neighbours are known now
	nettest.Must(t, h[0].Uplink.Delay(each))
	took()
	if got := took(); got < 2*each {
		t.Errorf("with a delay the answer took %v, expected %v at least", got, 2*each)
	}
	nettest.Must(t, h[0].Uplink.CutTo(h[1].Uplink))
	if ask(t, h[0], h[1].Uplink.V6, 4*each) {
		t.Error("a delayed link is not cut")
	}
	nettest.Must(t, errors.Join(h[0].Uplink.Heal(), h[0].Uplink.Delay(0)))
	took()
	if got := took(); got >= 2*each {
		t.Errorf("after the delay the answer took %v", got)
	}
	nettest.Must(t, capture.Close())
	questions := 0
	for _, f := range capture.Frames() {
		if bytes.HasSuffix(f.Data, []byte("who")) {
			questions++
		}
	}
	if questions != 11 { // six answers, and one question that was cut
		t.Errorf("the capture has %d datagrams, expected 11: each once", questions)
	}
}

// TestSealed: what a capture tells apart. Each row is seen alone.
func TestSealed(t *testing.T) {
	u, h := hosts(t, 2)
	for _, row := range []struct {
		name  string
		speak func(ctx context.Context) error
		wrong string // "": all is sealed
	}{
		{"TLS", func(ctx context.Context) error { return talk(ctx, h, true) }, ""},
		{"TCP without TLS", func(ctx context.Context) error { return talk(ctx, h, false) }, "no head of a TLS record"},
		{"a datagram", func(context.Context) error { _ = ask(t, h[0], h[1].Uplink.V4, time.Second); return nil }, "no WireGuard"},
		{"a packet of the router's range", func(context.Context) error {
			return h[0].Do(func() error {
				output, err := exec.Command("sh", "-c", "ip -6 route add fdaa::/16 dev uplink && ip -6 neigh add fdaa::9 lladdr 02:00:00:00:00:09 dev uplink && ! ping -c 1 -W 1 fdaa::9").CombinedOutput()
				if err != nil {
					err = fmt.Errorf("%w: %s", err, output)
				}
				return err
			})
		}, "is a packet from"},
	} {
		t.Run(row.name, func(t *testing.T) {
			capture := nettest.Get[*nettest.Capture](t)(u.Capture())
			nettest.Must(t, row.speak(nettest.Context(t)))
			nettest.Must(t, capture.Close())
			seen, err := nettest.Sealed(capture.Frames())
			if row.wrong == "" && (err != nil || seen.TLS == 0) {
				t.Errorf("got %+v, %v", seen, err)
			}
			if row.wrong != "" && (err == nil || !strings.Contains(err.Error(), row.wrong)) {
				t.Errorf("got %+v, %v, expected an error with %q", seen, err, row.wrong)
			}
		})
	}
}

// talk sends a megabyte from one host to another.
func talk(ctx context.Context, h []*nettest.Host, secret bool) error {
	certificate, err := nettest.NewAuthority("test")
	if err != nil {
		return err
	}
	server, err := certificate.Issue("server", h[1].Uplink.V6)
	if err != nil {
		return err
	}
	var listener net.Listener
	if err := h[1].Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(h[1].Uplink.V6, 0).String())
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	var conn net.Conn
	if err := h[0].Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	}); err != nil {
		return err
	}
	if secret {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{server}})
		conn = tls.Client(conn, &tls.Config{RootCAs: certificate.Pool(), ServerName: h[1].Uplink.V6.String()})
	}
	defer conn.Close()
	const size = 1 << 20
	received := make(chan error, 1)
	go func() {
		accepted, err := listener.Accept()
		if err == nil {
			_, err = io.CopyN(io.Discard, accepted, size)
			accepted.Close()
		}
		received <- err
	}()
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	return <-received
}

// TestPcap: what is written, others can read.
func TestPcap(t *testing.T) {
	u, h := hosts(t, 2)
	capture := nettest.Get[*nettest.Capture](t)(u.Capture())
	if !ask(t, h[0], h[1].Uplink.V6, time.Second) {
		t.Error("no answer")
	}
	nettest.Must(t, capture.Close())
	path := filepath.Join(t.TempDir(), "capture.pcap")
	file := nettest.Get[*os.File](t)(os.Create(path))
	nettest.Must(t, errors.Join(nettest.WritePcap(file, capture.Frames()), file.Close()))
	output, err := exec.Command("tshark", "-r", path, "-Y", "udp.port == 7000", "-T", "fields", "-e", "ipv6.src").Output()
	nettest.Must(t, err)
	if want := h[0].Uplink.V6.String() + "\n" + h[1].Uplink.V6.String() + "\n"; string(output) != want {
		t.Errorf("tshark reads the sources %q, expected %q", output, want)
	}
}
