package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// linger is how long a server works on after its stop signal.
const linger = 3 * time.Second

// balance: connections to a VIP are spread over the backends, which see the
// client's /112.
func balance(ctx context.Context, w *world) (string, error) {
	const count = 200
	got, err := connections(ctx, w.client, "-count", fmt.Sprint(count), "-parallel", "4", at(w.webVIP, vipPort))
	if err != nil {
		return "", err
	}
	if got.OK != count {
		return "", fmt.Errorf("only %d of %d connections came through: %v", got.OK, count, got.Errors)
	}
	first, second := got.Answers[w.web[0].ID], got.Answers[w.web[1].ID]
	if first+second != count || min(first, second) < count/4 {
		return "", fmt.Errorf("answers by backend are %v, expected about half each of %s and %s", got.Answers, w.web[0].ID, w.web[1].ID)
	}
	own := sixpn.MachinePrefix(fields(w.client).Network, fields(w.client).Host, fields(w.client).Machine)
	for seen := range got.Clients {
		if a, err := netip.ParseAddr(seen); err != nil || !own.Contains(a) {
			return "", fmt.Errorf("a backend saw the client as %s, expected an address of %s", seen, own)
		}
	}
	return fmt.Sprintf("%d connections to %s: web-1 %d, web-2 %d; both see the client in %s", count, w.webVIP, first, second, own), nil
}

func flycastUDP(ctx context.Context, w *world) (string, error) {
	const count = 64
	got, err := datagrams(ctx, w.client, "-count", fmt.Sprint(2*count), "-flows", fmt.Sprint(count), at(w.webVIP, udpPort))
	if err != nil {
		return "", err
	}
	first, second := got.Answers[w.web[0].ID], got.Answers[w.web[1].ID]
	if got.Received != 2*count || min(first, second) == 0 {
		return "", fmt.Errorf("%d of %d datagrams were answered, by backend %v: %v", got.Received, 2*count, got.Answers, got.Errors)
	}
	return fmt.Sprintf("%d datagrams in %d flows: web-1 answered %d, web-2 %d", 2*count, count, first, second), nil
}

// flycastEcho: a VIP answers ping; an address that is no VIP does not.
func flycastEcho(ctx context.Context, w *world) (string, error) {
	got, err := ping(ctx, w.client, "-count", "5", w.webVIP.String())
	if err != nil {
		return "", err
	}
	if got.Received != 5 {
		return "", fmt.Errorf("only %d of 5 pings were answered: %v", got.Received, got.Errors)
	}
	absent := sixpn.VIPAddr(fields(w.client).Network, 0xdead)
	sent := 0
	dropped, err := w.dropped(ctx, "no_vip", func() error {
		got, err := ping(ctx, w.client, "-count", "5", "-timeout", "300ms", absent.String())
		if err == nil && got.Received > 0 {
			err = fmt.Errorf("%s is no VIP and answers ping", absent)
		}
		sent = got.Sent
		return err
	})
	if err != nil {
		return "", err
	}
	return exactly(dropped, uint64(sent), "no_vip", "%s answers 5 pings; %s, which is no VIP, none", w.webVIP, absent)
}

// held is "hold" at work in the background, with connections to the VIP of web.
type held struct {
	w     *world
	first int // of them to web-1
	until string
	done  chan struct{}
	seen  []payload.Held
	err   error
}

// Half of the connections send all the time, half of them nothing. They are so many that
// each backend gets some of both.
const holds = 64

// hold opens connections through the VIP and returns once all of them are flows.
func (w *world) hold(ctx context.Context, name string) (*held, error) {
	h := &held{w: w, until: "/tmp/" + name, done: make(chan struct{})}
	// Those of checks before may still be closing.
	err := nettest.Eventually(ctx, "the VIP has no connection", func(ctx context.Context) error {
		now, err := w.flows(ctx)
		if err == nil && now > 0 {
			err = fmt.Errorf("there are %d", now)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(h.done)
		h.seen, h.err = nettest.Probe[[]payload.Held](ctx, w.client, "hold", "-count", fmt.Sprint(holds), "-quiet", fmt.Sprint(holds/2), "-until", h.until, at(w.webVIP, vipPort))
	}()
	err = nettest.Eventually(ctx, "connections are held through the VIP", func(ctx context.Context) error {
		now, err := w.flows(ctx)
		if err != nil {
			return err
		}
		if now != holds {
			return fmt.Errorf("there are %d flows, expected %d", now, holds)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	first, err := w.flows(ctx, w.web[0].ID)
	h.first = int(first)
	return h, err
}

// flows is how many live TCP flows the VIP of web has, with these backends or, if
// there are none given, with all.
func (w *world) flows(ctx context.Context, machines ...string) (flows uint64, err error) {
	status, err := w.host.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, service := range status.Services {
		if service.Vip == w.webVIP.String() && service.Protocol == "tcp" {
			for _, backend := range service.Backends {
				if len(machines) == 0 || slices.Contains(machines, backend.MachineID) {
					flows += backend.Flows
				}
			}
		}
	}
	return flows, nil
}

// established counts the TCP connections that a Machine has with an address.
func established(m *nettest.Machine, remote netip.Addr) (n int, err error) {
	pid, err := m.PID()
	if err != nil {
		return 0, err
	}
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp6", pid))
	if err != nil {
		return 0, err
	}
	// proc(5): addresses are four words in the host's order, 01 is ESTABLISHED.
	b, want := remote.As16(), ""
	for i := 0; i < len(b); i += 4 {
		want += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b[i:]))
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && strings.HasPrefix(fields[2], want+":") && fields[3] == "01" {
			n++
		}
	}
	return n, nil
}

// end lets the connections end and returns what became of each.
func (h *held) end(ctx context.Context) ([]payload.Held, error) {
	if _, err := h.w.client.Exec(ctx, h.w.host.Payload("touch", h.until)...); err != nil {
		return nil, err
	}
	<-h.done
	return h.seen, h.err
}

// backendStop: a backend that stops gets no new flow, keeps those it has while its
// process runs, and when that is gone its clients get a reset.
func backendStop(ctx context.Context, w *world) (string, error) {
	h, err := w.hold(ctx, "backend-stop")
	if err != nil {
		return "", err
	}
	stopping := w.web[1]
	if err := stopping.Stop(ctx); err != nil {
		return "", err
	}
	fresh, err := connections(ctx, w.client, "-count", "40", at(w.webVIP, vipPort))
	if err != nil {
		return "", err
	}
	if err := stopping.Wait(ctx, "stopped"); err != nil {
		return "", err
	}
	alone, err := connections(ctx, w.client, "-count", "20", at(w.webVIP, vipPort))
	if err != nil {
		return "", err
	}
	// The clients are told now, also those that send nothing.
	told := nettest.Eventually(ctx, "the clients of the stopped backend know", func(ctx context.Context) error {
		open, err := established(w.client, w.webVIP)
		if err != nil {
			return err
		}
		if open != h.first {
			return fmt.Errorf("client-1 has %d connections to the VIP, %d of %d were to web-1", open, h.first, holds)
		}
		return nil
	})
	seen, endErr := h.end(ctx)
	if err := stopping.Start(ctx); err != nil {
		return "", err
	}
	if err := errors.Join(endErr, told); err != nil {
		return "", err
	}
	if fresh.OK != 40 || fresh.Answers[w.web[0].ID] != 40 {
		return "", fmt.Errorf("while web-2 stopped, new connections were answered by %v (%v), expected 40 by web-1", fresh.Answers, fresh.Errors)
	}
	if alone.OK != 20 || alone.Answers[w.web[0].ID] != 20 {
		return "", fmt.Errorf("after web-2 stopped, new connections were answered by %v (%v), expected 20 by web-1", alone.Answers, alone.Errors)
	}
	kept, reset, quiet := 0, 0, 0
	for _, c := range seen {
		switch {
		case c.Server == w.web[0].ID && c.End == "done":
			kept++
		case c.Server == stopping.ID && c.End == "reset" && c.Lasted >= int(linger.Milliseconds())*8/10:
			reset++
			if c.Quiet {
				quiet++
			}
		default:
			return "", fmt.Errorf("a connection to %s ended as %q after %d ms and %d messages", c.Server, c.End, c.Lasted, c.Messages)
		}
	}
	if kept == 0 || reset == 0 || quiet == 0 {
		return "", fmt.Errorf("%d connections were kept, %d reset, %d of these while quiet, expected some of each", kept, reset, quiet)
	}
	return fmt.Sprintf("web-2 stopped: 60 new connections all to web-1; its %d established ones worked until its process was gone, then got a reset, also the %d that sent nothing; %d to web-1 untouched", reset, quiet, kept), nil
}

// survivesAdd: a new backend takes new flows and leaves the established ones alone.
func survivesAdd(ctx context.Context, w *world) (string, error) {
	h, err := w.hold(ctx, "survives-add")
	if err != nil {
		return "", err
	}
	added, err := w.addWeb(ctx, "web-3")
	if err != nil {
		return "", err
	}
	fresh, err := connections(ctx, w.client, "-count", "90", "-parallel", "3", at(w.webVIP, vipPort))
	if err != nil {
		return "", err
	}
	seen, err := h.end(ctx)
	if err != nil {
		return "", err
	}
	if err := added.Destroy(ctx); err != nil {
		return "", err
	}
	if fresh.OK != 90 || fresh.Answers[added.ID] == 0 {
		return "", fmt.Errorf("of 90 new connections %d came through and the new backend got %d: %v", fresh.OK, fresh.Answers[added.ID], fresh.Errors)
	}
	for _, c := range seen {
		if c.End != "done" || c.Server == added.ID {
			return "", fmt.Errorf("a connection to %s ended as %q after %d messages", c.Server, c.End, c.Messages)
		}
	}
	return fmt.Sprintf("web-3 was added and got %d of 90 new connections; %d established ones went on", fresh.Answers[added.ID], len(seen)), nil
}

// ownBackend: a Machine reaches itself through its VIP, and sees itself as nobody
// else can.
func ownBackend(ctx context.Context, w *world) (string, error) {
	got, err := connections(ctx, w.solo, "-count", "20", at(w.soloVIP, vipPort))
	if err != nil {
		return "", err
	}
	if got.OK != 20 || got.Answers[w.solo.ID] != 20 {
		return "", fmt.Errorf("%d of 20 connections came through, by backend %v: %v", got.OK, got.Answers, got.Errors)
	}
	udp, err := datagrams(ctx, w.solo, "-count", "20", "-flows", "4", at(w.soloVIP, udpPort))
	if err != nil {
		return "", err
	}
	if udp.Received != 20 {
		return "", fmt.Errorf("%d of 20 datagrams were answered: %v", udp.Received, udp.Errors)
	}
	example := ""
	for seen := range got.Clients {
		a, err := netip.ParseAddr(seen)
		if err != nil {
			return "", err
		}
		if kind, f := sixpn.Classify(a); kind != sixpn.KindOwnBackend || f.Network != fields(w.solo).Network || f.Machine != fields(w.solo).Machine {
			return "", fmt.Errorf("it saw itself as %s, expected %s", a, "its address of host field 0:2")
		}
		example = seen
	}
	return fmt.Sprintf("solo-1 → %s → solo-1: 20 connections and 20 datagrams; it sees itself as e.g. %s", w.soloVIP, example), nil
}
