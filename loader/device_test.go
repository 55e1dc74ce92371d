package loader

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/netns"
)

// listen gives the port what a careless host might: addresses and neighbours of
// both families. A device without router and filter then answers the guest.
func (w *world) listen() (v4, v6 net.PacketConn) {
	w.t.Helper()
	guestMAC := w.mac(w.guest)
	var portMAC net.HardwareAddr
	w.must(w.host.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/port0/disable_ipv6", []byte("0"), 0); err != nil {
			return err
		}
		return onDevice("port0", func(x netlink.Link) error {
			portMAC = x.Attrs().HardwareAddr
			return errors.Join(netlink.LinkSetARPOn(x), netlink.LinkSetUp(x), addAddress(x, host4), addAddress(x, host6),
				neighbour(x, guest4, guestMAC), neighbour(x, guest6, guestMAC))
		})
	}))
	w.must(w.guest.Do(func() error {
		return onDevice("eth0", func(x netlink.Link) error {
			return errors.Join(addAddress(x, guest4), neighbour(x, host4, portMAC), neighbour(x, host6, portMAC))
		})
	}))
	w.transmits(w.host, "port0")
	w.transmits(w.guest, "eth0")
	w.waitFor(w.host, "the host's address is local", func() (bool, error) {
		routes, err := netlink.RouteGet(host6.AsSlice())
		return err == nil && len(routes) == 1 && routes[0].Table == 255, nil
	})
	v4, err := w.host.ListenPacket(w.t.Context(), "udp4", netip.AddrPortFrom(host4, sinkPort).String())
	w.must(err)
	v6, err = w.host.ListenPacket(w.t.Context(), "udp6", netip.AddrPortFrom(host6, sinkPort).String())
	w.must(err)
	return v4, v6
}

// send sends one datagram from the guest to the host.
func (w *world) send(to netip.Addr) {
	w.t.Helper()
	conn, err := w.guest.Dial(w.t.Context(), "udp", nil, netip.AddrPortFrom(to, sinkPort).String())
	w.must(err)
	_, err = conn.Write([]byte("hello"))
	w.must(err)
	w.must(conn.Close())
}

// filterDrops is how many packets the port's filter has dropped.
func (w *world) filterDrops() (drops uint32) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		return onDevice("port0", func(x netlink.Link) error {
			qdiscs, err := netlink.QdiscList(x)
			for _, qdisc := range qdiscs {
				if qdisc.Type() == "clsact" && qdisc.Attrs().Statistics != nil {
					drops = qdisc.Attrs().Statistics.Queue.Drops
				}
			}
			return err
		})
	}))
	return drops
}

// isClosed: what the guest sends is dropped by the filter, and reaches nobody.
func (w *world) isClosed(v4, v6 net.PacketConn) {
	w.t.Helper()
	for _, row := range []struct {
		to   netip.Addr
		conn net.PacketConn
	}{{host4, v4}, {host6, v6}} {
		before := w.filterDrops()
		w.send(row.to)
		w.waitFor(w.host, "the filter dropped the datagram to "+row.to.String(), func() (bool, error) {
			return w.filterDrops() > before, nil
		})
		_ = row.conn.SetReadDeadline(time.Now())
		if _, _, err := row.conn.ReadFrom(make([]byte, 100)); err == nil {
			w.t.Errorf("the host got a datagram to %s from a device that has to be closed", row.to)
		}
	}
}

func TestDeviceIsClosedWithoutPinsAndProcess(t *testing.T) {
	w := newWorld(t)
	v4, v6 := w.listen()
	defer v4.Close()
	defer v6.Close()
	// The opposite first: without a filter both arrive.
	for to, conn := range map[netip.Addr]net.PacketConn{host4: v4, host6: v6} {
		w.send(to)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, _, err := conn.ReadFrom(make([]byte, 100)); err != nil {
			t.Fatalf("a datagram to %s did not arrive at an open device: %v", to, err)
		}
	}
	_ = v4.Close()
	_ = v6.Close()

	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.passes() // the router's verdict comes before the filter
	same(t, "packets that the filter met", w.filterDrops(), uint32(0))

	w.must(os.RemoveAll(w.config.PinRoot))
	w.must(l.Close())
	same(t, "state", w.state(), state{up: true, filtered: true})
	v4, v6 = w.listen()
	w.isClosed(v4, v6)

	healed := w.open(w.config)
	w.isClosed(v4, v6)
	same(t, "adopted", healed.Opened().Adopted, false)
	w.must(bring(healed, w.port))
	same(t, "state after healing", w.state(), state{true, true, true})
	w.passes()
}

func TestPrepareShutsDownWhatAHostAnswersWith(t *testing.T) {
	w := newWorld(t)
	v4, v6 := w.listen()
	_, _ = v4.Close(), v6.Close()
	l := w.open(w.config)
	w.must(l.Prepare(w.port))
	same(t, "state", w.state(), state{up: false, filtered: true})
	w.must(w.host.Do(func() error {
		for path, want := range map[string]string{
			"/proc/sys/net/ipv6/conf/port0/disable_ipv6": "1",
			"/proc/sys/net/ipv4/conf/port0/forwarding":   "0",
		} {
			have, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			same(t, path, strings.TrimSpace(string(have)), want)
		}
		return onDevice("port0", func(x netlink.Link) error {
			addresses, err := netlink.AddrList(x, netlink.FAMILY_ALL)
			same(t, "addresses", len(addresses), 0)
			return err
		})
	}))
	if err := l.Raise(w.port); err == nil {
		t.Error("a device without a router was raised")
	}
	same(t, "state after the refused Raise", w.state().up, false)
	w.must(l.Attach(w.port))
	w.must(l.Raise(w.port))
	w.must(l.Prepare(w.port)) // one that carries our router stays up
	same(t, "state", w.state(), state{true, true, true})
}

func TestAttachNeedsTheFilter(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	if err := l.Attach(w.port); err == nil || !strings.Contains(err.Error(), "prepare") {
		t.Errorf("error %v, expected one that says to prepare it", err)
	}
	same(t, "programs", len(w.programs()), 0)
}

func TestDetachNeverRaises(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	for range 2 {
		w.must(l.Detach(w.port))
		same(t, "state", w.state(), state{})
		same(t, "devices", len(l.Devices()), 0)
	}
	// It does not touch what is not its own.
	w.must(w.host.Do(func() error { return onDevice("port0", netlink.LinkSetUp) }))
	w.must(l.Detach(w.port))
	same(t, "another's device is up", w.state().up, true)
}

// A Machine's namespace that ends takes the device along, whatever is being done to it.
func TestDetachOfADeviceThatGoesMeanwhile(t *testing.T) {
	for _, instant := range []string{"found", "down", "detached", "filter removed"} {
		t.Run(instant, func(t *testing.T) {
			w := newWorld(t)
			l := w.open(w.config)
			w.must(bring(l, w.port))
			gone := false
			l.config.step = func(step string) error {
				if step != instant {
					return nil
				}
				gone = true
				return onDevice("port0", netlink.LinkDel)
			}
			w.must(l.Detach(w.port))
			same(t, "the device went", gone, true)
			same(t, "devices", len(l.Devices()), 0)
			if _, err := os.Lstat(l.linkPin(w.port)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pin of its link is left: %v", err)
			}
		})
	}
}

func TestOneDeviceHasOneAgent(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	config := w.config
	config.Name, config.PinRoot = config.Name+"-other", ""
	other := w.open(config)
	defer func() {
		_, err := Reset(t.Context(), config)
		w.must(err)
	}()
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), `"`+w.config.Name+`"`) {
			t.Errorf("%s: error %v, expected %v with the other agent's name", what, err, ErrForeign)
		}
		same(t, what+": programs", len(w.programs()), 1)
		w.passes()
	}
	refused("Prepare", other.Prepare(w.port))
	refused("Detach", other.Detach(w.port))
	if removed, err := Reset(t.Context(), config); err != nil || len(removed) != 1 {
		t.Errorf("Reset of the other removed %q, %v; expected its pins only", removed, err)
	}
	w.passes()

	// Even when only the filter is left.
	w.must(os.RemoveAll(w.config.PinRoot))
	w.must(l.Close())
	if err := other.Prepare(w.port); !errors.Is(err, ErrForeign) {
		t.Errorf("a device with another agent's filter: error %v, expected %v", err, ErrForeign)
	}
	same(t, "state", w.state().filtered, true)
}

func TestResetLeavesNothing(t *testing.T) {
	w := newWorld(t)
	private := netns.PrivateConfig{Name: "t", Path: w.host.Path() + "-private", Home: w.host}
	p, err := netns.SetupPrivate(t.Context(), private)
	w.must(err)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(bring(l, p.HostSide().Ifindex))
	w.must(l.Close())
	w.must(p.Close())

	removed, err := Reset(t.Context(), w.config)
	w.must(err)
	same(t, "removed: two devices and the pins", len(removed), 3)
	devices, err := netns.DeletePrivate(private)
	w.must(err)
	same(t, "removed: a device and a namespace", len(devices), 2)
	same(t, "state", w.state(), state{})
	same(t, "pins", len(w.tree()), 0)
	w.must(w.host.Do(func() error {
		all, err := netlink.QdiscList(nil)
		for _, qdisc := range all {
			if qdisc.Type() == "clsact" {
				t.Errorf("a clsact is left: %v", qdisc)
			}
		}
		return err
	}))
	if _, err := os.Lstat(private.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the private namespace is left: %v", err)
	}
	removed, err = Reset(t.Context(), w.config)
	w.must(err)
	same(t, "removed the second time", len(removed), 0)
}
