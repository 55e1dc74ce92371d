package wireguard_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/wireguard"
)

// traffic pings until the test calls what it returns, which says how many echo
// requests had no answer.
func traffic(t *testing.T, from, to *host) (stop func() (sent, lost int)) {
	t.Helper()
	var enough atomic.Bool
	type count struct{ sent, lost int }
	counted := make(chan count)
	go func() {
		var c count
		for !enough.Load() || c.sent < 10 {
			c.sent++
			if !from.ping(to.inside(), await.Limit) {
				c.lost++
			}
		}
		counted <- c
	}()
	return func() (int, int) {
		enough.Store(true)
		c := <-counted
		return c.sent, c.lost
	}
}

// run has the host's mesh watched until the test ends.
func (h *host) run() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.mesh.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run ended with %v", err)
		}
	})
}

func (h *host) killEngine(s syscall.Signal) (pid int) {
	h.t.Helper()
	pid = h.engine()
	if err := syscall.Kill(pid, s); err != nil {
		h.t.Fatal(err)
	}
	return pid
}

// stopEngine stops the engine, and waits until it has.
func (h *host) stopEngine() {
	h.t.Helper()
	pid := h.killEngine(syscall.SIGSTOP)
	await.True(h.t, "the engine has stopped", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			h.t.Fatal(err)
		}
		for _, path := range tasks {
			// A thread may end meanwhile.
			if b, err := os.ReadFile(path); err == nil && !strings.Contains(string(b), "State:\tT") {
				return false
			}
		}
		return len(tasks) > 0
	})
}

func TestMeshOutlivesTheAgent(t *testing.T) { engines(t, meshOutlivesTheAgent) }

func meshOutlivesTheAgent(t *testing.T, a, b *host) {
	first := a.agent("", b.peer())
	pid, ifindex := a.engine(), a.ifindex()
	before := a.status(b.number)

	stop := traffic(t, b, a)
	for range 3 {
		if err := first.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait()
		first = a.agent("", b.peer())
	}
	if sent, lost := stop(); lost > 0 {
		t.Errorf("%d of %d echo requests were lost while agents were killed and started", lost, sent)
	}
	if now := a.engine(); now != pid {
		t.Errorf("the engine is process %d, expected the same as before, %d", now, pid)
	}
	if now := a.ifindex(); now != ifindex {
		t.Errorf("the device has index %d, expected the same as before, %d", now, ifindex)
	}
	if after := a.status(b.number); after.LastHandshake != before.LastHandshake {
		t.Errorf("a handshake was made at %v, expected none after %v", after.LastHandshake, before.LastHandshake)
	}
}

// An agent may be killed after any step: the next one goes on from there.
func TestAgentKilledAtAnyStep(t *testing.T) {
	for _, c := range [][2]string{
		{"userspace", "engine started"}, {"userspace", "device named"}, {"userspace", "peers set"},
		{"auto", "device named"}, {"auto", "peers set"},
	} {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			a, b := newPair(t, "IPv6")
			a.config.Engine = c[0]
			b.open()
			agent := a.agent(c[1], b.peer())
			_ = agent.Wait()
			if status := agent.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Fatalf("the agent ended with %v, expected by its own signal", status)
			}
			pid, ifindex := a.engine(), a.ifindex()
			a.meet(b)
			if now := a.engine(); now != pid {
				t.Errorf("the engine is process %d, expected the one of the killed agent, %d", now, pid)
			}
			if now := a.ifindex(); now != ifindex {
				t.Errorf("the device has index %d, expected that of the killed agent's, %d", now, ifindex)
			}
		})
	}
}

func TestLostEngineIsRestored(t *testing.T) {
	for name, lose := range map[string]func(a *host){
		"killed":     func(a *host) { a.killEngine(syscall.SIGKILL) },
		"terminated": func(a *host) { a.killEngine(syscall.SIGTERM) },
		"without its socket": func(a *host) {
			if err := os.Remove(wireguard.SocketPath(wireguard.DeviceName(a.config.Name))); err != nil {
				a.t.Fatal(err)
			}
		},
		"hanging": func(a *host) { a.stopEngine() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t, "IPv4")
			a.config.AskInterval, a.config.AnswerTimeout = 10*time.Millisecond, 3*time.Second
			a.meet(b)
			a.run()
			pid, ifindex := a.engine(), a.ifindex()
			lose(a)
			await.True(t, "another engine is there", func() bool { now := a.engine(); return now != 0 && now != pid })
			// The device is not raised again, nor given its address. Whoever is only sent to
			// begins a handshake, too: the other's session has nobody at its other end.
			b.reach(a)
			a.reach(b)
			if now := a.ifindex(); now != ifindex {
				t.Errorf("the device has index %d, expected the same as before, %d", now, ifindex)
			}
			if s := a.status(b.number); s.PublicKey != b.mesh.PublicKey() {
				t.Errorf("host %d is %+v", b.number, s)
			}
		})
	}
}

// One that is asked all the time, and stands still for less than it may, keeps its work.
func TestWorkingEngineIsLeftAlone(t *testing.T) {
	a, b := newPair(t, "IPv4")
	a.config.AskInterval, a.config.AnswerTimeout = time.Millisecond, await.Limit
	a.meet(b)
	a.run()
	pid, handshake := a.engine(), a.status(b.number).LastHandshake
	stop := traffic(t, b, a)
	for range 3 {
		a.stopEngine()
		a.killEngine(syscall.SIGCONT)
		a.reach(b)
	}
	if sent, lost := stop(); lost > 0 {
		t.Errorf("%d of %d echo requests were lost", lost, sent)
	}
	if now := a.engine(); now != pid {
		t.Errorf("the engine is process %d, expected the same as before, %d", now, pid)
	}
	if now := a.status(b.number).LastHandshake; now != handshake {
		t.Errorf("a handshake was made at %v, expected none after %v", now, handshake)
	}
}

func TestDeletedDeviceIsMadeAgain(t *testing.T) { engines(t, deletedDeviceIsMadeAgain) }

func deletedDeviceIsMadeAgain(t *testing.T, a, b *host) {
	a.run()
	before := a.mesh.Device()
	a.in(func() error {
		link, err := netlink.LinkByName(before.Name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	select {
	case <-a.mesh.Changed():
	case <-await.Context(t).Done():
		t.Fatal("nobody said that the device was made again")
	}
	if now := a.mesh.Device(); now.Ifindex == before.Ifindex || int(now.Ifindex) != a.ifindex() {
		t.Errorf("the device has index %d and is said to have %d, expected one and another than %d", a.ifindex(), now.Ifindex, before.Ifindex)
	}
	a.connect()
	a.reach(b)
}

// The store is not asked: peers are there as soon as the engine is.
func TestOpenRestoresADeadEngine(t *testing.T) {
	a, b := newMesh(t, "IPv4")
	pid := a.killEngine(syscall.SIGKILL)
	await.True(t, "the engine is dead", func() bool { return a.engine() == 0 })
	if _, err := os.Stat(wireguard.SocketPath(a.mesh.Device().Name)); err != nil {
		t.Fatal("a killed engine leaves its socket:", err)
	}
	if err := a.mesh.SetPeers(await.Context(t), nil); err == nil {
		t.Error("peers were set without an engine")
	}
	a.open()
	if now := a.engine(); now == pid || now == 0 {
		t.Errorf("the engine is process %d, expected another than %d", now, pid)
	}
	a.reach(b)
}

func TestOpenReplacesAnEngineThatDoesNotAnswer(t *testing.T) {
	a, b := newMesh(t, "IPv4")
	a.stopEngine()
	a.config.AnswerTimeout = 3 * time.Second
	a.open()
	a.reach(b)
}

func TestForeignDeviceIsRefused(t *testing.T) {
	a := newHost(t, 7)
	device := wireguard.DeviceName(a.config.Name)
	a.in(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "other"})
	})
	err := a.openError()
	if err == nil || !strings.Contains(err.Error(), device) || !strings.Contains(err.Error(), "not this agent's") {
		t.Errorf("a foreign device was met with %v", err)
	}
	a.in(func() error {
		removed, err := wireguard.Reset(await.Context(t), a.config)
		if len(removed) > 0 {
			t.Errorf("reset removed %q, expected nothing", removed)
		}
		_, missing := netlink.LinkByName(device)
		return errors.Join(err, missing)
	})
}

// Two agents of one name on one machine, in different namespaces.
func TestEngineOfAnotherNamespaceIsRefused(t *testing.T) {
	a, b := newHost(t, 7), newHost(t, 8)
	a.open()
	pid := a.engine()
	name := b.config.Name
	b.config.Name = a.config.Name
	err := b.openError()
	if err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("the engine of another namespace was met with %v", err)
	}
	b.config.Name = name
	if now := a.engine(); now != pid {
		t.Errorf("the engine is process %d, expected the same as before, %d", now, pid)
	}
}

func TestReset(t *testing.T) {
	for name, before := range map[string]func(a *host){
		"running": func(*host) {},
		"stopped": func(a *host) { a.stopEngine() },
		"dead": func(a *host) {
			a.killEngine(syscall.SIGKILL)
			await.True(a.t, "the engine is dead", func() bool { return a.engine() == 0 })
		},
		"twice": func(a *host) {
			a.in(func() error {
				_, err := wireguard.Reset(await.Context(a.t), a.config)
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newHost(t, 7)
			a.config.Cgroup = cgroup(t)
			a.open()
			device := a.mesh.Device().Name
			before(a)
			var said string
			a.in(func() error {
				removed, err := wireguard.Reset(await.Context(t), a.config)
				said = strings.Join(removed, "\n")
				return err
			})
			wanted := []string{"engine", device + ".sock", "device " + device, a.config.Cgroup}
			switch name {
			case "dead":
				wanted = wanted[1:]
			case "twice":
				if wanted = nil; said != "" {
					t.Errorf("the second reset removed %q, expected nothing", said)
				}
			}
			for _, want := range wanted {
				if !strings.Contains(said, want) {
					t.Errorf("reset removed %q, expected %s to be among it", said, want)
				}
			}
			for _, path := range []string{wireguard.SocketPath(device), a.config.Cgroup} {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is still there (%v)", path, err)
				}
			}
			a.in(func() error {
				if _, err := netlink.LinkByName(device); !errors.As(err, &netlink.LinkNotFoundError{}) {
					t.Errorf("device %s is still there (%v)", device, err)
				}
				return wireguard.PortFree(port) // so the engine is gone, too
			})
			if _, err := os.Stat(filepath.Join(a.config.Dir, wireguard.KeyFile)); err != nil {
				t.Error("reset took the key, which is the host's identity:", err)
			}
		})
	}
}

// The engine is in the cgroup that it was given.
func TestEngineHasItsCgroup(t *testing.T) {
	a := newHost(t, 7)
	a.config.Cgroup = cgroup(t)
	a.open()
	b, err := os.ReadFile(filepath.Join(a.config.Cgroup, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(b)) == "" {
		t.Errorf("the engine's cgroup holds %q (%v)", b, err)
	}
}
