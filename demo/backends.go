package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// app makes an app of org acme with a Flycast address; remove takes both away again.
func (w *world) app(ctx context.Context, name string) (vip netip.Addr, remove func() error, err error) {
	if err := w.host.CreateApp(ctx, name, orgAcme); err != nil {
		return vip, nil, err
	}
	remove = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
		defer cancel()
		answer, err := w.host.Client.DestroyAppWithResponse(ctx, name, &api.DestroyAppParams{})
		return api.Check(answer, err)
	}
	vip, err = w.host.AllocateVIP(ctx, name, "")
	if err != nil {
		err = errors.Join(err, remove())
	}
	return vip, remove, err
}

// ipv4OnlyBackend: a server on 0.0.0.0 is reached through Flycast, and the record
// says that it does not see who asks.
func ipv4OnlyBackend(ctx context.Context, w *world) (detail string, err error) {
	vip, remove, err := w.app(ctx, "legacy")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	m, err := w.host.Run(ctx, "legacy", nettest.Options{Name: "legacy-1", Services: services[:1]}, w.host.Payload("serve", "-tcp4", fmt.Sprint(tcpPort))...)
	if err != nil {
		return "", err
	}
	const count = 20
	got, err := connections(ctx, w.client, "-count", fmt.Sprint(count), at(vip, vipPort))
	if err != nil {
		return "", err
	}
	if got.OK != count || got.Answers[m.ID] != count {
		return "", fmt.Errorf("%d of %d connections came through, by server %v: %v", got.OK, count, got.Answers, got.Errors)
	}
	// What is relayed is written at its own pace.
	err = nettest.Eventually(ctx, "the Machine's record tells of the relay", func(ctx context.Context) error {
		answer, err := w.host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if ports := answer.JSON200.RelayedPorts; len(ports) != 1 || ports[0] != tcpPort {
			return fmt.Errorf("its relayed ports are %v, expected %d", ports, tcpPort)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d connections to a server on 0.0.0.0:%d; its status says that a relay hides the client", count, tcpPort), nil
}

// checkInterval is the shortest that a check may have.
const checkInterval = time.Second

// answerTimeout is what a check waits, so that a server that is only slow stays healthy.
const answerTimeout = 10 * time.Second

// health: a backend whose check fails gets no new connection, unless all fail.
func health(ctx context.Context, w *world) (detail string, err error) {
	vip, remove, err := w.app(ctx, "checked")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	const sick = "/tmp/sick"
	var machines [2]*nettest.Machine
	for i := range machines {
		machines[i], err = w.host.Run(ctx, "checked", nettest.Options{
			Name: fmt.Sprintf("checked-%d", i+1), Services: services[:1],
			Checks: []api.HealthCheck{{Type: "http", Path: "/", Interval: api.DurationValue(checkInterval), Timeout: api.DurationValue(answerTimeout)}},
		}, w.host.Payload("web", "-sick", sick, fmt.Sprintf("[::]:%d", tcpPort))...)
		if err != nil {
			return "", err
		}
	}
	for _, step := range []struct {
		machine int
		command []string
		want    []int // indexes of who answers afterwards
		status  string
	}{
		{0, w.host.Payload("touch", sick), []int{1}, "critical"},
		{1, w.host.Payload("touch", sick), []int{0, 1}, "critical"}, // all are sick: all are used
		{0, []string{"rm", sick}, []int{0}, "passing"},
		{1, []string{"rm", sick}, []int{0, 1}, "passing"},
	} {
		m := machines[step.machine]
		if _, err := m.Exec(ctx, step.command...); err != nil {
			return "", err
		}
		err := nettest.Eventually(ctx, m.Name+" is "+step.status, func(ctx context.Context) error {
			answer, err := w.host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if checks := answer.JSON200.Checks; len(checks) != 1 || checks[0].Status != step.status {
				return fmt.Errorf("its checks are %+v", checks)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		if err := w.host.Settle(ctx); err != nil {
			return "", err
		}
		seen, err := w.backends(ctx, vip, 40)
		if err != nil {
			return "", err
		}
		for i, m := range machines {
			wanted := false
			for _, index := range step.want {
				wanted = wanted || index == i
			}
			if (seen[m.ID] > 0) != wanted {
				return "", fmt.Errorf("with %s %s, connections by Machine are %v", machines[step.machine].Name, step.status, seen)
			}
		}
	}
	return "a failing backend gets no new connection, two failing ones get all of them, one that heals is back", nil
}

// backends opens connections to a Flycast address from inside client-1, and counts
// them by the Machine they lead to. A sick one is known by its flow alone.
func (w *world) backends(ctx context.Context, vip netip.Addr, count int) (map[string]int, error) {
	before, err := w.choices(ctx, vip)
	if err != nil {
		return nil, err
	}
	namespace, err := w.client.Namespace()
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	for range count {
		err := namespace.Do(func() error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp6", at(vip, vipPort))
			if err != nil {
				return err
			}
			return conn.Close()
		})
		if err != nil {
			return nil, err
		}
	}
	after, err := w.choices(ctx, vip)
	for id, n := range before {
		after[id] -= n
	}
	return after, err
}

// choices is how many flows each Machine behind an address was ever given.
func (w *world) choices(ctx context.Context, vip netip.Addr) (map[string]int, error) {
	samples, err := w.scrape(ctx)
	if err != nil {
		return nil, err
	}
	given := map[string]int{}
	for _, s := range samples["sixpn_backend_choices_total"] {
		if s.labels["vip"] == vip.String() {
			given[s.labels["machine"]] += int(s.value)
		}
	}
	return given, nil
}

// get asks a Flycast address over HTTP, each time by a new connection.
func (w *world) get(ctx context.Context, namespace interface{ Do(func() error) error }, url string) (body string, err error) {
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = namespace.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return strings.TrimSpace(string(content)), err
}
