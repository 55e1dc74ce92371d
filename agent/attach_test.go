package agent_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// attach makes a Machine of something that runs elsewhere.
func attach(ctx context.Context, h *nettest.Host, app string, a api.Attach) (*nettest.Machine, error) {
	config := api.MachineConfig{Attach: &a}
	answer, err := h.Client.CreateMachineWithResponse(ctx, app, &api.CreateMachineParams{}, api.CreateMachineRequest{Config: config})
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	m := &nettest.Machine{Host: h, App: app, Name: answer.JSON200.Name, ID: answer.JSON200.ID, Addr: netip.MustParseAddr(answer.JSON200.PrivateIP)}
	return m, m.Wait(ctx, "started")
}

// vm is a virtual machine of one interface, as far as others see it: it asks for its
// gateway and answers to echo requests.
type vm struct {
	file   *os.File
	mac    net.HardwareAddr
	addr   netip.Addr
	router net.HardwareAddr
	echoes chan uint16 // sequence numbers of the echo replies that came
}

const (
	offsetIP    = 14
	offsetICMP  = 14 + 40
	echoRequest = 128
	echoReply   = 129
	solicit     = 135
	advertise   = 136
	ipv6Type    = 0x86dd
)

// newTap makes a tap in the namespace of a host's agent.
func newTap(t *testing.T, h *nettest.Host, name string) *os.File {
	t.Helper()
	var file *os.File
	nettest.Must(t, h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		file = os.NewFile(uintptr(fd), name) // only now: before, it cannot be polled
		return err
	}))
	t.Cleanup(func() { file.Close() })
	return file
}

// boot starts the virtual machine behind a tap.
func boot(t *testing.T, tap *os.File, addr netip.Addr) *vm {
	t.Helper()
	v := &vm{file: tap, mac: net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}, addr: addr, echoes: make(chan uint16, 64)}
	router := make(chan net.HardwareAddr, 1)
	go v.run(router)
	gateway := sixpn.Gateway.As16()
	ask := v.packet(netip.MustParseAddr("ff02::1:ff00:1"), net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 1}, 255, solicit, append([]byte{0, 0, 0, 0}, gateway[:]...))
	deadline := time.After(20 * time.Second)
	for v.router == nil {
		nettest.Get[int](t)(v.file.Write(ask))
		select {
		case v.router = <-router:
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatal("the gateway does not answer")
		}
	}
	return v
}

// packet is an ICMPv6 message of the virtual machine. body is what follows its checksum.
func (v *vm) packet(to netip.Addr, mac net.HardwareAddr, hopLimit, kind byte, body []byte) []byte {
	frame := make([]byte, offsetICMP+4, offsetICMP+4+len(body))
	copy(frame, mac)
	copy(frame[6:], v.mac)
	binary.BigEndian.PutUint16(frame[12:], ipv6Type)
	frame[offsetIP] = 0x60
	binary.BigEndian.PutUint16(frame[offsetIP+4:], uint16(4+len(body)))
	frame[offsetIP+6], frame[offsetIP+7] = unix.IPPROTO_ICMPV6, hopLimit
	copy(frame[offsetIP+8:], v.addr.AsSlice())
	copy(frame[offsetIP+24:], to.AsSlice())
	frame[offsetICMP] = kind
	frame = append(frame, body...)
	// RFC 8200, 8.1: addresses, length and protocol are summed with the message.
	sum := uint32(4+len(body)) + unix.IPPROTO_ICMPV6
	for i := offsetIP + 8; i < len(frame); i += 2 {
		if i+1 == len(frame) {
			sum += uint32(frame[i]) << 8
			break
		}
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(frame[offsetICMP+2:], ^uint16(sum))
	return frame
}

func (v *vm) run(router chan<- net.HardwareAddr) {
	frame := make([]byte, 9000)
	for {
		n, err := v.file.Read(frame)
		if err != nil {
			return
		}
		if n < offsetICMP+8 || binary.BigEndian.Uint16(frame[12:]) != ipv6Type || frame[offsetIP+6] != unix.IPPROTO_ICMPV6 {
			continue
		}
		from := netip.AddrFrom16([16]byte(frame[offsetIP+8:]))
		switch frame[offsetICMP] {
		case advertise:
			select {
			case router <- net.HardwareAddr(append([]byte(nil), frame[6:12]...)):
			default:
			}
		case echoRequest:
			// As a guest's device does, it takes what is for its hardware address only.
			if net.HardwareAddr(frame[:6]).String() == v.mac.String() {
				_, _ = v.file.Write(v.packet(from, net.HardwareAddr(frame[6:12]), 64, echoReply, frame[offsetICMP+4:n]))
			}
		case echoReply:
			v.echoes <- binary.BigEndian.Uint16(frame[offsetICMP+6:])
		}
	}
}

// ping demands that an address answers to the virtual machine.
func (v *vm) ping(t *testing.T, to netip.Addr, sequence uint16) {
	t.Helper()
	body := binary.BigEndian.AppendUint16([]byte{0, 7}, sequence)
	nettest.Get[int](t)(v.file.Write(v.packet(to, v.router, 64, echoRequest, append(body, "hello"...))))
	select {
	case got := <-v.echoes:
		if got != sequence {
			t.Errorf("the reply to %d has the number %d", sequence, got)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s does not answer to the virtual machine", to)
	}
}

// pings demands that a Machine reaches an address, or does not.
func pings(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.Addr, answers bool) {
	t.Helper()
	out, err := from.Exec(ctx, "ping", "-c", "2", "-i", "0.05", "-W", "1", to.String())
	if (err == nil) != answers {
		t.Errorf("a ping to %s: %v, expected an answer: %v; it says %q", to, err, answers, out)
	}
}

// heard waits until the router has a guest's hardware address from what it sent: until
// then the guest takes no packet.
func heard(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.Addr) {
	t.Helper()
	if _, err := from.Exec(ctx, "ping", "-c", "1", "-i", "0.05", "-w", "20", to.String()); err != nil {
		t.Errorf("no ping to %s had an answer: %v", to, err)
	}
}

func TestAttachTap(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateApp(ctx, "guest", "acme"))
	tap := newTap(t, p.Host, "tap0")
	m := nettest.Get[*nettest.Machine](t)(attach(ctx, p.Host, "guest", api.Attach{Device: "tap0"}))
	v := boot(t, tap, m.Addr)
	v.ping(t, p.server.Addr, 1)
	heard(ctx, t, p.client, m.Addr)

	// Nobody else gets the device.
	refused, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := attach(refused, p.Host, "guest", api.Attach{Device: "tap0"})
	if err == nil || !strings.Contains(failure(ctx, t, p.Host, "guest", m.ID), "is that of machine "+m.ID) {
		t.Errorf("a second Machine of the same device: %v", err)
	}
	pings(ctx, t, p.client, m.Addr, true)

	// Neither side notices that agents come and go.
	nettest.Must(t, p.KillAgent())
	v.ping(t, p.server.Addr, 2)
	nettest.Must(t, p.StartAgent(ctx))
	v.ping(t, p.server.Addr, 3)
	pings(ctx, t, p.client, m.Addr, true)

	// Detached, the device is there, down, and carries nothing.
	nettest.Must(t, m.Destroy(ctx))
	pings(ctx, t, p.client, m.Addr, false)
	nettest.Must(t, p.Do(func() error {
		link, err := netlink.LinkByName("tap0")
		if err != nil {
			return err
		}
		if link.Attrs().Flags&net.FlagUp != 0 {
			return errors.New("the detached tap is up")
		}
		return nil
	}))

	// Attached again with the guest's address known, and then taken away.
	again := nettest.Get[*nettest.Machine](t)(attach(ctx, p.Host, "guest", api.Attach{Device: "tap0", Mac: v.mac.String()}))
	v.addr = again.Addr
	pings(ctx, t, p.client, again.Addr, true)
	tap.Close()
	nettest.Must(t, again.Wait(ctx, "failed"))
	nettest.Must(t, p.DestroyOthers(ctx, "guest", ""))
	p.converged(ctx, t, 2)
}

// failure is why the Machine of an app that is not this one failed.
func failure(ctx context.Context, t *testing.T, h *nettest.Host, app, not string) string {
	t.Helper()
	list, err := h.Client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{})
	nettest.Must(t, api.Check(list, err))
	for _, m := range *list.JSON200 {
		if m.ID != not {
			return m.Message
		}
	}
	return ""
}

func TestAttachNamespace(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateApp(ctx, "container", "acme"))
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	nettest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	inside := func(args ...string) (string, error) {
		args = append([]string{"-n", "-t", fmt.Sprint(cmd.Process.Pid), "--"}, args...)
		out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput()
		return string(out), err
	}
	path := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	m := nettest.Get[*nettest.Machine](t)(attach(ctx, p.Host, "container", api.Attach{Netns: path}))

	reaches := func() {
		t.Helper()
		pings(ctx, t, p.client, m.Addr, true)
		if out, err := inside("ping", "-c", "2", "-i", "0.1", "-W", "2", p.server.Addr.String()); err != nil {
			t.Errorf("from the namespace to %s: %v, %q", p.server.Addr, err, out)
		}
		if out, err := inside(p.Payload("connect", at(p.vip, vipPort))...); err != nil || !strings.Contains(out, `"ok":1`) {
			t.Errorf("from the namespace through Flycast: %v, %q", err, out)
		}
		if out, err := inside("dig", "+short", "+time=2", "aaaa", "web.internal", "@"+sixpn.DNS.String()); err != nil || strings.TrimSpace(out) != p.server.Addr.String() {
			t.Errorf("from the namespace web.internal is %q, %v", out, err)
		}
	}
	reaches()
	nettest.Must(t, p.KillAgent())
	nettest.Must(t, p.StartAgent(ctx))
	reaches()

	nettest.Must(t, m.Stop(ctx))
	nettest.Must(t, m.Wait(ctx, "stopped"))
	if out, err := inside("ip", "-o", "link"); err != nil || strings.Contains(out, "eth0") {
		t.Errorf("a detached namespace has %q, %v", out, err)
	}
	nettest.Must(t, m.Start(ctx))
	nettest.Must(t, m.Wait(ctx, "started"))
	reaches()
	nettest.Must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	nettest.Must(t, m.Wait(ctx, "failed"))
	nettest.Must(t, m.Destroy(ctx))
	p.converged(ctx, t, 2)
}

// TestAttachVeth attaches a veth whose other end somebody else has put into a
// namespace and configured.
func TestAttachVeth(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateApp(ctx, "guest", "acme"))
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	nettest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	nettest.Must(t, p.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "ours"}, PeerName: "theirs", PeerNamespace: netlink.NsPid(cmd.Process.Pid),
		})
	}))
	m := nettest.Get[*nettest.Machine](t)(attach(ctx, p.Host, "guest", api.Attach{Device: "ours"}))
	script := fmt.Sprintf("ip link set lo up; ip link set theirs mtu 1420 up; ip addr add %s/112 dev theirs nodad; "+
		"ip -6 route add fdaa::/16 via fe80::1 dev theirs src %s; ping -c 3 -i 0.2 -W 5 %s", m.Addr, m.Addr, p.server.Addr)
	out, err := exec.CommandContext(ctx, "nsenter", "-n", "-t", fmt.Sprint(cmd.Process.Pid), "--", "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Errorf("from the other end: %v, %q", err, out)
	}
	pings(ctx, t, p.client, m.Addr, true)

	// A reset lets go of it: there, down, and without anything of the router.
	nettest.Must(t, p.StopAgent(ctx))
	nettest.Get[string](t)(p.Reset(ctx))
	nettest.Must(t, p.Do(func() error {
		link, err := netlink.LinkByName("ours")
		if err != nil {
			return err
		}
		filters, err := netlink.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		if err != nil || len(filters) > 0 || link.Attrs().Flags&net.FlagUp != 0 {
			return fmt.Errorf("after a reset the device is %v with filters %v, %w", link.Attrs().Flags, filters, err)
		}
		return nil
	}))
	nettest.Must(t, p.StartAgent(ctx))
	nettest.Must(t, m.Wait(ctx, "started"))
	nettest.Must(t, p.client.Start(ctx))
	nettest.Must(t, p.client.Wait(ctx, "started"))
	out, err = exec.CommandContext(ctx, "nsenter", "-n", "-t", fmt.Sprint(cmd.Process.Pid), "--", "ping", "-c", "3", "-i", "0.2", "-W", "5", p.client.Addr.String()).CombinedOutput()
	if err != nil {
		t.Errorf("from the other end after a reset: %v, %q", err, out)
	}
}

// TestAttachForeign: a device with the router of another agent is refused, and goes
// on to be that one's.
func TestAttachForeign(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateApp(ctx, "guest", "acme"))
	tap := newTap(t, p.Host, "tap0")
	m := nettest.Get[*nettest.Machine](t)(attach(ctx, p.Host, "guest", api.Attach{Device: "tap0"}))
	v := boot(t, tap, m.Addr)

	other := nettest.StartNeighbour(ctx, t, p.Host)
	nettest.Must(t, other.CreateOrg(ctx, "acme"))
	nettest.Must(t, other.CreateApp(ctx, "guest", "acme"))
	refused, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := attach(refused, other, "guest", api.Attach{Device: "tap0"})
	if says := failure(ctx, t, other, "guest", ""); err == nil || !strings.Contains(says, "one device has one agent") {
		t.Errorf("another agent's device: %v, it says %q", err, says)
	}
	v.ping(t, p.server.Addr, 1)
	nettest.Must(t, other.DestroyOthers(ctx, "guest", ""))
	v.ping(t, p.server.Addr, 2)
	pings(ctx, t, p.client, m.Addr, true)
}
