package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
)

// hostClosed: of the host, Machines reach the resolver and nothing else, even what
// listens on every address, in the agent's namespace and in its private one.
func hostClosed(ctx context.Context, w *world) (string, error) {
	const port = 7777
	private, err := netns.Open(filepath.Join(w.host.RunDir(), "netns", w.host.Name))
	if err != nil {
		return "", err
	}
	defer private.Close()
	for _, do := range []func(func() error) error{w.host.Do, private.Do} {
		var listener net.Listener
		if err := do(func() (err error) {
			listener, err = net.Listen("tcp6", fmt.Sprintf("[::]:%d", port))
			return err
		}); err != nil {
			return "", err
		}
		defer listener.Close()
	}
	// The opposite: the resolver answers over TCP, and to ping.
	names, err := lookup(ctx, w.client, "-tcp", "TXT", "_apps.internal")
	if err != nil {
		return "", err
	}
	echo, err := ping(ctx, w.client, "-count", "3", sixpn.DNS.String())
	if err != nil {
		return "", err
	}
	if names.Rcode != "NOERROR" || echo.Received != 3 {
		return "", fmt.Errorf("the resolver itself does not answer: DNS %+v, ping %+v", names, echo)
	}
	f := fields(w.client)
	total := uint64(0)
	for _, row := range []struct{ reason, address string }{
		{"host_service", at(sixpn.DNS, port)},
		{"host_service", at(sixpn.NetworkDNS(f.Network), port)},
		{"host_service", at(sixpn.AgentAddr(f.Network, f.Host), port)},
		{"link_local", fmt.Sprintf("[%s%%%s]:%d", sixpn.Gateway, machine.GuestDevice, port)},
	} {
		var sent uint64
		dropped, err := w.dropped(ctx, row.reason, func() error {
			tcp, err := connections(ctx, w.client, "-count", "3", "-parallel", "3", "-timeout", silence.String(), row.address)
			if err == nil && tcp.OK > 0 {
				err = fmt.Errorf("%d connections to %s came through", tcp.OK, row.address)
			}
			sent = tcp.Segments
			return err
		})
		if err != nil {
			return "", err
		}
		if _, err := exactly(dropped, sent, row.reason, ""); err != nil {
			return "", fmt.Errorf("%s: %w", row.address, err)
		}
		total += sent
	}
	return fmt.Sprintf("listeners on [::]:%d of the host: none of %d segments reached one (host_service, link_local count them all); DNS and ping work", port, total), nil
}

// cannotTouchHost: root inside a Machine is nobody on its host. The same attempts
// by root of the host all succeed.
func cannotTouchHost(ctx context.Context, w *world) (string, error) {
	args := []string{
		"touch-host", "-secret", filepath.Join(w.host.StateDir(), "host.json"), "-device", machine.DeviceName(w.client.ID),
		"-pins", w.host.PinDir(), "-pid", fmt.Sprint(os.Getpid()),
	}
	inside, err := nettest.Probe[payload.Touched](ctx, w.client, args...)
	if err != nil {
		return "", err
	}
	command := w.host.Payload(args...)
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout = &output
	if err := w.host.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", err
	}
	var outside payload.Touched
	if err := json.Unmarshal(output.Bytes(), &outside); err != nil {
		return "", err
	}
	if len(inside.Succeeded) > 0 {
		return "", fmt.Errorf("from inside a Machine it was possible to %q", inside.Succeeded)
	}
	if len(outside.Refused) > 0 {
		return "", fmt.Errorf("even root of the host could not: %v", outside.Refused)
	}
	return fmt.Sprintf("root of client-1 tried %d things on its host, all were refused; root of the host may do all of them", len(inside.Refused)), nil
}

// detachedIsClosed: a device whose router is gone passes nothing at all. The agent
// is killed and all its pins are removed, which takes the router off every device;
// what is left is the drop filter. The next agent heals it.
func detachedIsClosed(ctx context.Context, w *world) (string, error) {
	namespace, err := w.client.Namespace()
	if err != nil {
		return "", err
	}
	defer namespace.Close()
	answers := func(limit time.Duration) (n int, err error) {
		err = namespace.Do(func() (err error) { n, err = askUDP(at(w.web[0].Addr, udpPort), probes, limit); return err })
		return n, err
	}
	before, err := answers(10 * time.Second)
	if err != nil {
		return "", err
	}
	if before != probes {
		return "", fmt.Errorf("with the router only %d of %d datagrams were answered", before, probes)
	}
	if err := w.host.KillAgent(); err != nil {
		return "", err
	}
	if err := os.RemoveAll(w.host.PinDir()); err != nil {
		return "", err
	}
	// The kernel takes a program off its device a moment after the last reference.
	detached := nettest.Eventually(ctx, "the router is off the device", func(context.Context) error {
		before, beforeErr := w.filterDrops(w.client)
		n, err := answers(50 * time.Millisecond)
		after, afterErr := w.filterDrops(w.client)
		err = errors.Join(beforeErr, err, afterErr)
		if err == nil && (n > 0 || after < before+probes) {
			err = fmt.Errorf("%d datagrams are answered, and %d dropped", n, after-before)
		}
		return err
	})
	closedBefore, err := w.filterDrops(w.client)
	if err != nil {
		return "", err
	}
	passed, probeErr := answers(300 * time.Millisecond)
	a, err := enter(w.client)
	if err != nil {
		return "", err
	}
	defer a.close()
	frames := a.repeat(func(i int) []byte { return echoPacket(w.client.Addr, w.web[0].Addr, 1, uint16(i)) })
	closedAfter, err := w.filterDrops(w.client)
	// Whatever was seen, the world needs its agent again.
	if err := errors.Join(err, detached, probeErr, frames, w.startAgent(ctx)); err != nil {
		return "", err
	}
	if passed > 0 {
		return "", fmt.Errorf("%d datagrams passed a device without a router", passed)
	}
	if closedAfter < closedBefore+probes {
		return "", fmt.Errorf("the drop filter counts %d packets, expected %d at least", closedAfter-closedBefore, probes)
	}
	// The guest's kernel may have given its gateway up meanwhile, and asks again.
	err = nettest.Eventually(ctx, "the next agent heals it", func(context.Context) error {
		n, err := answers(5 * time.Second)
		if err == nil && n != probes {
			err = fmt.Errorf("only %d of %d datagrams were answered", n, probes)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("agent killed and pins deleted: no packet passed, the drop filter counts +%d; healed by the next agent, %d of %d answered",
		closedAfter-closedBefore, probes, probes), nil
}

// askUDP sends n datagrams and counts the answers.
func askUDP(address string, n int, limit time.Duration) (answers int, err error) {
	socket, err := net.Dial("udp6", address)
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	for range n {
		if _, err := socket.Write([]byte("probe")); err != nil {
			return 0, err
		}
	}
	if err := socket.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	buffer := make([]byte, 2048)
	for answers < n {
		if _, err := socket.Read(buffer); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return answers, nil
			}
			return answers, err
		}
		answers++
	}
	return answers, nil
}

// filterDrops is what the drop filter of a Machine's device has dropped.
func (w *world) filterDrops(m *nettest.Machine) (drops uint64, err error) {
	err = w.host.Do(func() error {
		device, err := netlink.LinkByName(machine.DeviceName(m.ID))
		if err != nil {
			return err
		}
		qdiscs, err := netlink.QdiscList(device)
		if err != nil {
			return err
		}
		for _, qdisc := range qdiscs {
			if s := qdisc.Attrs().Statistics; qdisc.Type() == "clsact" && s != nil && s.Queue != nil {
				drops += uint64(s.Queue.Drops)
			}
		}
		return nil
	})
	return drops, err
}
