package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// answers compares what a name holds with what is expected, in any order.
func answers(ctx context.Context, m *nettest.Machine, kind, name string, want ...string) error {
	for _, transport := range [][]string{nil, {"-tcp"}} {
		got, err := lookup(ctx, m, append(transport, kind, name)...)
		if err != nil {
			return err
		}
		have := slices.Sorted(slices.Values(got.Answers))
		slices.Sort(want)
		if got.Rcode != "NOERROR" || !slices.Equal(have, want) {
			return fmt.Errorf("%s asks for %s %s: got %s %v %s, expected %v", m.Name, kind, name, got.Rcode, got.Answers, got.Error, want)
		}
		if got.Server != sixpn.DNS.String() {
			return fmt.Errorf("/etc/resolv.conf names %s, expected %s", got.Server, sixpn.DNS)
		}
	}
	return nil
}

func dnsApp(ctx context.Context, w *world) (string, error) {
	err := answers(ctx, w.client, "AAAA", "web.internal", w.web[0].Addr.String(), w.web[1].Addr.String())
	return "web.internal holds web-1 and web-2, over UDP and TCP", err
}

func dnsFlycast(ctx context.Context, w *world) (string, error) {
	err := answers(ctx, w.client, "AAAA", "web.flycast", w.webVIP.String())
	return "web.flycast is " + w.webVIP.String(), err
}

func dnsApps(ctx context.Context, w *world) (string, error) {
	const apps = appAway + "," + appClient + "," + appFleet + "," + appSolo + "," + appWeb
	return "_apps.internal is " + apps, answers(ctx, w.client, "TXT", "_apps.internal", apps)
}

// dnsStopped: a Machine leaves the names when it stops and comes back to them.
func dnsStopped(ctx context.Context, w *world) (string, error) {
	stopped := w.web[1]
	if err := stopped.Stop(ctx); err != nil {
		return "", err
	}
	// While its process still runs, not only when that has ended.
	early := nettest.Eventually(ctx, "web-2 has left web.internal", func(ctx context.Context) error {
		return answers(ctx, w.client, "AAAA", "web.internal", w.web[0].Addr.String())
	})
	if state, err := stopped.State(ctx); err != nil || state != "stopping" {
		early = errors.Join(early, fmt.Errorf("web-2 is %q already, expected stopping", state), err)
	}
	if err := stopped.Wait(ctx, "stopped"); err != nil {
		return "", err
	}
	late := answers(ctx, w.client, "AAAA", "web.internal", w.web[0].Addr.String())
	if err := stopped.Start(ctx); err != nil {
		return "", err
	}
	for _, err := range []error{early, late} {
		if err != nil {
			return "", err
		}
	}
	err := answers(ctx, w.client, "AAAA", "web.internal", w.web[0].Addr.String(), stopped.Addr.String())
	return "web-2 left web.internal while it was still stopping, and is back after its start", err
}

// dnsHidden: the names of one org are none in another.
func dnsHidden(ctx context.Context, w *world) (string, error) {
	for _, name := range []string{"web.internal", "web.flycast", "client.internal"} {
		got, err := lookup(ctx, w.spy, "AAAA", name)
		if err != nil {
			return "", err
		}
		if got.Rcode != "NXDOMAIN" || len(got.Answers) > 0 {
			return "", fmt.Errorf("spy-1 asks for %s: got %s %v, expected NXDOMAIN", name, got.Rcode, got.Answers)
		}
	}
	if err := answers(ctx, w.spy, "TXT", "_apps.internal", appOutpost+","+appSpy+","+appVault); err != nil {
		return "", err
	}
	err := answers(ctx, w.spy, "AAAA", "vault.internal", w.vault.Addr.String())
	return "to spy-1 web.internal and web.flycast do not exist, _apps.internal is outpost,spy,vault; vault.internal resolves", err
}

func surroundings(ctx context.Context, w *world) (payload.Surroundings, error) {
	return nettest.Probe[payload.Surroundings](ctx, w.client, "environment")
}

func hostsFile(ctx context.Context, w *world) (string, error) {
	seen, err := surroundings(ctx, w)
	if err != nil {
		return "", err
	}
	if !slices.Equal(seen.Local, []string{w.client.Addr.String()}) {
		return "", fmt.Errorf("fly-local-6pn resolves to %v, expected %s; /etc/hosts is %q", seen.Local, w.client.Addr, seen.Hosts)
	}
	for _, address := range seen.Localhost {
		if a, err := netip.ParseAddr(address); err != nil || !a.IsLoopback() {
			return "", fmt.Errorf("localhost resolves to %v", seen.Localhost)
		}
	}
	if want := "nameserver " + sixpn.DNS.String(); len(seen.Localhost) == 0 || strings.TrimSpace(seen.ResolvConf) != want {
		return "", fmt.Errorf("localhost resolves to %v and /etc/resolv.conf is %q, expected %q", seen.Localhost, seen.ResolvConf, want)
	}
	return "fly-local-6pn is " + seen.Local[0] + ", localhost is local, the nameserver is " + sixpn.DNS.String(), nil
}

func variables(ctx context.Context, w *world) (string, error) {
	seen, err := surroundings(ctx, w)
	if err != nil {
		return "", err
	}
	status, err := w.host.Status(ctx)
	if err != nil {
		return "", err
	}
	want := map[string]string{
		"FLY_PRIVATE_IP":    w.client.Addr.String(),
		"FLY_APP_NAME":      w.client.App,
		"FLY_REGION":        status.Agent.Region,
		"FLY_MACHINE_ID":    w.client.ID,
		"FLY_PROCESS_GROUP": "app",
	}
	for name, value := range want {
		if seen.Environment[name] != value {
			return "", fmt.Errorf("%s is %q, expected %q", name, seen.Environment[name], value)
		}
	}
	return fmt.Sprintf("FLY_PRIVATE_IP, FLY_APP_NAME, FLY_REGION, FLY_MACHINE_ID=%s and FLY_PROCESS_GROUP are set", w.client.ID), nil
}
