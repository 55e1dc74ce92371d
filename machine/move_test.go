package machine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// telling says where it is, and ends only once it may.
const telling = `trap 'while ! test -e /tmp/end; do sleep 0.01; done; exit 0' TERM
echo "at $FLY_PRIVATE_IP $(grep fly-local-6pn /etc/hosts | cut -f1) $FLY_REGION $COLOR"; while :; do sleep 60 & wait; done`

const (
	oldAddr = "fdaa:0:18:0:7:0:a:2"
	newAddr = "fdaa:0:19:0:7:0:c:2"
)

// move changes a record as the move of its app does.
func move(m *state.Machine) {
	m.Network, m.Number, m.InstanceID, m.Pending, m.State = 0x19, 0xc, "moved", "moved", state.Stopping
}

func TestMachineMoves(t *testing.T) {
	w := newWorld(t)
	const id = "333333333333aa"
	w.store.put(record(id, telling))
	w.waitFor(t, id, state.Started)
	waitOutput(t, w.driver, id, "at "+oldAddr+" "+oldAddr+" ams")
	old := w.process(t, id)
	w.journal.clear()
	w.store.order(t, id, move)
	// It takes its time to end, and until then is where it was.
	await.True(t, "the tables are right before it ends", func() bool { return len(w.journal.all()) > 0 })
	if port, _ := w.ports.get(id); port.Network != 0x18 || port.Number != 0xa || old.Phase() != machine.PhaseRunning {
		t.Errorf("while the old process is %s the port is %+v", old.Phase(), port)
	}
	if _, code := probe(t, old, "touch /tmp/end"); code != 0 {
		t.Fatal("the process cannot be told to end")
	}
	m := w.waitFor(t, id, state.Started)
	waitOutput(t, w.driver, id, "at "+newAddr+" "+newAddr+" ams")
	if port, _ := w.ports.get(id); port.Network != 0x19 || port.Number != 0xc || m.Pending != "" {
		t.Errorf("the port is %+v, pending %q", port, m.Pending)
	}
	w.expectJournal(t, "applied", "state stopped", "port removed", "state starting", "port added", "state started")
}

// TestMoveMeetsAStart: a move comes between two steps of a start, of which its host
// has not heard yet. The old run, which has the old port, must not make the record,
// which has the new address, say that the Machine is started.
func TestMoveMeetsAStart(t *testing.T) {
	for _, step := range []string{"starting written", "device made", "command started"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			const id = "333333333333cc"
			machine.OnStep(w.driver, func(reached string) {
				m, ok := w.store.get(id)
				if ok && reached == step && m.InstanceID == "first" {
					w.store.order(t, id, move)
				}
				port, ok := w.ports.get(id)
				if m, _ := w.store.get(id); ok && m.State == state.Started && m.Network != port.Network {
					t.Errorf("%s: the record says started in network %v, and the port is in %v", reached, m.Network, port.Network)
				}
			})
			w.store.put(record(id, strings.Replace(telling, "! test -e /tmp/end", "false", 1)))
			await.True(t, "the new run is started", func() bool {
				m, _ := w.store.get(id)
				port, ok := w.ports.get(id)
				return ok && port.Network == 0x19 && m.State == state.Started
			})
		})
	}
}

// TestMoveSurvivesAgents ends the agent between any two steps of a move. Whatever
// runs, it has the port of where it runs.
func TestMoveSurvivesAgents(t *testing.T) {
	for _, step := range []string{
		"tables applied", "command ended", "stopped written", "port removed", "starting written",
		"record written", "supervisor started", "machine created", "device made", "port added", "guest configured", "command started", "started written",
	} {
		t.Run(step, func(t *testing.T) {
			w := newPersistentWorld(t)
			const id = "333333333333bb"
			w.store.put(record(id, strings.Replace(telling, "! test -e /tmp/end", "false", 1)))
			// Not by a manager of this process, which would watch the run to its end.
			w.agentThatDies(t, "started written")
			w.store.order(t, id, move)
			w.agentThatDies(t, step)

			// What the next agent fills new tables with, before anything else.
			left, err := machine.LeftPorts(w.config.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, port := range left {
				if at := addressesInside(t, w, id); at != "" && !strings.Contains(at, fmt.Sprintf("fdaa:0:%x:", uint32(port.Network))) {
					t.Errorf("the port is in network %s, the process has %q", port.Network, at)
				}
			}
			w.startManager(t)
			waitOutput(t, w.driver, id, "at "+newAddr+" "+newAddr)
			w.waitFor(t, id, state.Started)
			await.True(t, "the port is where it runs", func() bool {
				port, _ := w.ports.get(id)
				return port.Network == 0x19 && port.Number == 0xc
			})
			if n := strings.Count(output(t, w.driver, id), "at "+oldAddr); n != 1 {
				t.Errorf("the old run was started %d times", n)
			}
		})
	}
}

// addressesInside are the addresses in the namespace of a Machine's processes, ""
// when none runs.
func addressesInside(t *testing.T, w *world, id string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(machine.CgroupOf(w.driver), id, "payload", "cgroup.procs"))
	if err != nil || len(b) == 0 {
		return ""
	}
	pid, _, _ := strings.Cut(string(b), "\n")
	table, err := os.ReadFile("/proc/" + pid + "/net/if_inet6")
	if err != nil {
		return ""
	}
	var all []string
	for line := range strings.Lines(string(table)) {
		if hex := strings.Fields(line)[0]; strings.HasPrefix(hex, "fdaa") {
			all = append(all, fmt.Sprintf("fdaa:0:%s:", strings.TrimLeft(hex[8:12], "0")))
		}
	}
	return strings.Join(all, " ")
}

// TestUpdateTakesEffect: another configuration comes with another instance.
func TestUpdateTakesEffect(t *testing.T) {
	w := newWorld(t)
	const id = "333333333333cc"
	m := record(id, strings.Replace(telling, "! test -e /tmp/end", "false", 1))
	m.Config.Env = map[string]string{"COLOR": "blue", "FLY_REGION": "mine"}
	w.store.put(m)
	w.waitFor(t, id, state.Started)
	waitOutput(t, w.driver, id, "ams blue") // what the router says is true
	w.store.order(t, id, func(m *state.Machine) {
		m.Config.Env, m.InstanceID, m.Region = map[string]string{"COLOR": "green"}, "second", "fra"
		m.Config.DNS = state.DNS{
			Hostname: "box", Nameservers: []string{"fdaa::3", "2001:db8::53"}, Searches: []string{"internal", "example.com"},
			Options: []state.DNSOption{{Name: "ndots", Value: "2"}, {Name: "rotate"}},
		}
	})
	waitOutput(t, w.driver, id, "fra green")
	w.waitFor(t, id, state.Started)
	out, _ := probe(t, w.process(t, id), "hostname; cat /etc/resolv.conf; getent hosts box")
	want := "box\nnameserver fdaa::3\nnameserver 2001:db8::53\nsearch internal example.com\noptions ndots:2 rotate\n" + oldAddr
	if !strings.HasPrefix(out, want) {
		t.Errorf("inside is %q, expected %q", out, want)
	}
}
