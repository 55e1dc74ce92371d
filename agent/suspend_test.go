package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// dial connects from inside a Machine.
func dial(m *nettest.Machine, address string) (net.Conn, error) {
	return dialWithin(m, address, 2*time.Second)
}

func dialWithin(m *nettest.Machine, address string, timeout time.Duration) (conn net.Conn, err error) {
	namespace, err := m.Namespace()
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	err = namespace.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp6", address, timeout)
		return err
	})
	return conn, err
}

// echo is a connection to a server that says who it is and then what it hears.
type echo struct {
	net.Conn
	*bufio.Reader
}

func (e echo) Read(b []byte) (int, error) { return e.Reader.Read(b) }

func newEcho(t *testing.T, from *nettest.Machine, address string) echo {
	t.Helper()
	conn := nettest.Get[net.Conn](t)(dial(from, address))
	t.Cleanup(func() { conn.Close() })
	nettest.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	e := echo{conn, bufio.NewReader(conn)}
	nettest.Get[string](t)(e.ReadString('\n'))
	return e
}

func (e echo) says(t *testing.T, word string) {
	t.Helper()
	nettest.Get[int](t)(fmt.Fprintln(e.Conn, word))
	if got := nettest.Get[string](t)(e.ReadString('\n')); got != word+"\n" {
		t.Errorf("the echo of %q is %q", word, got)
	}
}

func suspend(ctx context.Context, m *nettest.Machine) error {
	answer, err := m.Host.Client.SuspendMachineWithResponse(ctx, m.App, m.ID, &api.SuspendMachineParams{})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	return m.Wait(ctx, "suspended")
}

// TestSuspend freezes a server that has a connection through Flycast. The connection
// goes on afterwards, also when the agent was killed meanwhile; new ones go to others.
func TestSuspend(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	pid := nettest.Get[int](t)(p.server.PID())
	conn := newEcho(t, p.client, at(p.vip, vipPort))
	conn.says(t, "before")

	nettest.Must(t, suspend(ctx, p.server))
	if c, err := dial(p.client, at(p.vip, vipPort)); err == nil {
		c.Close()
		t.Error("a connection to an app whose Machines are all suspended was made")
	}
	if out, err := p.server.Exec(ctx, "true"); err == nil || !strings.Contains(err.Error(), "is suspended") {
		t.Errorf("a command in a suspended Machine: %q, %v", out, err)
	}
	other := p.run(ctx, t, "web", nettest.Options{Services: published}, serverArgs...)
	if got := connects(ctx, t, p.client, at(p.vip, vipPort)); got[other.ID] == 0 || got[p.server.ID] != 0 {
		t.Errorf("while one server is suspended, %v answered", got)
	}
	nettest.Must(t, p.KillAgent())
	nettest.Must(t, p.StartAgent(ctx))
	if state := nettest.Get[string](t)(p.server.State(ctx)); state != "suspended" {
		t.Errorf("after the agent was killed it is %s", state)
	}

	nettest.Must(t, p.server.Start(ctx))
	nettest.Must(t, p.server.Wait(ctx, "started"))
	conn.says(t, "after")
	if now := nettest.Get[int](t)(p.server.PID()); now != pid {
		t.Errorf("process %d became %d", pid, now)
	}
	nettest.Must(t, other.Destroy(ctx))
	p.works(ctx, t)

	// A suspended one can be destroyed, and is gone.
	nettest.Must(t, suspend(ctx, p.server))
	nettest.Must(t, p.server.Destroy(ctx))
	p.converged(ctx, t, 1)
}

// TestIPv4OnlyBackend: a server told to bind 0.0.0.0 is reached through Flycast, also
// while no agent runs.
func TestIPv4OnlyBackend(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.server.Destroy(ctx))
	p.server = p.run(ctx, t, "web", nettest.Options{Services: published}, "serve", "-tcp4", "8080", "-udp4", "9000")
	datagrams := func(when string) {
		t.Helper()
		for _, address := range []string{at(p.server.Addr, 9000), at(p.vip, 9000)} {
			if n := p.answered(t, address, 20, 10*time.Second); n != 20 {
				t.Errorf("%s %d of 20 datagrams to %s were answered", when, n, address)
			}
		}
	}
	p.works(ctx, t)
	datagrams("at first")
	nettest.Must(t, nettest.Eventually(ctx, "the API says so", func(ctx context.Context) error {
		answer, err := p.Client.GetMachineWithResponse(ctx, "web", p.server.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if got := fmt.Sprint(answer.JSON200.RelayedPorts); got != "[8080 9000]" {
			return fmt.Errorf("relayed ports are %s", got)
		}
		return nil
	}))
	conn := newEcho(t, p.client, at(p.vip, vipPort))
	nettest.Must(t, p.KillAgent())
	conn.says(t, "without an agent")
	newEcho(t, p.client, at(p.vip, vipPort)).says(t, "and anew")
	datagrams("without an agent")
	nettest.Must(t, p.StartAgent(ctx))
	conn.says(t, "with another")
	p.works(ctx, t)
}
