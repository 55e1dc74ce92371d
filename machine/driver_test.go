package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

func TestExitCode(t *testing.T) {
	d := newDriver(t)
	for _, row := range []struct {
		id, script string
		code       int
	}{
		{"zero", "exit 0", 0},
		{"seven", "exit 7", 7},
		{"term", "kill -TERM $$", 128 + 15},
		{"kill", "kill -KILL $$", 128 + 9},
		{"segv", "kill -SEGV $$", 128 + 11},
	} {
		t.Run(row.id, func(t *testing.T) {
			_, status := run(t, d, shell(row.id, row.script))
			if status.Code != row.code || status.Lost {
				t.Errorf("status %+v, expected code %d", status, row.code)
			}
		})
	}
}

func TestOutputIsKept(t *testing.T) {
	d := newDriver(t)
	out, _ := run(t, d, shell("out", "echo one; echo two >&2; printf three"))
	for _, want := range []string{"one\n", "two\n", "three\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
}

func TestCommandDoesNotRunBeforeStart(t *testing.T) {
	d := newDriver(t)
	p, err := d.Create(await.Context(t), shell("held", "echo ran"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Phase() != machine.PhaseCreated {
		t.Errorf("phase %q, expected %q", p.Phase(), machine.PhaseCreated)
	}
	namespace, err := p.NetNS(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	namespace.Close()
	if out := output(t, d, "held"); out != "" {
		t.Errorf("output %q before Start", out)
	}
	if err := p.Signal(await.Context(t), syscall.SIGTERM); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("signal before Start: %v, expected an error that says so", err)
	}
	if err := p.Start(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	wait(t, p)
	if out := output(t, d, "held"); out != "ran\n" {
		t.Errorf("output %q after Start", out)
	}
}

func TestMachineThatCannotBeMadeSaysWhy(t *testing.T) {
	d := newDriver(t)
	spec := shell("host", "true")
	spec.Hostname = strings.Repeat("x", 65)
	for range 5 { // the answer comes in two ways, and one is as good as the other
		if _, err := d.Create(await.Context(t), spec); err == nil || !strings.Contains(err.Error(), "set the host name") {
			t.Fatalf("error %v, expected it to say that the host name was refused", err)
		}
	}
}

// TestAgentsShareCgroup lets two agents have a Machine of one id, as they do while it
// migrates, below one cgroup that both were given.
func TestAgentsShareCgroup(t *testing.T) {
	shared := filepath.Dir(machine.CgroupOf(newDriver(t)))
	var drivers [2]*machine.Driver
	for i := range drivers {
		c := driverConfig(t)
		c.Cgroup = shared
		d, err := machine.NewDriver(c)
		if err != nil {
			t.Fatal(err)
		}
		drivers[i] = d
	}
	start(t, drivers[0], shell("moved", "exec sleep 60"))
	here := start(t, drivers[1], shell("moved", "exec sleep 60"))
	if err := drivers[0].Remove(await.Context(t), "moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.NetNS(await.Context(t)); err != nil {
		t.Errorf("the Machine of one agent ended with the other's: %v", err)
	}
}

func TestSupervisorThatCannotWorkSaysWhy(t *testing.T) {
	d := newDriver(t)
	machine.OnStep(d, func(step string) {
		if step == "socket made" { // its output can be kept nowhere
			log := filepath.Join(machine.DirectoryOf(d, "mute"), "log")
			if err := errors.Join(os.RemoveAll(log), os.WriteFile(log, nil, 0o600)); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := d.Create(await.Context(t), shell("mute", "true")); err == nil || !strings.Contains(err.Error(), "log") || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("error %v, expected it to say what the supervisor said", err)
	}
}

func TestBadCommandIsExplained(t *testing.T) {
	d := newDriver(t)
	for _, row := range []struct {
		name    string
		exec    []string
		workdir string
		want    string
	}{
		{"missing", []string{"no-such-program"}, "", "not found in PATH"},
		{"missingpath", []string{"/usr/no/such"}, "", "/usr/no/such"},
		{"directory", []string{"/usr"}, "", "directory"},
		{"outofreach", []string{"/root/tool"}, "", "every user of the host may read"},
		{"workdir", []string{"true"}, "/root", "every user of the host may read"},
		{"relative", []string{"true"}, "tmp", "absolute"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := d.Create(await.Context(t), machine.Spec{ID: row.name, Exec: row.exec, WorkDir: row.workdir})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Start(await.Context(t))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, expected it to say %q", err, row.want)
			}
		})
	}
}
