package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/state"
)

// guests is what an operator attaches: neither is made or ended by the agent.
type guests struct {
	netns, tap string
}

// newGuests makes a network namespace, and a tap in the namespace of the agent.
func newGuests(t *testing.T, w *world, number int) guests {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	// Without Pdeathsig, which is sent when the thread that started it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	nettest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	g := guests{netns: fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), tap: fmt.Sprintf("tap%d", number)}
	var file *os.File
	nettest.Must(t, w.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), g.tap)
		request, err := unix.NewIfreq(g.tap)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}))
	t.Cleanup(func() { file.Close() })
	return g
}

func (g guests) of(k kind) *api.Attach {
	switch k {
	case inNamespace:
		return &api.Attach{Netns: g.netns}
	case onTap:
		return &api.Attach{Device: g.tap}
	default:
		return nil
	}
}

// attach makes a Machine of one of the guests, unless it is one.
func (o *operator) attach(ctx context.Context, app *appFact) error {
	k := pick(o.random, []kind{inNamespace, onTap})
	for _, m := range o.machines {
		if m.kind == k && !m.gone {
			return nil
		}
	}
	o.kinds["attach"]++
	m := &machineFact{
		fact: fact{want: state.Started}, app: app.name, id: fmt.Sprintf("%014x", o.random.Uint64()>>8), kind: k, step: o.given,
	}
	return o.create(ctx, m, api.CreateMachineRequest{ID: m.id, Name: fmt.Sprintf("m-%d", o.given), Config: o.configOf(m, o.given)})
}
