package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/state"
)

// TestInsideOfAnotherHost: what is asked of one host about a Machine of another.
func TestInsideOfAnotherHost(t *testing.T) {
	ctx := nettest.Context(t)
	f := &twoHosts{Fleet: nettest.StartFleet(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{"--host-expiry", "3s", "--heartbeat-interval", "500ms"}}})}
	f.org(ctx, t, "acme")
	run := func(command string, o nettest.Options) *nettest.Machine {
		m := nettest.Get[*nettest.Machine](t)(f.Hosts[1].Run(ctx, "acme-there", o, "sh", "-c", command))
		nettest.Must(t, f.Settle(ctx))
		return m
	}
	t.Run("exec", func(t *testing.T) {
		m := run("sleep 1000", nettest.Options{})
		testExecElsewhere(ctx, t, f, m)
	})
	t.Run("signals", func(t *testing.T) {
		m := run(`trap 'echo heard' USR1; while :; do sleep 0.1; done`, nettest.Options{Restart: "no"})
		testSignalsElsewhere(ctx, t, f, m)
	})
	t.Run("life", func(t *testing.T) { testLifeElsewhere(ctx, t, f, run("sleep 1000", nettest.Options{})) })
	t.Run("status", func(t *testing.T) { testStatusElsewhere(ctx, t, f) })
	t.Run("logs, and an agent that is killed", func(t *testing.T) {
		m := run(`i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done`, nettest.Options{})
		testLogsElsewhere(ctx, t, f, m)
	})
}

// exec asks the first host.
func (f *twoHosts) exec(ctx context.Context, m *nettest.Machine, r api.ExecRequest) (api.ExecResult, error) {
	answer, err := f.Hosts[0].Client.ExecMachineWithResponse(ctx, m.App, m.ID, r)
	if err := api.Check(answer, err); err != nil {
		return api.ExecResult{}, err
	}
	return *answer.JSON200, nil
}

func testExecElsewhere(ctx context.Context, t *testing.T, f *twoHosts, m *nettest.Machine) {
	t.Helper()
	got := nettest.Get[api.ExecResult](t)(f.exec(ctx, m, api.ExecRequest{
		Command: []string{"sh", "-c", "cat; hostname >&2; exit 3"}, Stdin: "given\n",
	}))
	if want := (api.ExecResult{ExitCode: 3, Stdout: "given\n", Stderr: m.ID + "\n"}); got != want {
		t.Errorf("exec: %+v, expected %+v", got, want)
	}
	// Who goes away has the command end, on the other host.
	limited, cancel := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() {
		_, err := f.exec(limited, m, api.ExecRequest{Command: []string{"sh", "-c", "exec sleep 999"}})
		gone <- err
	}()
	running := func(want bool) error {
		return nettest.Eventually(ctx, fmt.Sprintf("whether the command runs is %t", want), func(ctx context.Context) error {
			out, err := m.Exec(ctx, "sh", "-c", "grep -lz '^999$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l")
			if err == nil && (strings.TrimSpace(out) != "0") != want {
				err = fmt.Errorf("%s processes are it", strings.TrimSpace(out))
			}
			return err
		})
	}
	nettest.Must(t, running(true))
	cancel()
	if err := <-gone; err == nil {
		t.Error("who went away has an answer")
	}
	nettest.Must(t, running(false))
}

func testSignalsElsewhere(ctx context.Context, t *testing.T, f *twoHosts, m *nettest.Machine) {
	t.Helper()
	first := f.Hosts[0].Client
	signal := func(name string) error {
		return api.Check(first.SignalMachineWithResponse(ctx, m.App, m.ID, &api.SignalMachineParams{}, api.SignalRequest{Signal: name}))
	}
	nettest.Must(t, signal("usr1"))
	nettest.Must(t, nettest.Eventually(ctx, "the command heard it", func(ctx context.Context) error {
		answer, err := first.MachineLogsWithResponse(ctx, m.App, m.ID, &api.MachineLogsParams{})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if string(answer.Body) != "heard\n" {
			return fmt.Errorf("it wrote %q", answer.Body)
		}
		return nil
	}))
	nettest.Must(t, signal("kill"))
	nettest.Must(t, api.Check(first.WaitMachineWithResponse(ctx, m.App, m.ID, &api.WaitMachineParams{State: api.WaitMachineParamsStateStopped, Timeout: 60})))
	answer, err := first.GetMachineWithResponse(ctx, m.App, m.ID)
	nettest.Must(t, api.Check(answer, err))
	if exit := answer.JSON200.LastExit(); exit == nil || exit.ExitCode != 137 || exit.RequestedStop {
		t.Errorf("the command ended with %+v, expected 137 by itself", exit)
	}
}

// testLifeElsewhere: what is written needs no other agent to be asked, and its outcome is
// seen from everywhere.
func testLifeElsewhere(ctx context.Context, t *testing.T, f *twoHosts, m *nettest.Machine) {
	t.Helper()
	seen := *m
	seen.Host = f.Hosts[0]
	nettest.Must(t, api.Check(seen.Host.Client.SuspendMachineWithResponse(ctx, m.App, m.ID, &api.SuspendMachineParams{})))
	nettest.Must(t, seen.Wait(ctx, "suspended"))
	if _, err := f.exec(ctx, m, api.ExecRequest{Command: []string{"true"}}); !api.IsStatus(err, http.StatusPreconditionFailed) {
		t.Errorf("exec in one that is suspended: %v", err)
	}
	nettest.Must(t, seen.Start(ctx))
	nettest.Must(t, seen.Stop(ctx))
	nettest.Must(t, seen.Wait(ctx, "stopped"))
	nettest.Must(t, seen.Destroy(ctx))
}

// testStatusElsewhere: what only a Machine's host finds out is in its record.
func testStatusElsewhere(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	m := nettest.Get[*nettest.Machine](t)(f.Hosts[1].Run(ctx, "acme-there", nettest.Options{
		Services: []string{fmt.Sprintf("%d:%d/tcp", vipPort, tcpPort)}, Checks: []api.HealthCheck{{Type: "tcp", Interval: api.DurationValue(time.Second)}},
	}, f.Hosts[1].Payload(serveIPv4...)...))
	nettest.Must(t, nettest.Eventually(ctx, "its check and its relay are seen on the other host", func(ctx context.Context) error {
		answer, err := f.Hosts[0].Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if record := answer.JSON200; record.PassingChecks() != 1 || len(record.RelayedPorts) != 1 || record.RelayedPorts[0] != tcpPort || record.HostName != f.Hosts[1].Name {
			return fmt.Errorf("its checks are %+v, its relayed ports %v, its host is %s", record.Checks, record.RelayedPorts, record.HostName)
		}
		return nil
	}))
	// What its record has not: asked of the other host, it is as its own host says.
	fields, _ := sixpn.Parse(m.Addr)
	miss(ctx, t, m, sixpn.MachineAddr(fields.Network, fields.Host, fields.Machine+1000))
	nettest.Must(t, nettest.Eventually(ctx, "its port and its check are seen on the other host", func(ctx context.Context) error {
		status, err := f.Hosts[1].Status(ctx)
		if err != nil {
			return err
		}
		answer, err := f.Hosts[0].Client.GetMachineLiveWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		live := answer.JSON200
		for _, port := range status.Ports {
			if port.MachineID == m.ID && cmp.Equal(live.Port, &port) && port.RxPackets > 0 && slices.ContainsFunc(live.Drops, func(d api.DropStatus) bool { return d.Reason == "no_machine" }) &&
				len(live.Checks) == 1 && live.Checks[0].Status == state.CheckPassing && live.HostName == f.Hosts[1].Name {
				return nil
			}
		}
		return fmt.Errorf("%+v with port %+v; its own host says %+v", live, live.Port, status.Ports) // its checks count too
	}))
}

// testLogsElsewhere: what is followed breaks off with the agent of the Machine's host,
// which is said at once while it is away, and is whole when it is asked for again.
func testLogsElsewhere(ctx context.Context, t *testing.T, f *twoHosts, m *nettest.Machine) {
	t.Helper()
	client := f.Hosts[0].Client
	follow := func() *bufio.Scanner {
		answer, err := client.MachineLogs(ctx, m.App, m.ID, &api.MachineLogsParams{Follow: true})
		nettest.Must(t, api.CheckResponse(answer, err))
		t.Cleanup(func() { answer.Body.Close() })
		return bufio.NewScanner(answer.Body)
	}
	read := func(lines *bufio.Scanner, first, last int) {
		t.Helper()
		for i := first; i <= last; i++ {
			if !lines.Scan() || lines.Text() != strconv.Itoa(i) {
				t.Fatalf("line %q, error %v, expected %d", lines.Text(), lines.Err(), i)
			}
		}
	}
	lines := follow()
	read(lines, 0, 20)
	second := f.Hosts[1]
	nettest.Must(t, second.KillAgent())
	for lines.Scan() {
	}
	if lines.Err() == nil {
		t.Error("the log ended well when the agent was killed")
	}
	refused := func(what, says string) {
		t.Helper()
		nettest.Must(t, nettest.Eventually(ctx, what, func(ctx context.Context) error {
			began := time.Now()
			_, err := f.exec(ctx, m, api.ExecRequest{Command: []string{"true"}})
			if !api.IsStatus(err, http.StatusServiceUnavailable) || !strings.Contains(err.Error(), second.Name) || time.Since(began) > nettest.Slow(5*time.Second) {
				return nettest.Final(fmt.Errorf("after %v: %w", time.Since(began), err))
			}
			if !strings.Contains(err.Error(), says) {
				return err
			}
			return nil
		}))
	}
	refused("its agent does not answer", "nothing was done")
	refused("its host is lost", "is lost since 2")
	nettest.Must(t, second.StartAgent(ctx))
	nettest.Must(t, nettest.Eventually(ctx, "its host answers again", func(ctx context.Context) error {
		_, err := f.exec(ctx, m, api.ExecRequest{Command: []string{"true"}})
		return err
	}))
	lines = follow()
	read(lines, 0, 100) // none is missing of those that were written meanwhile
}

// TestMovedAddress: a host whose agent begins at another address of the underlay waits for
// the end of its old lease, and is found there by the mesh and by the other agents.
func TestMovedAddress(t *testing.T) {
	ctx := nettest.Context(t)
	f := startTwoHosts(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{"--host-expiry", "3s", "--heartbeat-interval", "500ms"}}})
	first, second := f.Hosts[0], f.Hosts[1]
	peers := nettest.Get[[]wgtypes.Peer](t)(first.MeshPeers())
	moved := netip.AddrPortFrom(second.Uplink.V4, 41821)
	nettest.Must(t, second.KillAgent())
	nettest.Must(t, second.StartAgent(ctx, "--underlay", moved.String()))
	nettest.Must(t, nettest.Eventually(ctx, "the mesh has followed", func(context.Context) error {
		now, err := first.MeshPeers()
		if err == nil && (len(now) != 1 || now[0].Endpoint.String() != moved.String() || now[0].PublicKey != peers[0].PublicKey) {
			err = fmt.Errorf("the peers are %+v", now)
		}
		return err
	}))
	nettest.Must(t, f.Settle(ctx))
	reach(ctx, t, f.here, f.there.Addr)
	reach(ctx, t, f.there, f.here.Addr)
	if got := nettest.Get[api.ExecResult](t)(f.exec(ctx, f.there, api.ExecRequest{Command: []string{"hostname"}})); got.Stdout != f.there.ID+"\n" {
		t.Errorf("exec there: %+v", got)
	}
}
