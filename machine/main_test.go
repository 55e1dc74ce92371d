package machine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// insideEnv is set in the process that runs the tests.
const insideEnv = "SIXPN_TEST_INSIDE"

// TestMain runs the tests in a network namespace of their own: the devices they
// make never show up in the host's.
func TestMain(m *testing.M) {
	machine.Main()
	if agentMain() {
		return
	}
	if os.Getenv(insideEnv) != "" {
		if err := raiseLoopback(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "these tests need root:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

func raiseLoopback() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(loopback)
}

// driverConfig is one of a driver that nobody else uses; whatever it makes is
// removed at the end of the test.
func driverConfig(t *testing.T) machine.DriverConfig {
	t.Helper()
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "sixpn-")
	if err != nil {
		t.Fatal(err)
	}
	c := machine.DriverConfig{
		Name: filepath.Base(dir), Dir: filepath.Join(dir, "machines"), RunDir: filepath.Join(dir, "run"),
		IDDir: filepath.Join(dir, "ids"), FollowInterval: 5 * time.Millisecond,
	}
	t.Cleanup(func() {
		d, err := machine.NewDriver(c)
		if err != nil {
			t.Error(err)
			return
		}
		if err := d.RemoveAll(context.Background()); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newDriver(t *testing.T) *machine.Driver {
	t.Helper()
	d, err := machine.NewDriver(driverConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// shell is a spec that runs a script.
func shell(id, script string) machine.Spec {
	return machine.Spec{ID: id, Hostname: id, Exec: []string{"sh", "-c", script}}
}

// start creates and starts a Machine.
func start(t *testing.T, d *machine.Driver, spec machine.Spec) *machine.Process {
	t.Helper()
	p, err := d.Create(await.Context(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

// wait returns how a run ended.
func wait(t *testing.T, p *machine.Process) machine.ExitStatus {
	t.Helper()
	select {
	case <-p.Exited():
		return p.ExitStatus()
	case <-time.After(await.Limit):
		t.Fatalf("machine %s did not end within %v", p.ID(), await.Limit)
		return machine.ExitStatus{}
	}
}

// output is what a Machine's command has written so far.
func output(t *testing.T, d *machine.Driver, id string) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.Logs(t.Context(), id, false, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// run runs a script to its end and returns what it wrote and how it ended.
func run(t *testing.T, d *machine.Driver, spec machine.Spec) (string, machine.ExitStatus) {
	t.Helper()
	status := wait(t, start(t, d, spec))
	return output(t, d, spec.ID), status
}

// waitOutput waits until a Machine's command has written something.
func waitOutput(t *testing.T, d *machine.Driver, id, want string) {
	t.Helper()
	await.True(t, fmt.Sprintf("output %q of %s", want, id), func() bool { return strings.Contains(output(t, d, id), want) })
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
