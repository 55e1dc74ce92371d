package machine_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

var deviceNumber atomic.Uint32

func deviceName() string { return fmt.Sprintf("att%d", deviceNumber.Add(1)) }

// openTap makes a tap, or a tun, of which the test is the guest.
func openTap(t *testing.T, name string, kind uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(kind | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// attachedRecord is one of a Machine that something else runs.
func attachedRecord(id string, a state.Attach) state.Machine {
	m := record(id, "")
	m.Config.Init.Exec, m.Config.Attach = nil, &a
	return m
}

const guestAddr = "fdaa:0:18:0:7:0:a:2"

// solicitation is the first thing that a guest says: does anybody have my address?
func solicitation(mac net.HardwareAddr, target string) []byte {
	frame := make([]byte, 14+40+24)
	copy(frame, []byte{0x33, 0x33, 0xff, 0, 0, 2})
	copy(frame[6:], mac)
	frame[12], frame[13] = 0x86, 0xdd
	frame[14], frame[19], frame[20], frame[21] = 0x60, 24, 58, 255
	frame[54] = 135
	copy(frame[62:], netip.MustParseAddr(target).AsSlice())
	return frame
}

func mustMAC(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

func TestTapIsAttached(t *testing.T) {
	w := newWorld(t)
	const id = "222222222222aa"
	name := deviceName()
	guest := openTap(t, name, unix.IFF_TAP)
	w.store.put(attachedRecord(id, state.Attach{Device: name}))
	w.waitFor(t, id, state.Started)
	w.expectJournal(t, "state starting", "port added", "state started")
	port, _ := w.ports.get(id)
	if port.Device != name || port.Network != 0x18 || port.Host != 7 || port.Number != 0xa || port.MTU != machine.DefaultMTU || port.Peer || len(port.GuestMAC) != 0 {
		t.Errorf("port %+v is not of the tap, whose guest was not heard yet", port)
	}

	// What another's address has, or a group address, is not the guest.
	mac := mustMAC(t, "52:54:00:12:34:56")
	for _, frame := range [][]byte{
		solicitation(mustMAC(t, "52:54:00:00:00:01"), "fdaa:0:18:0:7:0:b:2"), solicitation(mustMAC(t, "53:54:00:00:00:02"), guestAddr), make([]byte, 14), solicitation(mac, guestAddr),
	} {
		if _, err := guest.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	await.True(t, "the guest is heard", func() bool {
		port, _ := w.ports.get(id)
		return bytes.Equal(port.GuestMAC, mac)
	})

	// The next agent knows all that.
	w.stop()
	w.journal.clear()
	w.startManager(t)
	w.expectJournal(t, "port adopted")
	if port, _ := w.ports.get(id); !bytes.Equal(port.GuestMAC, mac) || !port.Adopted {
		t.Errorf("the adopted port is %+v", port)
	}

	w.journal.clear()
	w.desire(t, id, state.Stopped)
	w.waitFor(t, id, state.Stopped)
	w.expectJournal(t, "state stopping", "applied", "port removed", "state stopped")
	if _, err := netlink.LinkByName(name); err != nil {
		t.Errorf("the tap that was there before: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.config.Dir, id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a detached Machine is left: %v", err)
	}
	w.store.order(t, id, func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "second" })
	w.waitFor(t, id, state.Started)

	// The virtual machine ends and takes its tap along.
	guest.Close()
	m := w.waitFor(t, id, state.Failed)
	if !strings.Contains(m.Message, name+" is gone") {
		t.Errorf("message %q", m.Message)
	}
	await.True(t, "the port is removed", func() bool { _, ok := w.ports.get(id); return !ok })
	openTap(t, name, unix.IFF_TAP)
	w.store.order(t, id, func(m *state.Machine) { m.InstanceID = "third" })
	w.waitFor(t, id, state.Started)

	w.desire(t, id, state.Destroyed)
	w.waitGone(t, id)
	if _, ok := w.ports.get(id); ok {
		t.Error("the port of a destroyed Machine is there")
	}
}

// A guest that was heard while the tables could not take it is reached later.
func TestHeardGuestIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	const id = "222222222222ac"
	name := deviceName()
	guest := openTap(t, name, unix.IFF_TAP)
	w.store.put(attachedRecord(id, state.Attach{Device: name}))
	w.waitFor(t, id, state.Started)
	w.ports.fail(errors.New("not yet"))
	mac := mustMAC(t, "52:54:00:12:34:57")
	if _, err := guest.Write(solicitation(mac, guestAddr)); err != nil {
		t.Fatal(err)
	}
	await.True(t, "it was tried", func() bool { return w.ports.failed() > 0 })
	w.ports.fail(nil)
	await.True(t, "the guest is reached", func() bool {
		port, _ := w.ports.get(id)
		return bytes.Equal(port.GuestMAC, mac)
	})
}

// TestAttachRefuses shows each device that is not taken, and that it is left alone.
func TestAttachRefuses(t *testing.T) {
	name := deviceName()
	add := func(link netlink.Link) func(*testing.T) {
		return func(t *testing.T) {
			if err := netlink.LinkAdd(link); err != nil {
				t.Fatal(err)
			}
		}
	}
	attrs := func() netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	tap := func(also func(*testing.T, netlink.Link)) func(*testing.T) {
		return func(t *testing.T) {
			openTap(t, name, unix.IFF_TAP)
			link, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			also(t, link)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	plain := state.Attach{Device: name}
	for _, c := range []struct {
		name   string
		make   func(*testing.T)
		attach state.Attach
		says   string
	}{
		{"missing", func(*testing.T) {}, plain, "there is no device " + name},
		{"a tun", func(t *testing.T) { openTap(t, name, unix.IFF_TUN) }, plain, "is a tun"},
		{"a bridge", add(&netlink.Bridge{LinkAttrs: attrs()}), plain, "expected a tap or a veth"},
		{"with an address", tap(func(t *testing.T, link netlink.Link) {
			must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}))
		}), plain, "has the address 192.0.2.1/24"},
		{"with a route", tap(func(t *testing.T, link netlink.Link) {
			must(t, netlink.LinkSetUp(link))
			must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 7), Mask: net.CIDRMask(32, 32)}}))
		}), plain, "route to 192.0.2.7/32"},
		{"enslaved", tap(func(t *testing.T, link netlink.Link) {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: deviceName()}}
			must(t, netlink.LinkAdd(bridge))
			t.Cleanup(func() { must(t, netlink.LinkDel(bridge)) })
			must(t, netlink.LinkSetMaster(link, bridge))
		}), plain, "nomaster"},
		{"sixpn's", tap(func(t *testing.T, link netlink.Link) {
			must(t, netlink.LinkSetAlias(link, machine.AliasOf("other", "x")))
		}), plain, "sixpn's own"},
		{"a small MTU", tap(func(t *testing.T, link netlink.Link) { must(t, netlink.LinkSetMTU(link, 1000)) }), plain, "has the MTU 1000"},
		{"a bad hardware address", tap(func(*testing.T, netlink.Link) {}), state.Attach{Device: name, MAC: "52:54:00"}, "malformed"},
		{"a group's hardware address", tap(func(*testing.T, netlink.Link) {}), state.Attach{Device: name, MAC: "01:00:5e:00:00:01"}, "malformed"},
		{"no process", func(*testing.T) {}, state.Attach{Pid: 1 << 30}, "there is no process"},
		{"no namespace", func(*testing.T) {}, state.Attach{NetNS: "/dev/null"}, "no network namespace"},
		{"a namespace of mounts", func(*testing.T) {}, state.Attach{NetNS: "/proc/self/ns/mnt"}, "no network namespace"},
		{"the agent's namespace", func(*testing.T) {}, state.Attach{Pid: os.Getpid()}, "the agent's own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			const id = "222222222222bb"
			c.make(t)
			before, _ := netlink.LinkByName(name)
			w.store.put(attachedRecord(id, c.attach))
			if m := w.waitFor(t, id, state.Failed); !strings.Contains(m.Message, c.says) {
				t.Errorf("message %q lacks %q", m.Message, c.says)
			}
			after, err := netlink.LinkByName(name)
			if before != nil {
				if err != nil {
					t.Fatal(err)
				}
				if a, b := after.Attrs(), before.Attrs(); a.Flags != b.Flags || a.MasterIndex != b.MasterIndex || a.MTU != b.MTU {
					t.Errorf("the device became %+v", a)
				}
				if after.Type() != "tuntap" {
					if err := netlink.LinkDel(after); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, ok := w.ports.get(id); ok {
				t.Error("there is a port")
			}
		})
	}
}

// container is a process in a network namespace of its own, with an eth0 and a
// default route of its own, as container engines make them.
type container struct {
	*exec.Cmd
	t *testing.T
}

func newContainer(t *testing.T) *container {
	t.Helper()
	cmd := exec.Command("sh", "-c", "ip link add eth0 type veth peer name far && ip link set far up && ip addr add 192.0.2.9/24 dev eth0 && ip addr add 2001:db8::9/64 dev eth0 nodad && "+
		"ip link set eth0 up && ip route add default via 192.0.2.1 && ip -6 route add default via 2001:db8::1 && echo ready && exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &container{Cmd: cmd, t: t}
	t.Cleanup(c.end)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) end() {
	_ = c.Process.Kill()
	_ = c.Wait()
}

// run runs a command in the container's namespace.
func (c *container) run(args ...string) string {
	c.t.Helper()
	out, err := exec.Command("nsenter", append([]string{"-n", "-t", fmt.Sprint(c.Process.Pid), "--"}, args...)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

// network is all that its namespace has of a network, sixpn's part or the rest.
func (c *container) network() string {
	return c.run("sh", "-c", "ip -o link | cut -d: -f2 | grep -v lo | cut -d@ -f1; ip -o addr | grep -v ' lo ' | grep -v fe80 | tr -s ' ' | cut -d' ' -f2-4; "+
		"ip route; ip -6 route | grep -v fe80::/64; ip -6 route show table local | grep fdaa; true")
}

func TestNamespaceIsAttached(t *testing.T) {
	w := newWorld(t)
	const id = "222222222222cc"
	c := newContainer(t)
	before := c.network()
	w.store.put(attachedRecord(id, state.Attach{Pid: c.Process.Pid}))
	w.waitFor(t, id, state.Started)
	during := c.network()
	for _, want := range []string{"eth1", guestAddr + "/112", "default via 192.0.2.1 dev eth0", "default via 2001:db8::1 dev eth0", "fdaa::/16 via fe80::1 dev eth1"} {
		if !strings.Contains(during, want) {
			t.Errorf("the namespace %q lacks %q", during, want)
		}
	}
	if got := c.run("ip", "-6", "route", "get", "fdaa::3"); !strings.Contains(got, "via fe80::1 dev eth1 src "+guestAddr) {
		t.Errorf("fdaa::3 is reached by %q", got)
	}
	if port, _ := w.ports.get(id); port.Device != machine.DeviceName(id) || !port.Peer || len(port.GuestMAC) != 6 {
		t.Errorf("port %+v", port)
	}

	// One namespace is one Machine.
	const other = "222222222222dd"
	second := attachedRecord(other, state.Attach{NetNS: fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid)})
	second.Number = 0xb
	w.store.put(second)
	if m := w.waitFor(t, other, state.Failed); !strings.Contains(m.Message, "fdaa::/16") {
		t.Errorf("message %q", m.Message)
	}
	if got := c.network(); got != during {
		t.Errorf("a refusal changed the namespace from %q to %q", during, got)
	}

	w.desire(t, other, state.Destroyed)
	w.waitGone(t, other)

	w.stop()
	w.journal.clear()
	w.startManager(t)
	w.expectJournal(t, "port adopted")
	w.desire(t, id, state.Stopped)
	w.waitFor(t, id, state.Stopped)
	if got := c.network(); got != before {
		t.Errorf("a detachment left %q, before it was %q", got, before)
	}
	w.store.order(t, id, func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "second" })
	w.waitFor(t, id, state.Started)
	c.end()
	if m := w.waitFor(t, id, state.Failed); !strings.Contains(m.Message, "namespace is gone") {
		t.Errorf("message %q", m.Message)
	}
	w.desire(t, id, state.Destroyed)
	w.waitGone(t, id)
}
