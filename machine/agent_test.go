package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// agentEnv holds the agentOrder of an agent process.
const agentEnv = "SIXPN_TEST_AGENT"

// agentOrder is what an agent process shall do until it kills itself.
type agentOrder struct {
	Name, Dir, RunDir, IDDir, Cgroup string
	Store                            string // path of a memoryStore
	KillAt                           string // the step after which it dies, "" for never
}

// agentMain is the agent process of tests that kill it: a Manager over a store
// in a file.
func agentMain() bool {
	text := os.Getenv(agentEnv)
	if text == "" {
		return false
	}
	if err := runAgent(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func runAgent(text string) error {
	var order agentOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	d, err := machine.NewDriver(machine.DriverConfig{Name: order.Name, Dir: order.Dir, RunDir: order.RunDir, IDDir: order.IDDir, Cgroup: order.Cgroup, Log: log})
	if err != nil {
		return err
	}
	machine.OnStep(d, func(step string) {
		if step == order.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	j := &journal{}
	store := newMemoryStore(j)
	if err := store.load(order.Store); err != nil {
		return err
	}
	m, err := machine.NewManager(machine.ManagerConfig{Name: order.Name, Driver: d, Store: store, Ports: newMemoryPorts(j), Log: log})
	if err != nil {
		return err
	}
	return m.Run(context.Background())
}

// agentThatDies runs an agent over the world's records until it has reached a
// step, and takes over the records it left.
func (w *world) agentThatDies(t *testing.T, killAt string) {
	t.Helper()
	order, err := json.Marshal(agentOrder{
		Name: w.config.Name, Dir: w.config.Dir, RunDir: w.config.RunDir, IDDir: w.config.IDDir,
		Cgroup: filepath.Dir(machine.CgroupOf(w.driver)), Store: w.store.path, KillAt: killAt,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := await.Context(t)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), agentEnv+"="+string(order))
	// Files: a pipe would stay open in nobody, but be waited for.
	stderr, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	err = cmd.Run()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL || ctx.Err() != nil {
		said, _ := os.ReadFile(stderr.Name())
		t.Fatalf("the agent ended with %v before it reached %q: %s", err, killAt, said)
	}
	if err := w.store.load(w.store.path); err != nil {
		t.Fatal(err)
	}
}

// newPersistentWorld has no manager yet, and a store that agents can share one
// after another.
func newPersistentWorld(t *testing.T) *world {
	t.Helper()
	j := &journal{}
	w := &world{config: driverConfig(t), store: newMemoryStore(j), ports: newMemoryPorts(j), journal: j}
	w.store.path = filepath.Join(t.TempDir(), "store.json")
	var err error
	if w.driver, err = machine.NewDriver(w.config); err != nil {
		t.Fatal(err)
	}
	return w
}

// left counts what there is of Machines: directories, sockets, id ranges,
// cgroups and devices.
func (w *world) left(t *testing.T) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for what, dir := range map[string]string{
		"directories": w.config.Dir, "sockets": w.config.RunDir, "ranges": w.config.IDDir, "cgroups": machine.CgroupOf(w.driver),
	} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() || what == "sockets" || what == "ranges" {
				counts[what]++
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			counts["devices"]++
		}
	}
	return counts
}

func TestAgentKilledWhileItStartsAMachine(t *testing.T) {
	for _, step := range []string{
		"starting written", "ids claimed", "record written", "cgroup made", "socket made", "supervisor started", "machine created",
		"namespace opened", "device made", "port added", "guest configured", "command started", "started written",
	} {
		t.Run(step, func(t *testing.T) {
			w := newPersistentWorld(t)
			w.store.put(record("k", forever))
			w.agentThatDies(t, step)
			w.startManager(t)
			<-w.manager.Adopted()
			w.waitFor(t, "k", state.Started)
			waitOutput(t, w.driver, "k", "up")
			p, err := w.manager.Process("k")
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := w.ports.get("k"); !ok {
				t.Error("it runs without a port")
			}
			// The shell and its sleep, under init: one run, nothing of another.
			await.True(t, "three processes", func() bool {
				ids, err := p.Processes()
				return err == nil && len(ids) == 3
			})
			w.expectLeft(t, map[string]int{"directories": 1, "sockets": 1, "ranges": 1, "cgroups": 1, "devices": 1})
		})
	}
}

func TestAgentKilledWhileItStopsAMachine(t *testing.T) {
	for _, step := range []string{"stopping written", "tables applied", "command ended", "stopped written", "port removed"} {
		t.Run(step, func(t *testing.T) {
			w := newPersistentWorld(t)
			w.store.put(record("k", forever))
			w.agentThatDies(t, "started written")
			w.store.order(t, "k", func(m *state.Machine) { m.Desired = state.Stopped })
			w.agentThatDies(t, step)
			w.startManager(t)
			m := w.waitFor(t, "k", state.Stopped)
			if m.ExitCode == nil {
				t.Error("its exit code was lost")
			}
			w.expectLeft(t, map[string]int{"directories": 1, "ranges": 1})
		})
	}
}

func TestAgentKilledWhileItDestroysAMachine(t *testing.T) {
	for _, step := range []string{"stopping written", "command ended", "port removed", "destroying written", "directory removed", "record removed"} {
		t.Run(step, func(t *testing.T) {
			w := newPersistentWorld(t)
			w.store.put(record("k", forever))
			w.agentThatDies(t, "started written")
			w.store.order(t, "k", func(m *state.Machine) { m.Desired = state.Destroyed })
			w.agentThatDies(t, step)
			w.startManager(t)
			w.waitGone(t, "k")
			w.expectLeft(t, map[string]int{})
		})
	}
}

func (w *world) expectLeft(t *testing.T, want map[string]int) {
	t.Helper()
	await.True(t, fmt.Sprintf("what is left is %v", want), func() bool {
		return fmt.Sprint(w.left(t)) == fmt.Sprint(want)
	})
}

func TestHostStartedAgain(t *testing.T) {
	for _, row := range []struct {
		policy string
		state  state.MachineState
	}{
		{"no", state.Stopped},
		{"on-failure", state.Started},
		{"always", state.Started},
	} {
		t.Run(row.policy, func(t *testing.T) {
			w := newPersistentWorld(t)
			m := record("k", forever)
			m.Config.Restart = state.Restart{Policy: row.policy, MaxRetries: 1}
			w.store.put(m)
			w.startManager(t)
			waitOutputOf(t, w, "k", "up")
			p, err := w.manager.Process("k")
			if err != nil {
				t.Fatal(err)
			}
			w.stop()
			// What a new start of the host leaves: the record of another boot, and
			// none of what is in memory.
			if err := machine.KillWithSupervisor(p); err != nil {
				t.Fatal(err)
			}
			wait(t, p)
			forgetBoot(t, filepath.Join(w.config.Dir, "k", "record.json"))
			if err := os.RemoveAll(w.config.IDDir); err != nil {
				t.Fatal(err)
			}
			w.startManager(t)
			await.True(t, "the policy is applied", func() bool {
				m, _ = w.store.get("k")
				return m.State == row.state && m.ExitCode != nil
			})
			if row.state == state.Stopped && m.Message != "the host was started again while it ran" {
				t.Errorf("message %q does not say that the host was started again", m.Message)
			}
			if row.state == state.Started {
				await.True(t, "two runs", func() bool { return bytes.Count([]byte(output(t, w.driver, "k")), []byte("up")) == 2 })
			}
		})
	}
}

// forgetBoot makes a record one of another boot.
func forgetBoot(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	r["boot_id"] = "another"
	if b, err = json.Marshal(r); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
