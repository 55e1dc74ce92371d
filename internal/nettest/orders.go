package nettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/netns"
)

const payloadName = payload.Name

// Status asks the agent.
func (h *Host) Status(ctx context.Context) (api.Status, error) {
	answer, err := h.Client.GetStatusWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return api.Status{}, err
	}
	return *answer.JSON200, nil
}

// Drops is how many packets were dropped for a reason since the tables were made.
func (h *Host) Drops(ctx context.Context, reason string) (uint64, error) {
	status, err := h.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, drop := range status.Drops {
		if drop.Reason == reason {
			return drop.Packets, nil
		}
	}
	return 0, nil
}

// CreateOrg makes an org.
func (h *Host) CreateOrg(ctx context.Context, slug string) error {
	answer, err := h.Client.CreateOrgWithResponse(ctx, &api.CreateOrgParams{}, api.CreateOrgRequest{Slug: slug})
	return api.Check(answer, err)
}

// CreateApp makes an app in an org's default network.
func (h *Host) CreateApp(ctx context.Context, name, org string) error {
	answer, err := h.Client.CreateAppWithResponse(ctx, &api.CreateAppParams{}, api.CreateAppRequest{Name: name, OrgSlug: org})
	return api.Check(answer, err)
}

// AllocateVIP gives an app a Flycast address that the Machines of an org reach, its
// own if org is "", and returns once the data plane has it.
func (h *Host) AllocateVIP(ctx context.Context, app, org string) (netip.Addr, error) {
	answer, err := h.Client.CreateIPAssignmentWithResponse(ctx, app, &api.CreateIPAssignmentParams{Wait: api.WaitForApplied},
		api.CreateIPAssignmentRequest{Type: "private_v6", OrgSlug: org})
	if err := api.Check(answer, err); err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(answer.JSON200.IP)
}

// Machine is a Machine that was created through the API.
type Machine struct {
	Host *Host
	App  string
	Name string
	ID   string
	Addr netip.Addr
}

// Options are what a Machine is besides its command.
type Options struct {
	Name     string
	Region   string            // default the host's
	Checks   []api.HealthCheck // of its first service
	Services []string          // "80:8080/tcp", "7000-7003:7000/udp": VIP ports, internal port, protocol
	Env      map[string]string
	MTU      int
	Restart  string
	Linger   time.Duration // between the stop signal and SIGKILL; 0: the agent's
	Metadata map[string]string
	Hidden   bool // has no name
}

// Run creates a Machine and returns once it is started.
func (h *Host) Run(ctx context.Context, app string, o Options, command ...string) (*Machine, error) {
	env := maps.Clone(detector)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, o.Env)
	config := api.MachineConfig{
		Init: api.Init{Exec: command}, Env: env, MTU: o.MTU,
		Restart:    api.Restart{Policy: o.Restart},
		StopConfig: api.StopConfig{Timeout: api.DurationValue(o.Linger)},
		Metadata:   o.Metadata, DNS: api.DNSConfig{SkipRegistration: o.Hidden},
	}
	for _, s := range o.Services {
		service, err := parseService(s)
		if err != nil {
			return nil, err
		}
		config.Services = append(config.Services, service)
	}
	if len(o.Checks) > 0 {
		config.Services[0].Checks = o.Checks
	}
	answer, err := h.Client.CreateMachineWithResponse(ctx, app, &api.CreateMachineParams{}, api.CreateMachineRequest{Name: o.Name, Region: o.Region, Config: config})
	if err := api.Check(answer, err); err != nil {
		return nil, fmt.Errorf("create a Machine of app %s: %w", app, err)
	}
	addr, err := netip.ParseAddr(answer.JSON200.PrivateIP)
	if err != nil {
		return nil, err
	}
	m := &Machine{Host: h, App: app, Name: answer.JSON200.Name, ID: answer.JSON200.ID, Addr: addr}
	if err := m.Wait(ctx, "started"); err != nil {
		logs, _ := m.Logs(ctx)
		return nil, fmt.Errorf("%w; its log is %q", err, logs)
	}
	return m, nil
}

// parseService reads PORT[-PORT]:INTERNAL/PROTOCOL.
func parseService(s string) (api.Service, error) {
	ports, rest, ok1 := strings.Cut(s, ":")
	internal, protocol, ok2 := strings.Cut(rest, "/")
	number, err := strconv.Atoi(internal)
	if !ok1 || !ok2 || err != nil {
		return api.Service{}, fmt.Errorf("service %q is malformed, expected e.g. 80:8080/tcp", s)
	}
	first, last, isRange := strings.Cut(ports, "-")
	port := api.ServicePort{}
	if !isRange {
		port.Port, err = strconv.Atoi(first)
	} else if port.StartPort, err = strconv.Atoi(first); err == nil {
		port.EndPort, err = strconv.Atoi(last)
	}
	return api.Service{Protocol: protocol, InternalPort: number, Ports: []api.ServicePort{port}}, err
}

// Wait returns once the Machine is in a state and the data plane knows it.
func (m *Machine) Wait(ctx context.Context, state string) error {
	answer, err := m.Host.Client.WaitMachineWithResponse(ctx, m.App, m.ID, &api.WaitMachineParams{
		State: api.WaitMachineParamsState(state), Timeout: int(patience.Seconds()),
	})
	if err := api.Check(answer, err); err != nil {
		return fmt.Errorf("wait until Machine %s of %s is %s: %w", m.ID, m.App, state, err)
	}
	return m.Host.Settle(ctx)
}

// State is what the API says of the Machine.
func (m *Machine) State(ctx context.Context) (string, error) {
	answer, err := m.Host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
	if err := api.Check(answer, err); err != nil {
		return "", err
	}
	return answer.JSON200.State, nil
}

// Settle returns once the data plane has everything that was written before.
func (h *Host) Settle(ctx context.Context) error {
	return h.applies(ctx, -1)
}

// applies waits for a revision, or for what is wanted now if that is negative.
func (h *Host) applies(ctx context.Context, revision int64) error {
	return Eventually(ctx, "the data plane has the latest revision", func(ctx context.Context) error {
		status, err := h.Status(ctx)
		if err != nil {
			return err
		}
		if revision < 0 {
			revision = status.Revision.Wanted
		}
		if status.Revision.Applied < revision {
			return fmt.Errorf("revision %d is applied, %d was wanted: %s", status.Revision.Applied, revision, status.Agent.Message)
		}
		return nil
	})
}

// Stop asks for the Machine's end; Wait tells when it has come.
func (m *Machine) Stop(ctx context.Context) error {
	answer, err := m.Host.Client.StopMachineWithResponse(ctx, m.App, m.ID, &api.StopMachineParams{Wait: api.WaitForApplied}, api.StopRequest{})
	return api.Check(answer, err)
}

// Start starts a stopped Machine, and returns once it is started.
func (m *Machine) Start(ctx context.Context) error {
	answer, err := m.Host.Client.StartMachineWithResponse(ctx, m.App, m.ID, &api.StartMachineParams{})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	return m.Wait(ctx, "started")
}

// Migrate moves the Machine to another host, and returns once it is started there and the
// data planes of both hosts know it.
func (m *Machine) Migrate(ctx context.Context, to *Host) error {
	answer, err := m.Host.Client.MigrateMachineWithResponse(ctx, m.App, m.ID, &api.MigrateMachineParams{}, api.MigrateRequest{HostName: to.Name})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	err = Eventually(ctx, "the Machine is on the other host", func(ctx context.Context) error {
		answer, err := to.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		record := answer.JSON200
		if record.Migration != nil && record.Migration.Error != "" {
			return Final(errors.New(record.Migration.Error))
		}
		if record.HostName != to.Name || record.State != "started" || record.Migration != nil {
			return fmt.Errorf("it is %s on %s, and its migration is %+v", record.State, record.HostName, record.Migration)
		}
		m.Addr, err = netip.ParseAddr(record.PrivateIP)
		return err
	})
	if err != nil {
		return err
	}
	from := m.Host
	m.Host = to
	return errors.Join(to.Settle(ctx), from.Settle(ctx))
}

// Destroy ends the Machine for good, and returns once it is gone.
func (m *Machine) Destroy(ctx context.Context) error {
	answer, err := m.Host.Client.DestroyMachineWithResponse(ctx, m.App, m.ID, &api.DestroyMachineParams{Force: true})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	return Eventually(ctx, "the Machine is gone", func(ctx context.Context) error {
		answer, err := m.Host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err != nil {
			return err
		}
		if answer.StatusCode() != 404 {
			return fmt.Errorf("it is still known: %s", answer.Body)
		}
		return nil
	})
}

// Logs is all that the Machine's command wrote and is kept.
func (m *Machine) Logs(ctx context.Context) (string, error) {
	answer, err := m.Host.Client.MachineLogsWithResponse(ctx, m.App, m.ID, &api.MachineLogsParams{})
	if err := api.Check(answer, err); err != nil {
		return "", err
	}
	return string(answer.Body), nil
}

// Exec runs a command inside and returns what it wrote to its output.
func (m *Machine) Exec(ctx context.Context, command ...string) (string, error) {
	answer, err := m.Host.Client.ExecMachineWithResponse(ctx, m.App, m.ID, api.ExecRequest{Command: command})
	if err := api.Check(answer, err); err != nil {
		return "", fmt.Errorf("run %q in Machine %s: %w", command, m.ID, err)
	}
	result := answer.JSON200
	if result.ExitCode != 0 {
		return result.Stdout, fmt.Errorf("%q in Machine %s ended with exit code %d: %s%s", command, m.ID, result.ExitCode, result.Stdout, result.Stderr)
	}
	return result.Stdout, nil
}

// Probe runs a payload inside and decodes its result.
func Probe[T any](ctx context.Context, m *Machine, args ...string) (result T, err error) {
	output, err := m.Exec(ctx, m.Host.Payload(args...)...)
	if err != nil {
		return result, err
	}
	if err := json.Unmarshal([]byte(output), &result); err != nil {
		return result, fmt.Errorf("payload %q wrote %q: %w", args, output, err)
	}
	return result, nil
}

// Namespace opens the Machine's network namespace, which root of the host may
// enter. It is the caller's to close.
func (m *Machine) Namespace() (*netns.Namespace, error) {
	pid, err := m.PID()
	if err != nil {
		return nil, err
	}
	return netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// PID is a process of the Machine as the host sees it.
func (m *Machine) PID() (int, error) {
	pids, err := m.PIDs()
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("machine %s has no process", m.ID)
	}
	if err != nil {
		return 0, err
	}
	return pids[0], nil
}

// PIDs are the processes of the Machine as the host sees them.
func (m *Machine) PIDs() (pids []int, err error) {
	// What a Machine leaves on disk is described in the machine package.
	content, err := os.ReadFile(filepath.Join(m.Host.StateDir(), "machines", m.ID, "record.json"))
	if err != nil {
		return nil, err
	}
	var record struct {
		Cgroup string `json:"cgroup"`
	}
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, err
	}
	processes, err := os.ReadFile(filepath.Join(record.Cgroup, "payload", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(processes)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
