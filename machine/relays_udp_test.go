package machine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// echoServer is listener for UDP: its sockets answer with their name and what they
// got. "shared6" is any6 with SO_REUSEADDR, "exact6" that on the Machine's own address.
const echoServer = `python3 -uc '
import os, select, socket
def bind(name):
    s = socket.socket(socket.AF_INET if name == "any4" else socket.AF_INET6, socket.SOCK_DGRAM)
    if name in ("shared6", "exact6"): s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if name in ("any6", "shared6"): s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(({"any4": "0.0.0.0", "exact6": "fdaa:0:18:0:7:0:a:2"}.get(name, "::"), 8080))
    return s
sockets = {}
while True:
    for name in ["any4", "any6", "both", "shared6", "exact6"]:
        wanted = os.path.exists("/tmp/" + name)
        if wanted and name not in sockets:
            try:
                sockets[name] = bind(name)
                print("bound", name)
            except OSError as error:
                print("failed", name, error)
                os.remove("/tmp/" + name)
        if not wanted and name in sockets:
            sockets.pop(name).close()
            print("closed", name)
    for s in select.select(list(sockets.values()), [], [], 0.005)[0]:
        asked, client = s.recvfrom(65535)
        name = next(n for n in sockets if sockets[n] is s)
        s.sendto((name.encode() + b" " + asked)[:65507], client)'`

// askDatagram sends one to a Machine's own address and returns the answer, which must
// come from there, or the error.
func askDatagram(t *testing.T, p *machine.Process, size int) string {
	t.Helper()
	out, _ := probe(t, p, fmt.Sprintf(`python3 -c '
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(5)
try:
    s.connect(("fdaa:0:18:0:7:0:a:2", 8080))
    s.send(b"x" * %d)
    answer = s.recv(65535)
    print(answer.split()[0].decode(), len(answer), end="")
except OSError as error: print(error, end="")'`, size))
	return out
}

// newEchoWorld is a world with a Machine whose UDP server does what it is told to.
func newEchoWorld(t *testing.T, settle, idle time.Duration, sessions int) (*world, *machine.Process) {
	t.Helper()
	w := newWorld(t)
	w.stop()
	w.listen, w.settle, w.idle, w.sessions = time.Hour, settle, idle, sessions
	w.startManager(t)
	m := record("u", echoServer)
	m.Config.Services = []state.Service{{Protocol: "udp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 53}}}}
	w.store.put(m)
	return w, w.process(t, "u")
}

func TestIPv4DatagramServerIsRelayed(t *testing.T) {
	w, p := newEchoWorld(t, time.Millisecond, time.Hour, 10)
	// While it is not relayed it is not started, for there is no limit to the wait.
	if m, _ := w.store.get("u"); m.State != state.Starting {
		t.Errorf("before it has a socket it is %s", m.State)
	}
	probe(t, p, "touch /tmp/any4")
	if m := w.waitFor(t, "u", state.Started); !slices.Equal(m.Relayed, []uint16{8080}) {
		w.waitRelayed(t, "u", 8080)
	}
	for _, size := range []int{1, 1400, 65000, 65507} {
		if got, want := askDatagram(t, p, size), fmt.Sprint("any4 ", min(size+len("any4 "), 65507)); got != want {
			t.Errorf("to %d bytes the answer is %q, expected %q", size, got, want)
		}
	}

	// Without an agent it goes on, and a new agent knows of it.
	w.stop()
	if got := askDatagram(t, p, 1); got != "any4 6" {
		t.Errorf("without an agent: %q", got)
	}
	w.store.order(t, "u", func(m *state.Machine) { m.Relayed = nil })
	w.startManager(t)
	w.waitRelayed(t, "u", 8080)

	// The relay ends with the server's socket, and comes again with it.
	probe(t, p, "rm /tmp/any4")
	w.waitRelayed(t, "u")
	if got := askDatagram(t, p, 1); !strings.Contains(got, "refused") {
		t.Errorf("without a server: %q", got)
	}
	probe(t, p, "touch /tmp/any4")
	w.waitRelayed(t, "u", 8080)
	if got := askDatagram(t, p, 1); got != "any4 6" {
		t.Errorf("with the server again: %q", got)
	}
}

// TestDatagramServerOpensItsPortLater: with IPv6, and still with IPv4. One that does not
// share its ports is refused by the kernel.
func TestDatagramServerOpensItsPortLater(t *testing.T) {
	for _, name := range []string{"shared6", "exact6"} {
		t.Run(name, func(t *testing.T) {
			w, p := newEchoWorld(t, time.Millisecond, time.Hour, 10)
			probe(t, p, "touch /tmp/any4")
			w.waitRelayed(t, "u", 8080)
			probe(t, p, "touch /tmp/any6")
			waitOutput(t, w.driver, "u", "failed any6 [Errno 98] Address already in use")
			probe(t, p, "touch /tmp/"+name)
			waitOutput(t, w.driver, "u", "bound "+name)
			w.waitRelayed(t, "u")
			await.True(t, "the server has its port alone", func() bool {
				return strings.HasPrefix(askDatagram(t, p, 1), name)
			})
			// Alone with IPv4 again, it is relayed again.
			probe(t, p, "rm /tmp/"+name)
			w.waitRelayed(t, "u", 8080)
			if got := askDatagram(t, p, 1); got != "any4 6" {
				t.Errorf("with IPv4 only again: %q", got)
			}
		})
	}
}

func TestDatagramServerOfBothProtocolsIsNotRelayed(t *testing.T) {
	for _, names := range [][]string{{"both"}, {"any6"}, {"any4", "any6"}} {
		t.Run(strings.Join(names, ", then "), func(t *testing.T) {
			w, p := newEchoWorld(t, time.Hour, time.Hour, 10)
			for _, name := range names {
				probe(t, p, "touch /tmp/"+name)
				waitOutput(t, w.driver, "u", "bound "+name)
			}
			w.waitFor(t, "u", state.Started)
			if got := askDatagram(t, p, 1); !strings.HasPrefix(got, names[len(names)-1]+" ") {
				t.Errorf("its address answers %q", got)
			}
			w.waitRelayed(t, "u")
		})
	}
}

// TestManyDatagramClients: from however many ports they come, the relay has no more
// sockets than it may, and none once nothing passes.
func TestManyDatagramClients(t *testing.T) {
	const sessions = 5
	for _, row := range []struct {
		name string
		idle time.Duration
		want string
	}{
		{"bound", time.Hour, fmt.Sprint(sessions)},
		{"idle", 20 * time.Millisecond, "0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w, p := newEchoWorld(t, time.Millisecond, row.idle, sessions)
			probe(t, p, "touch /tmp/any4")
			w.waitRelayed(t, "u", 8080)
			out, code := probe(t, p, `python3 -c '
import socket
for i in range(300):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect(("fdaa:0:18:0:7:0:a:2", 8080))
    s.send(b"%d" % i)
    assert s.recv(100) == b"any4 %d" % i
    s.close()'`)
			if code != 0 {
				t.Fatalf("a client had no answer: %s", out)
			}
			// Sockets of IPv4 that are connected to port 8080.
			await.True(t, row.want+" sessions", func() bool {
				out, _ := probe(t, p, "grep -c ' 0100007F:1F90 01 ' /proc/net/udp")
				return strings.TrimSpace(out) == row.want
			})
		})
	}
}
