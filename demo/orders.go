package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// waitApplied: an order with wait=applied is in the kernel and in the names when it
// is answered, without any waiting of ours.
func waitApplied(ctx context.Context, w *world) (string, error) {
	const rounds = 10
	for range rounds {
		vip, err := w.host.AllocateVIP(ctx, appWeb, "")
		if err != nil {
			return "", err
		}
		name, err := lookup(ctx, w.client, "AAAA", "web.flycast")
		if err != nil {
			return "", err
		}
		if !strings.Contains(strings.Join(name.Answers, " "), vip.String()) {
			return "", fmt.Errorf("web.flycast is %v right after %s was allocated", name.Answers, vip)
		}
		got, err := connections(ctx, w.client, at(vip, vipPort))
		if err != nil {
			return "", err
		}
		if got.OK != 1 {
			return "", fmt.Errorf("a connection to %s, right after it was allocated: %v", vip, got.Errors)
		}
		answer, err := w.host.Client.DeleteIPAssignmentWithResponse(ctx, appWeb, vip.String(), &api.DeleteIPAssignmentParams{Wait: api.WaitForApplied})
		if err := api.Check(answer, err); err != nil {
			return "", err
		}
		if err := answers(ctx, w.client, "AAAA", "web.flycast", w.webVIP.String()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d times: an address answers and has its name as soon as the order for it does, and is gone likewise", rounds), nil
}

// flyToml is what deployRolling deploys.
const flyToml = `app = "rolling"

[env]
VERSION = "%s"

[processes]
app = "%s"

[[services]]
protocol = "tcp"
internal_port = 8080
  [[services.ports]]
  port = 80
  [[services.http_checks]]
  path = "/"
  interval = "1s"
  timeout = "10s"
`

// deploy runs the command as a user would, with a file.
func (w *world) deploy(ctx context.Context, version, command string, arguments ...string) (output string, err error) {
	path := filepath.Join(w.host.Dir, "fly.toml")
	if err := os.WriteFile(path, fmt.Appendf(nil, flyToml, version, command), 0o600); err != nil {
		return "", err
	}
	arguments = append([]string{"deploy", "--socket", w.host.Socket(), "-c", path, "--poll-interval", "50ms", "--settle-time", "100ms"}, arguments...)
	all, err := exec.CommandContext(ctx, w.host.Payload()[0], arguments...).CombinedOutput()
	return string(all), err
}

// deployRolling: a new version comes one Machine at a time and no request fails
// meanwhile; one that fails its checks is taken back.
func deployRolling(ctx context.Context, w *world) (detail string, err error) {
	vip, remove, err := w.app(ctx, "rolling")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	namespace, err := w.client.Namespace()
	if err != nil {
		return "", err
	}
	defer namespace.Close()
	server := strings.Join(w.host.Payload("web", fmt.Sprintf("[::]:%d", tcpPort)), " ")
	if output, err := w.deploy(ctx, "one", server, "--count", "2"); err != nil {
		return "", fmt.Errorf("the first deploy: %w: %s", err, output)
	}
	stop := w.ask(ctx, namespace, vip)
	output, err := w.deploy(ctx, "two", server, "--count", "2")
	asked, failed := stop()
	if err != nil {
		return "", fmt.Errorf("the second deploy: %w: %s", err, output)
	}
	if failed != nil || asked == 0 {
		return "", fmt.Errorf("of %d requests during the deploy one failed: %w", asked, failed)
	}
	if err := w.versions(ctx, namespace, vip, "two"); err != nil {
		return "", err
	}
	// It listens, but always answers "503": /proc is there from the start.
	bad := strings.Join(w.host.Payload("web", "-sick", "/proc", fmt.Sprintf("[::]:%d", tcpPort)), " ")
	output, err = w.deploy(ctx, "three", bad, "--count", "2", "--wait-timeout", "8s")
	if err == nil {
		return "", fmt.Errorf("a version that fails its checks was deployed: %s", output)
	}
	if err := w.versions(ctx, namespace, vip, "two"); err != nil {
		return "", fmt.Errorf("after a failed deploy: %w; it said %s", err, output)
	}
	return fmt.Sprintf("a new version on two Machines, and none of %d requests failed; a version that fails its checks was taken back", asked), nil
}

// ask asks an address without a pause until stop is called, which says how often it
// did and what first went wrong.
func (w *world) ask(ctx context.Context, namespace *netns.Namespace, vip netip.Addr) (stop func() (int, error)) {
	var ended atomic.Bool
	var asked int
	var failed error
	var running sync.WaitGroup
	running.Go(func() {
		for !ended.Load() && failed == nil && ctx.Err() == nil {
			_, failed = w.get(ctx, namespace, "http://"+at(vip, vipPort)+"/")
			asked++
		}
	})
	return func() (int, error) {
		ended.Store(true)
		running.Wait()
		return asked, failed
	}
}

// versions demands that two Machines answer, both of one version.
func (w *world) versions(ctx context.Context, namespace *netns.Namespace, vip netip.Addr, version string) error {
	seen := map[string]bool{}
	for range 40 {
		answer, err := w.get(ctx, namespace, "http://"+at(vip, vipPort)+"/")
		if err != nil {
			return err
		}
		id, got, _ := strings.Cut(answer, " ")
		if got != version {
			return fmt.Errorf("Machine %s has version %q, expected %q", id, got, version)
		}
		seen[id] = true
	}
	if len(seen) != 2 {
		return fmt.Errorf("%d Machines answer, expected 2", len(seen))
	}
	return nil
}

// appMove: an app goes to another org, and with it its names and its addresses.
func appMove(ctx context.Context, w *world) (detail string, err error) {
	_, remove, err := w.app(ctx, "nomad")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	m, err := w.host.Run(ctx, "nomad", nettest.Options{Name: "nomad-1", Services: services}, w.host.Payload(server()...)...)
	if err != nil {
		return "", err
	}
	before := m.Addr
	answer, err := w.host.Client.MoveAppWithResponse(ctx, "nomad", &api.MoveAppParams{Wait: api.WaitForApplied}, api.MoveAppRequest{OrgSlug: orgRival})
	if err := api.Check(answer, err); err != nil {
		return "", err
	}
	if err := m.Wait(ctx, "started"); err != nil {
		return "", err
	}
	moved, err := w.host.Client.GetMachineWithResponse(ctx, "nomad", m.ID)
	if err := api.Check(moved, err); err != nil {
		return "", err
	}
	if m.Addr, err = netip.ParseAddr(moved.JSON200.PrivateIP); err != nil {
		return "", err
	}
	if fields(m).Network != fields(w.spy).Network || fields(m).Network == fields(w.client).Network {
		return "", fmt.Errorf("its address was %s and is %s, expected one of org rival's network", before, m.Addr)
	}
	if err := answers(ctx, w.spy, "AAAA", "nomad.internal", m.Addr.String()); err != nil {
		return "", err
	}
	gone, err := lookup(ctx, w.client, "AAAA", "nomad.internal")
	if err != nil {
		return "", err
	}
	inside, err := connections(ctx, w.spy, at(m.Addr, tcpPort))
	if err != nil {
		return "", err
	}
	stale, err := connections(ctx, w.client, "-timeout", silence.String(), at(before, tcpPort))
	if err != nil {
		return "", err
	}
	across, err := connections(ctx, w.client, "-timeout", silence.String(), at(m.Addr, tcpPort))
	if err != nil {
		return "", err
	}
	if gone.Rcode != "NXDOMAIN" || inside.OK != 1 || stale.OK != 0 || across.OK != 0 {
		return "", fmt.Errorf("in its old org nomad.internal is %s, its old address answers %d times, its new one %d times; in its new org %d times",
			gone.Rcode, stale.OK, across.OK, inside.OK)
	}
	return fmt.Sprintf("nomad-1 was %s in acme and is %s in rival: name and address work there, and neither in acme", before, m.Addr), nil
}
