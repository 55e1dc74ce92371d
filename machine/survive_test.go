package machine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// killSupervisor ends a Machine's supervisor as kill -9 does.
func killSupervisor(t *testing.T, p *machine.Process) {
	t.Helper()
	ids, err := machine.SupervisorProcesses(p)
	if err != nil || len(ids) != 1 {
		t.Fatalf("supervisors %v, %v", ids, err)
	}
	if err := syscall.Kill(ids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestKilledSupervisorTakesItsMachineAlong(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		name := map[bool]string{false: "running", true: "frozen"}[frozen]
		t.Run(name, func(t *testing.T) {
			d := newDriver(t)
			p := start(t, d, shell(name, "sleep 1000 & echo up; wait"))
			waitOutput(t, d, name, "up")
			if frozen {
				if err := p.Freeze(await.Context(t)); err != nil {
					t.Fatal(err)
				}
			}
			killSupervisor(t, p)
			status := wait(t, p)
			if !status.Lost || status.Rebooted || !status.Started || status.Code != 137 {
				t.Errorf("status %+v, expected a lost run with code 137", status)
			}
			ids, err := p.Processes()
			if err != nil || len(ids) != 0 {
				t.Errorf("processes %v are left (%v)", ids, err)
			}
			// And it can run again.
			run(t, d, shell(name, "true"))
		})
	}
}

// TestInitEndsWithItsSupervisor shows that it needs no agent: the one that made
// the Machine is dead, and no other adopts it.
func TestInitEndsWithItsSupervisor(t *testing.T) {
	for _, frozen := range []string{"0", "1"} {
		t.Run("frozen="+frozen, func(t *testing.T) {
			w := newPersistentWorld(t)
			w.store.put(record("i", "setsid sleep 1000 & echo up; wait"))
			w.agentThatDies(t, "started written")
			waitOutput(t, w.driver, "i", "up")
			group := filepath.Join(machine.CgroupOf(w.driver), "i")
			if err := os.WriteFile(filepath.Join(group, "payload", "cgroup.freeze"), []byte(frozen), 0); err != nil {
				t.Fatal(err)
			}
			inside := processesIn(t, filepath.Join(group, "payload"))
			if len(inside) != 3 {
				t.Fatalf("processes %v, expected init, the command and its child", inside)
			}
			for _, id := range processesIn(t, filepath.Join(group, "supervisor")) {
				if err := syscall.Kill(id, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			await.True(t, "no process left", func() bool { return len(processesIn(t, filepath.Join(group, "payload"))) == 0 })
		})
	}
}

// processesIn lists the process ids in a cgroup.
func processesIn(t *testing.T, dir string) []int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, field := range strings.Fields(string(b)) {
		id, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func TestKillTouchesOnlyThePayload(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("k", "exec sleep 1000"))
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, p); status.Code != 137 || status.Lost {
		t.Errorf("status %+v, expected code 137, written by the supervisor", status)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("f", "while :; do echo tick; sleep 0.005; done"))
	waitOutput(t, d, "f", "tick")
	if err := p.Freeze(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	// The supervisor still runs; what it had been given is soon written.
	ids, err := p.Processes()
	if err != nil || len(ids) == 0 {
		t.Fatalf("processes %v, %v", ids, err)
	}
	namespace, err := p.NetNS(await.Context(t))
	if err != nil {
		t.Fatalf("the supervisor is frozen too: %v", err)
	}
	namespace.Close()
	ticks := func() int { return strings.Count(output(t, d, "f"), "tick") }
	before, same := ticks(), 0
	await.True(t, "no more ticks", func() bool {
		if now := ticks(); now != before {
			before, same = now, 0
		} else {
			same++
		}
		return same > 10 // ten looks, at least 50 ms
	})
	if err := p.Thaw(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	await.True(t, "ticks again", func() bool { return ticks() > before })
}

func TestAdoptByAnotherDriver(t *testing.T) {
	config := driverConfig(t)
	first, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	start(t, first, shell("run", "echo up; trap 'exit 6' TERM; while :; do sleep 60 & wait; done"))
	waitOutput(t, first, "run", "up")
	if _, status := run(t, first, shell("ended", "exit 5")); status.Code != 5 {
		t.Fatalf("status %+v", status)
	}
	if _, err := first.Create(await.Context(t), shell("held", "true")); err != nil {
		t.Fatal(err)
	}
	second, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	found, err := second.Adopt(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]*machine.Process)
	for _, p := range found {
		byID[p.ID()] = p
	}
	for id, phase := range map[string]machine.Phase{"run": machine.PhaseRunning, "ended": machine.PhaseEnded, "held": machine.PhaseCreated} {
		if p := byID[id]; p == nil || p.Phase() != phase {
			t.Fatalf("machine %s was not found in phase %s: %+v", id, phase, p)
		}
	}
	if status := byID["ended"].ExitStatus(); status.Code != 5 || status.Lost {
		t.Errorf("status of what ended: %+v", status)
	}
	if err := byID["held"].Start(await.Context(t)); err != nil {
		t.Error(err)
	}
	if status := wait(t, byID["held"]); status.Code != 0 {
		t.Errorf("status of what was held: %+v", status)
	}
	if _, err := second.Create(await.Context(t), shell("run", "true")); err == nil || !strings.Contains(err.Error(), "adopt or stop") {
		t.Errorf("a second run of a running machine: %v, expected an error that says what to do", err)
	}
	if err := byID["run"].Signal(await.Context(t), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, byID["run"]); status.Code != 6 {
		t.Errorf("status of what ran: %+v", status)
	}
}

func TestDriverRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct {
		name   string
		change func(*machine.DriverConfig)
		want   string
	}{
		{"no name", func(c *machine.DriverConfig) { c.Name = "" }, "needs Name"},
		{"a long run directory", func(c *machine.DriverConfig) { c.RunDir = filepath.Join(dir, strings.Repeat("x", 100)) }, "too long"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := machine.DriverConfig{Name: "n", Dir: dir, RunDir: dir, IDDir: dir}
			row.change(&c)
			if _, err := machine.NewDriver(c); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, expected it to say %q", err, row.want)
			}
		})
	}
	d := newDriver(t)
	for _, id := range []string{"", "../x", "UPPER", "0123456789abcde"} {
		if _, err := d.Create(await.Context(t), shell(id, "true")); err == nil {
			t.Errorf("machine id %q was taken", id)
		}
	}
	if _, err := d.Create(await.Context(t), machine.Spec{ID: "empty"}); err == nil {
		t.Error("a machine without a command was taken")
	}
}

func TestCreateThatIsCutOffLeavesNothing(t *testing.T) {
	d := newDriver(t)
	ctx, cancel := context.WithCancel(await.Context(t))
	machine.OnStep(d, func(step string) {
		if step == "supervisor started" {
			cancel()
		}
	})
	if _, err := d.Create(ctx, shell("c", "true")); err == nil {
		t.Fatal("created although its context had ended")
	}
	if _, err := os.Stat(filepath.Join(machine.CgroupOf(d), "c")); !os.IsNotExist(err) {
		t.Errorf("its cgroup is left: %v", err)
	}
	machine.OnStep(d, func(string) {})
	run(t, d, shell("c", "true"))
}

// TestAdoptStuckSupervisors: one that does not answer is ended after its time, and
// holds up neither another one that does not nor any that does.
func TestAdoptStuckSupervisors(t *testing.T) {
	const stuck, timeout = 4, time.Second
	config := driverConfig(t)
	first, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	start(t, first, shell("well", forever))
	for i := range stuck {
		p := start(t, first, shell("stuck"+strconv.Itoa(i), forever))
		ids, err := machine.SupervisorProcesses(p)
		if err != nil || len(ids) != 1 {
			t.Fatalf("supervisors %v, %v", ids, err)
		}
		if err := syscall.Kill(ids[0], syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// Its threads stop one after the other, and the last could still answer.
		await.True(t, "every thread of the supervisor has stopped", func() bool {
			states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", ids[0]))
			for _, path := range states {
				stat, _ := os.ReadFile(path)
				if !bytes.Contains(stat, []byte(") T ")) {
					return false
				}
			}
			return err == nil && len(states) > 0
		})
	}
	config.CreateTimeout = timeout
	second, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	found, err := second.Adopt(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took >= stuck*timeout {
		t.Errorf("it took %v, as if one after the other had been waited for", took)
	}
	for _, p := range found {
		want := machine.PhaseEnded
		if p.ID() == "well" {
			want = machine.PhaseRunning
		}
		if p.Phase() != want {
			t.Errorf("machine %s is %s, expected %s", p.ID(), p.Phase(), want)
		}
	}
	if len(found) != stuck+1 {
		t.Errorf("%d machines were adopted, expected %d", len(found), stuck+1)
	}
}
