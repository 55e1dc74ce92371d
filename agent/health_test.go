package agent_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

const (
	healthPort     = 8081
	healthInterval = time.Second
)

// checkedServer runs a server whose health one can break: its service is checked on
// another port, so that it goes on to answer.
func (p *pair) checkedServer(ctx context.Context, t *testing.T, checks ...api.HealthCheck) *nettest.Machine {
	t.Helper()
	web := strings.Join(p.Payload("web", "-sick", "/tmp/sick", fmt.Sprintf("[::]:%d", healthPort)), " ")
	serve := strings.Join(p.Payload(serverArgs...), " ")
	return nettest.Get[*nettest.Machine](t)(p.Host.Run(ctx, "web", nettest.Options{Services: published, Checks: checks},
		"sh", "-c", web+" & exec "+serve))
}

func healthCheck() api.HealthCheck {
	return api.HealthCheck{
		Type: "http", Port: healthPort, Path: "/", Interval: api.DurationValue(healthInterval),
		Timeout: api.DurationValue(time.Second), GracePeriod: api.DurationValue(5 * time.Second),
	}
}

func sicken(ctx context.Context, t *testing.T, m *nettest.Machine) {
	t.Helper()
	nettest.Get[string](t)(m.Exec(ctx, "touch", "/tmp/sick"))
}

func cure(ctx context.Context, t *testing.T, m *nettest.Machine) {
	t.Helper()
	nettest.Get[string](t)(m.Exec(ctx, "rm", "/tmp/sick"))
}

// check waits until a Machine's first check has a status, and the data plane knows it.
// It returns what the check says.
func check(ctx context.Context, t *testing.T, m *nettest.Machine, status string) (output string) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "the check of "+m.ID+" is "+status, func(ctx context.Context) error {
		answer, err := m.Host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		checks := answer.JSON200.Checks
		if len(checks) == 0 || checks[0].Status != status {
			return fmt.Errorf("checks are %+v", checks)
		}
		output = checks[0].Output
		return nil
	}))
	nettest.Must(t, m.Host.Settle(ctx))
	return output
}

// newHealthPair is a client, and two servers of one app that are healthy.
func newHealthPair(ctx context.Context, t *testing.T) (p *pair, first, second *nettest.Machine) {
	t.Helper()
	p = &pair{Host: nettest.Start(ctx, t, nettest.Config{})}
	nettest.Must(t, p.CreateOrg(ctx, "acme"))
	nettest.Must(t, p.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, p.CreateApp(ctx, "client", "acme"))
	first, second = p.checkedServer(ctx, t, healthCheck()), p.checkedServer(ctx, t, healthCheck())
	p.server = first
	p.client = p.run(ctx, t, "client", nettest.Options{}, "idle")
	p.vip = nettest.Get[netip.Addr](t)(p.AllocateVIP(ctx, "web", ""))
	check(ctx, t, first, "passing")
	check(ctx, t, second, "passing")
	return p, first, second
}

// answers is how many of some new connections each server took.
func (p *pair) answers(ctx context.Context, t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	for range 4 {
		for id, n := range connects(ctx, t, p.client, at(p.vip, vipPort)) {
			all[id] += n
		}
	}
	return all
}

// TestFailingBackend: one that fails takes no new connection once that was noticed,
// within an interval by the prober's own clock (TestCheckInterval of flycast), and keeps
// those it has; when all fail, all are used.
func TestFailingBackend(t *testing.T) {
	ctx := nettest.Context(t)
	p, first, second := newHealthPair(ctx, t)
	traffic := p.run(ctx, t, "client", nettest.Options{Linger: 20 * time.Second}, "traffic", "-rate", "200",
		"-stream", "vip="+at(p.vip, vipPort), "-open", "vip="+at(p.vip, vipPort))
	if by := p.answers(ctx, t); by[first.ID] == 0 || by[second.ID] == 0 {
		t.Errorf("while all are healthy %v answered, expected both", by)
	}

	sicken(ctx, t, first)
	if output := check(ctx, t, first, "critical"); !strings.Contains(output, "503") {
		t.Errorf("the check that fails says %q", output)
	}
	if by := p.answers(ctx, t); by[first.ID] != 0 {
		t.Errorf("although the first fails %v answered", by)
	}

	sicken(ctx, t, second)
	check(ctx, t, second, "critical")
	if by := p.answers(ctx, t); by[first.ID] == 0 || by[second.ID] == 0 {
		t.Errorf("while all fail %v answered, expected both", by)
	}

	cure(ctx, t, first)
	check(ctx, t, first, "passing")
	if by := p.answers(ctx, t); by[second.ID] != 0 {
		t.Errorf("although only the first was mended %v answered", by)
	}
	cure(ctx, t, second)
	check(ctx, t, second, "passing")
	nettest.EndTraffic(ctx, t, traffic) // nothing of it noticed
}

// TestHealthOverRestarts: what a check said outlives the agent, not the run.
func TestHealthOverRestarts(t *testing.T) {
	ctx := nettest.Context(t)
	p, first, second := newHealthPair(ctx, t)
	sicken(ctx, t, first)
	check(ctx, t, first, "critical")
	nettest.Must(t, p.KillAgent())
	if n := p.answered(t, at(p.vip, udpPort), 20, 5*time.Second); n != 20 {
		t.Errorf("without an agent %d of 20 datagrams were answered", n)
	}
	nettest.Must(t, p.StartAgent(ctx))
	if by := p.answers(ctx, t); by[first.ID] != 0 {
		t.Errorf("right after the agent's restart %v answered, although the first fails", by)
	}
	check(ctx, t, first, "critical")
	check(ctx, t, second, "passing")

	// The next run has a /tmp of its own, in which nobody is sick.
	nettest.Must(t, first.Stop(ctx))
	nettest.Must(t, first.Wait(ctx, "stopped"))
	answer, err := p.Client.GetMachineWithResponse(ctx, first.App, first.ID)
	nettest.Must(t, api.Check(answer, err))
	if checks := answer.JSON200.Checks; len(checks) != 0 {
		t.Errorf("a Machine that is stopped still has checks: %+v", checks)
	}
	nettest.Must(t, first.Start(ctx))
	check(ctx, t, first, "passing")
	if by := p.answers(ctx, t); by[first.ID] == 0 || by[second.ID] == 0 {
		t.Errorf("when both are healthy again %v answered, expected both", by)
	}
}

// TestChecksOfAllKinds: TCP and HTTP, of a service and of the Machine, as they are
// when a real Machine answers, refuses or says nothing; and who it is that asks.
func TestChecksOfAllKinds(t *testing.T) {
	ctx := nettest.Context(t)
	p := &pair{Host: nettest.Start(ctx, t, nettest.Config{})}
	nettest.Must(t, p.CreateOrg(ctx, "acme"))
	nettest.Must(t, p.CreateApp(ctx, "web", "acme"))
	second := api.DurationValue(time.Second)
	config := api.MachineConfig{
		Init: api.Init{Exec: []string{"python3", "-c", listener}},
		Services: []api.Service{{
			Protocol: "tcp", InternalPort: tcpPort, Ports: []api.ServicePort{{Port: vipPort}},
			Checks: []api.HealthCheck{{Type: "tcp", Interval: second}, {Type: "http", Interval: second, Timeout: second}},
		}},
		Checks: map[string]api.HealthCheck{
			"refused": {Type: "tcp", Port: 8099, Interval: second, Timeout: second},
			"silent":  {Type: "http", Port: 8082, Interval: second, Timeout: api.DurationValue(500 * time.Millisecond)},
		},
	}
	answer, err := p.Client.CreateMachineWithResponse(ctx, "web", &api.CreateMachineParams{}, api.CreateMachineRequest{Config: config})
	nettest.Must(t, api.Check(answer, err))
	m := &nettest.Machine{Host: p.Host, App: "web", ID: answer.JSON200.ID, Addr: netip.MustParseAddr(answer.JSON200.PrivateIP)}
	nettest.Must(t, m.Wait(ctx, "started"))
	want := map[string][2]string{
		"servicecheck-00-tcp-8080":  {"passing", "connected to"},
		"servicecheck-01-http-8080": {"passing", "200 OK"},
		"refused":                   {"critical", "refused"},
		"silent":                    {"critical", "no answer"},
	}
	nettest.Must(t, nettest.Eventually(ctx, "all checks say what is so", func(ctx context.Context) error {
		answer, err := p.Client.GetMachineWithResponse(ctx, "web", m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		for _, c := range answer.JSON200.Checks {
			if w := want[c.Name]; c.Status != w[0] || !strings.Contains(c.Output, w[1]) {
				return fmt.Errorf("check %+v, expected %v", c, w)
			}
		}
		if len(answer.JSON200.Checks) != len(want) {
			return fmt.Errorf("%d checks, expected %d", len(answer.JSON200.Checks), len(want))
		}
		return nil
	}))
	log := nettest.Get[string](t)(m.Logs(ctx))
	if agent := sixpn.AgentAddr(fieldsOf(m).Network, fieldsOf(m).Host); !strings.Contains(log, "from "+agent.String()) {
		t.Errorf("the server saw %q, expected checks from %s", log, agent)
	}
}

// listener answers on 8080 and says who asked, and takes connections on 8082 in
// silence.
const listener = `
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("from", self.client_address[0], flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args): pass
mute = socket.socket(socket.AF_INET6)
mute.bind(("::", 8082))
mute.listen()
Server(("::", 8080), Handler).serve_forever()
`
