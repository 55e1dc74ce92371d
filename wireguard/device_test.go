package wireguard_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/wireguard"
)

func TestDeviceName(t *testing.T) {
	for agent, want := range map[string]string{
		"default":      "sixpn-m-default",
		"a":            "sixpn-m-a",
		"eastern-host": "sixpn-m-0f0cb16",
		"western-host": "sixpn-m-c7ed25d",
	} {
		if got := wireguard.DeviceName(agent); got != want || len(got) > 15 {
			t.Errorf("the device of agent %q is %q, expected %q", agent, got, want)
		}
	}
}

// What an agent that was killed too early left of the kernel's device is taken over.
func TestNamelessDeviceIsTakenOver(t *testing.T) {
	a := newHost(t, 7)
	a.config.Engine = "auto"
	if !a.open().Device().Kernel {
		return // the engine names its device before it makes it stay
	}
	var index int
	a.in(func() error {
		link, err := netlink.LinkByName(wireguard.DeviceName(a.config.Name))
		if err != nil {
			return err
		}
		index = link.Attrs().Index
		return netlink.LinkSetAlias(link, "")
	})
	d := a.open().Device()
	a.in(func() error {
		link, err := netlink.LinkByIndex(index)
		if err != nil || link.Attrs().Alias != wireguard.Alias(a.config.Name) || int(d.Ifindex) != index {
			t.Errorf("the device is %+v, said to be %+v", link, d)
		}
		return err
	})
}

// Which kind of device is chosen, by what is wanted, what is there, and what the
// kernel says when it is asked for one.
func TestChoice(t *testing.T) {
	none, broken := unix.EOPNOTSUPP, unix.EPERM
	for _, c := range []struct {
		wanted, have string
		kernel       error
		chosen, said string
		asked        bool // the kernel was
	}{
		{"auto", "", nil, "kernel", "", true},
		{"auto", "", none, "userspace", "", true},
		{"auto", "", broken, "", "operation not permitted", true},
		{"auto", "wireguard", none, "kernel", "", false},
		{"auto", "tuntap", nil, "userspace", "", false},
		{"auto", "veth", nil, "", "of type veth", false},
		{"kernel", "", nil, "kernel", "", true},
		{"kernel", "", none, "", "modprobe wireguard", true},
		{"kernel", "wireguard", nil, "kernel", "", false},
		{"kernel", "tuntap", nil, "", "agent reset", false},
		{"userspace", "", nil, "userspace", "", false},
		{"userspace", "tuntap", nil, "userspace", "", false},
		{"userspace", "wireguard", nil, "", "agent reset", false},
	} {
		t.Run(fmt.Sprintf("%s have=%s kernel=%v", c.wanted, c.have, c.kernel), func(t *testing.T) {
			asked := false
			chosen, err := wireguard.Choose(c.wanted, c.have, func() error { asked = true; return c.kernel })
			if chosen != c.chosen || asked != c.asked {
				t.Errorf("chosen is %q, the kernel was asked: %v; expected %q, %v", chosen, asked, c.chosen, c.asked)
			}
			if c.said == "" && err != nil || c.said != "" && (err == nil || !strings.Contains(err.Error(), c.said)) {
				t.Errorf("the error is %v, expected %q", err, c.said)
			}
		})
	}
}

// A new device is down, one that is there stays up, and both have the alias and
// the MTU that are wanted.
func TestDeviceIsLeftToTheLoader(t *testing.T) {
	a := newHost(t, 7)
	for i, c := range []struct {
		mtu uint16
		up  bool
	}{{0, false}, {1320, true}, {1420, true}} {
		a.config.MTU = c.mtu
		d := a.open().Device()
		a.in(func() error {
			link, err := netlink.LinkByName(d.Name)
			if err != nil {
				return err
			}
			attrs := link.Attrs()
			if up := attrs.RawFlags&unix.IFF_UP != 0; up != c.up {
				t.Errorf("Open %d left the device up: %v, expected %v", i, up, c.up)
			}
			if want := wireguard.Alias(a.config.Name); attrs.Alias != want {
				t.Errorf("the alias is %q, expected %q", attrs.Alias, want)
			}
			if want := max(c.mtu, 1320); attrs.MTU != int(d.MTU) || d.MTU < want || d.Ifindex != uint32(attrs.Index) || d.Kernel {
				t.Errorf("the device is %+v and said to be %+v", attrs, d)
			}
			return netlink.LinkSetUp(link)
		})
	}
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	for said, change := range map[string]func(*wireguard.Config){
		"needs the agent's name":        func(c *wireguard.Config) { c.Name = "" },
		"a directory and a port":        func(c *wireguard.Config) { c.Port = 0 },
		"1279 bytes is too small":       func(c *wireguard.Config) { c.MTU = 1279 },
		"engine \"quick\" of the mesh":  func(c *wireguard.Config) { c.Engine = "quick" },
		"at least 1360 on the underlay": func(c *wireguard.Config) { c.MTU = 576 },
	} {
		t.Run(said, func(t *testing.T) {
			a := newHost(t, 7)
			name := a.config.Name
			change(&a.config)
			err := a.openError()
			if err == nil || !strings.Contains(err.Error(), said) {
				t.Errorf("the error is %v, expected %q", err, said)
			}
			a.config.Name = name
		})
	}
}

// A port that something else has is named, with what to do, and nothing is left.
func TestPortInUse(t *testing.T) {
	for _, c := range [][3]string{
		{"userspace", "udp4", "0.0.0.0"}, {"userspace", "udp6", "::"}, {"userspace", "udp", "127.0.0.1"}, {"auto", "udp4", "0.0.0.0"},
	} {
		t.Run(strings.Join(c[:], " "), func(t *testing.T) {
			a := newHost(t, 7)
			a.config.Engine = c[0]
			var other net.PacketConn
			a.in(func() (err error) {
				other, err = net.ListenPacket(c[1], net.JoinHostPort(c[2], fmt.Sprint(port)))
				return err
			})
			err := a.openError()
			for _, said := range []string{"UDP port 51821 is in use", "--underlay"} {
				if err == nil || !strings.Contains(err.Error(), said) {
					t.Errorf("a port in use was met with %v, expected %q", err, said)
				}
			}
			a.in(func() error {
				if _, err := netlink.LinkByName(wireguard.DeviceName(a.config.Name)); !errors.As(err, &netlink.LinkNotFoundError{}) {
					t.Errorf("the device is there (%v)", err)
				}
				return nil
			})
			other.Close()
			a.open()
		})
	}
}

// The port of a mesh that runs can be changed, and one that is taken leaves it
// where it is.
func TestPortChanges(t *testing.T) {
	a, b := newMesh(t, "IPv4")
	var other net.PacketConn
	a.in(func() (err error) {
		other, err = net.ListenPacket("udp", ":4000")
		return err
	})
	defer other.Close()
	pid := a.engine()
	a.config.Port = 4000
	if err := a.openError(); err == nil || !strings.Contains(err.Error(), "UDP port 4000 is in use") {
		t.Errorf("a port in use was met with %v", err)
	}
	a.reach(b)
	a.config.Port = 4001
	a.open()
	a.reach(b)
	if s := b.status(a.number); s.Endpoint.Port() != 4001 {
		t.Errorf("host %d is at %v, expected port 4001", a.number, s.Endpoint)
	}
	if now := a.engine(); now != pid {
		t.Errorf("the engine is process %d, expected the same as before, %d", now, pid)
	}
}

// logArgument makes this program an engine that has much to say.
const logArgument = "mesh-log"

func logMain(args []string) {
	path := args[0]
	if len(args) > 1 {
		wireguard.LogTo(path, 1<<20, slices.Repeat([]string{"again"}, 1000)...)
		return
	}
	for i := range 20 {
		wireguard.LogTo(path, 1000, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 100)))
	}
	panic("the last words")
}

// An engine's log has a bound, and what it says last is there, the runtime's last
// words too.
func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.log")
	output, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd := exec.Command("/proc/self/exe", logArgument, path)
	cmd.Stderr = output
	if err := cmd.Run(); err == nil {
		t.Error("the engine ended without the panic that it was to end with")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Fatalf("there are the files %v (%v), expected two", entries, err)
	}
	last, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(last), "line 19 ") || !strings.Contains(string(last), "the last words") {
		t.Errorf("the log is %q (%v)", last, err)
	}
	if before, err := os.ReadFile(path + ".1"); err != nil || len(before) > 1200 {
		t.Errorf("the log before has %d bytes (%v), expected about 1000", len(before), err)
	}
}

// A message that comes with every packet is not written with every packet.
func TestLogIsPaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine.log")
	cmd := exec.Command("/proc/self/exe", logArgument, path, "at once")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(output), "again"); n < wireguard.LinesASecond || n > 2*wireguard.LinesASecond {
		t.Errorf("%d of 1000 lines were written at once, expected %d, or a second's more", n, wireguard.LinesASecond)
	}
}
