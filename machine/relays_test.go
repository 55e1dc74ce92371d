package machine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// listener does what files tell it to: while /tmp/NAME is there it has a socket that
// listens and answers with NAME. The names are "any4", "any6", "both", "mapped" and
// "shared6", which is any6 with SO_REUSEPORT.
const listener = `python3 -uc '
import os, socket, threading, time
def bind(name):
    kind = socket.AF_INET if name == "any4" else socket.AF_INET6
    s = socket.socket(kind, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if name == "shared6": s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if name in ("any6", "shared6"): s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(({"any4": "0.0.0.0", "mapped": "::ffff:0.0.0.0"}.get(name, "::"), 8080))
    s.listen()
    s.settimeout(0.01)
    return s
def answer(c, name):
    with c:
        c.settimeout(20)
        asked = b""
        while True:
            more = c.recv(4096)
            if not more: break
            asked += more
        c.sendall(name.encode() + b" " + asked)
sockets = {}
while True:
    for name in ["any4", "any6", "both", "mapped", "shared6"]:
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
    for name, s in list(sockets.items()):
        try: c, _ = s.accept()
        except OSError: continue
        threading.Thread(target=answer, args=(c, name)).start()
    time.sleep(0.005)'`

// ask connects to a Machine's own address and returns the answer, or the error.
const ask = `python3 -c '
import socket
try:
    with socket.create_connection(("fdaa:0:18:0:7:0:a:2", 8080), 5) as s:
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        print(s.recv(100).decode(), end="")
except OSError as error: print(error, end="")'`

// newRelayWorld is a world with a Machine whose server does what it is told to.
func newRelayWorld(t *testing.T, id string, settle time.Duration) (*world, *machine.Process) {
	t.Helper()
	w := newWorld(t)
	w.stop()
	w.listen, w.settle = time.Hour, settle
	w.startManager(t)
	m := record(id, listener)
	m.Config.Services = []state.Service{{Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}}}}
	w.store.put(m)
	return w, w.process(t, id)
}

// waitRelayed waits until a Machine's record says this of its relayed ports.
func (w *world) waitRelayed(t *testing.T, id string, want ...uint16) {
	t.Helper()
	await.True(t, fmt.Sprintf("relayed ports %v", want), func() bool {
		m, _ := w.store.get(id)
		return slices.Equal(m.Relayed, want)
	})
}

func expectAnswer(t *testing.T, p *machine.Process, want string) {
	t.Helper()
	if got, _ := probe(t, p, ask); !strings.Contains(got, want) {
		t.Errorf("its address answers %q, expected %q", got, want)
	}
}

func TestIPv4ServerIsRelayed(t *testing.T) {
	for _, name := range []string{"any4", "mapped"} {
		t.Run(name, func(t *testing.T) {
			w, p := newRelayWorld(t, "r", time.Millisecond)
			probe(t, p, "touch /tmp/"+name)
			waitOutput(t, w.driver, "r", "bound "+name)
			// It counts as started once it can be reached.
			if m := w.waitFor(t, "r", state.Started); !slices.Equal(m.Relayed, []uint16{8080}) {
				w.waitRelayed(t, "r", 8080)
			}
			expectAnswer(t, p, name+" hello")

			// Without an agent it goes on, and a new agent knows of it.
			w.stop()
			expectAnswer(t, p, name+" hello")
			w.store.order(t, "r", func(m *state.Machine) { m.Relayed = nil })
			w.startManager(t)
			w.waitRelayed(t, "r", 8080)

			// The relay ends with the server's socket, and comes again with it.
			probe(t, p, "rm /tmp/"+name)
			w.waitRelayed(t, "r")
			expectAnswer(t, p, "refused")
			probe(t, p, "touch /tmp/"+name)
			w.waitRelayed(t, "r", 8080)
			expectAnswer(t, p, name+" hello")

			// Stopped it has none.
			w.store.order(t, "r", func(m *state.Machine) { m.Desired = state.Stopped })
			w.waitFor(t, "r", state.Stopped)
			w.waitRelayed(t, "r")
		})
	}
}

// TestFlappingServerIsToldSeldom: a server that opens and closes its port all the time
// does not cost the store a write each time, and its last change is told.
func TestFlappingServerIsToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tell, news := machine.RelayedNews()
		told := 0
		hear := func() {
			synctest.Wait()
			select {
			case <-news:
				told++
			default:
			}
		}
		for range 600 { // a minute
			tell()
			hear()
			<-time.After(100 * time.Millisecond)
			hear()
		}
		if told < 6 || told > 13 {
			t.Errorf("told %d times in a minute, expected the first few and one in ten seconds", told)
		}
		before := told
		tell()
		<-time.After(10 * time.Second)
		if hear(); told != before+1 {
			t.Error("the last change was not told")
		}
	})
}

// TestNoAgentIsNeededToEndARelay: a server that listens anew with IPv6 finds its
// port free.
func TestNoAgentIsNeededToEndARelay(t *testing.T) {
	w, p := newRelayWorld(t, "r", time.Millisecond)
	probe(t, p, "touch /tmp/any4")
	w.waitRelayed(t, "r", 8080)
	w.stop()
	probe(t, p, "rm /tmp/any4")
	await.True(t, "the port is free", func() bool {
		out, _ := probe(t, p, ask)
		return strings.Contains(out, "refused")
	})
	probe(t, p, "touch /tmp/both")
	waitOutput(t, w.driver, "r", "bound both")
	expectAnswer(t, p, "both hello")
	w.startManager(t)
	w.waitFor(t, "r", state.Started)
	w.waitRelayed(t, "r")
}

// TestServerOfBothProtocolsIsNotRelayed: neither with one socket, nor with two of
// which the second is opened a moment later.
func TestServerOfBothProtocolsIsNotRelayed(t *testing.T) {
	for _, names := range [][]string{{"both"}, {"any6"}, {"any4", "any6"}} {
		t.Run(strings.Join(names, ", then "), func(t *testing.T) {
			w, p := newRelayWorld(t, "r", time.Hour)
			for _, name := range names {
				probe(t, p, "touch /tmp/"+name)
				waitOutput(t, w.driver, "r", "bound "+name)
			}
			w.waitFor(t, "r", state.Started)
			expectAnswer(t, p, names[len(names)-1]+" hello")
			w.waitRelayed(t, "r")
		})
	}
}

// TestKilledRelayComesAgain: it is a process of the Machine's, whose root may do
// with it what it likes.
func TestKilledRelayComesAgain(t *testing.T) {
	w, p := newRelayWorld(t, "r", time.Millisecond)
	probe(t, p, "touch /tmp/any4")
	w.waitRelayed(t, "r", 8080)
	before, code := probe(t, p, "pgrep -f ^sixpn-relay")
	if code != 0 {
		t.Fatalf("no relay is found: %q", before)
	}
	probe(t, p, "kill -9 "+before)
	await.True(t, "another relay", func() bool {
		after, _ := probe(t, p, "pgrep -f ^sixpn-relay")
		return after != "" && after != before
	})
	await.True(t, "it relays", func() bool {
		out, _ := probe(t, p, ask)
		return out == "any4 hello"
	})
}

// TestServerOpensItsPortLater: what keeps its IPv4 listener and wants the port with IPv6
// once it is relayed is refused by the kernel, unless it shares its ports.
func TestServerOpensItsPortLater(t *testing.T) {
	w, p := newRelayWorld(t, "r", time.Millisecond)
	probe(t, p, "touch /tmp/any4")
	w.waitRelayed(t, "r", 8080)
	probe(t, p, "touch /tmp/any6")
	waitOutput(t, w.driver, "r", "failed any6 [Errno 98] Address already in use")
	expectAnswer(t, p, "any4 hello")
	probe(t, p, "touch /tmp/shared6")
	waitOutput(t, w.driver, "r", "bound shared6")
	w.waitRelayed(t, "r")
	await.True(t, "the server has its port alone", func() bool {
		out, _ := probe(t, p, ask)
		return out == "shared6 hello"
	})
}
