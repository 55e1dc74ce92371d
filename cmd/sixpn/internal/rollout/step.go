package rollout

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
)

// change begins a step: afterwards the Machine has its new configuration, is asked
// to start, and Flycast leaves it alone until it has proved itself.
func (x *run) change(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.outcomes[i].Result = Running
	if x.plan.Steps[i].Action == Create {
		return x.create(ctx, i)
	}
	return x.update(ctx, i)
}

func (x *run) create(ctx context.Context, i int) error {
	step := x.plan.Steps[i]
	x.tell(i, "making it")
	id := machineID()
	requested, cancel := request(ctx)
	defer cancel()
	answer, err := x.Client.CreateMachineWithResponse(requested, x.plan.App, &api.CreateMachineParams{}, api.CreateMachineRequest{
		ID: id, Name: step.Name, Region: x.plan.Region, Config: step.Config, SkipLaunch: true,
		LeaseTTL: max(1, int(x.LeaseTTL/time.Second)),
	})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	x.outcomes[i].MachineID = id
	x.leases.keep(id, answer.JSON200.Nonce)
	if err := x.cordon(requested, i); err != nil {
		return err
	}
	params := &api.StartMachineParams{FlyMachineLeaseNonce: x.leases.nonce(id)}
	if err := api.Check(x.Client.StartMachineWithResponse(requested, x.plan.App, id, params)); err != nil {
		return err
	}
	m, err := x.get(requested, id)
	x.instance[i] = m.InstanceID
	return err
}

func (x *run) update(ctx context.Context, i int) error {
	step := x.plan.Steps[i]
	x.tell(i, "giving it its new configuration")
	requested, cancel := request(ctx)
	defer cancel()
	if step.Launch && !step.Before.Cordoned {
		if err := x.cordon(requested, i); err != nil {
			return err
		}
	}
	return x.configure(requested, i, step.Config, step.Before.InstanceID)
}

// configure gives a Machine another configuration, which begins another run.
func (x *run) configure(ctx context.Context, i int, config api.MachineConfig, version string) error {
	id := x.outcomes[i].MachineID
	params := &api.UpdateMachineParams{FlyMachineLeaseNonce: x.leases.nonce(id)}
	answer, err := x.Client.UpdateMachineWithResponse(ctx, x.plan.App, id, params, api.UpdateMachineRequest{
		Config: config, CurrentVersion: version, SkipLaunch: !x.plan.Steps[i].Launch,
	})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	x.instance[i] = answer.JSON200.InstanceID
	return nil
}

// cordon keeps new connections from a Machine, so that none meets a command that
// does not listen yet. Should nobody be there to uncordon it, that ends with the lease.
func (x *run) cordon(ctx context.Context, i int) error {
	if len(x.plan.Steps[i].Config.Services)+len(x.plan.Steps[i].Before.Config.Services) == 0 {
		return nil
	}
	id := x.outcomes[i].MachineID
	params := &api.CordonMachineParams{FlyMachineLeaseNonce: x.leases.nonce(id), WithLease: true}
	x.cordoned[i] = true
	return api.Check(x.Client.CordonMachineWithResponse(ctx, x.plan.App, id, params))
}

func (x *run) uncordon(ctx context.Context, i int) error {
	if !x.cordoned[i] {
		return nil
	}
	id := x.outcomes[i].MachineID
	ctx, cancel := request(ctx)
	defer cancel()
	// The next Machine stops only when this one really takes connections.
	params := &api.UncordonMachineParams{FlyMachineLeaseNonce: x.leases.nonce(id), Wait: "applied"}
	err := api.Check(x.Client.UncordonMachineWithResponse(ctx, x.plan.App, id, params))
	if err != nil {
		return fmt.Errorf("let Flycast have it again (later: sixpn machine uncordon %s): %w", id, err)
	}
	x.cordoned[i] = false
	return nil
}

// destroy removes a Machine, and waits until it is gone.
func (x *run) destroy(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.outcomes[i].Result = Running
	x.tell(i, "destroying it")
	if err := x.remove(ctx, x.outcomes[i].MachineID); err != nil {
		return err
	}
	x.instance[i] = x.plan.Steps[i].Before.InstanceID
	x.finish(i)
	return nil
}

func (x *run) remove(ctx context.Context, id string) error {
	nonce := x.leases.nonce(id)
	x.leases.drop(id)
	requested, cancel := request(ctx)
	defer cancel()
	err := api.Check(x.Client.DestroyMachineWithResponse(requested, x.plan.App, id, &api.DestroyMachineParams{Force: true, FlyMachineLeaseNonce: nonce}))
	if err == nil && !x.Detach {
		err = api.Check(x.Client.WaitMachineWithResponse(ctx, x.plan.App, id, &api.WaitMachineParams{
			State: api.WaitMachineParamsStateDestroyed, Timeout: x.seconds(),
		}))
	}
	if api.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// takeBack undoes a step: a new Machine goes, another gets back what it was.
func (x *run) takeBack(ctx context.Context, i int) error {
	step, outcome := x.plan.Steps[i], x.outcomes[i]
	if step.Action == Create {
		return x.remove(ctx, outcome.MachineID)
	}
	if x.instance[i] == "" { // it never got the new configuration
		return x.uncordon(ctx, i)
	}
	requested, cancel := request(ctx)
	defer cancel()
	if step.Launch && !step.Before.Cordoned && !x.cordoned[i] {
		if err := x.cordon(requested, i); err != nil {
			return err
		}
	}
	if err := x.configure(requested, i, step.Before.Config, ""); err != nil {
		return errors.Join(err, x.uncordon(ctx, i))
	}
	var err error
	if step.Launch && !x.Detach {
		err = x.settledAs(ctx, i, step.Before.Config, !x.Immediate)
	}
	// It served before as it is now, so it shall again, whatever its checks say.
	return errors.Join(err, x.uncordon(ctx, i))
}

// wait returns when a Machine has started and, if checks is set, proved itself.
func (x *run) wait(ctx context.Context, i int, checks bool) error {
	err := x.settledAs(ctx, i, x.plan.Steps[i].Config, checks)
	if err != nil && ctx.Err() == nil {
		x.outcomes[i].Logs = x.logs(ctx, x.outcomes[i].MachineID)
	}
	return err
}

func (x *run) seconds() int { return max(1, min(3600, int(x.WaitTimeout/time.Second))) }

func (x *run) settledAs(ctx context.Context, i int, config api.MachineConfig, checks bool) error {
	id, instance := x.outcomes[i].MachineID, x.instance[i]
	began := time.Now()
	x.tell(i, "waiting until it has started")
	answer, err := x.Client.WaitMachineWithResponse(ctx, x.plan.App, id, &api.WaitMachineParams{
		State: api.WaitMachineParamsStateSettled, InstanceID: instance, Timeout: x.seconds(),
	})
	err = api.Check(answer, err)
	var answered *api.Error
	if errors.As(err, &answered) && answered.Code == http.StatusRequestTimeout {
		return fmt.Errorf("it has not started after %d seconds", x.seconds())
	}
	if err != nil {
		return err
	}
	m, err := x.get(ctx, id)
	if err != nil {
		return err
	}
	if m.State != "started" {
		return x.ended(m)
	}
	if !checks {
		return nil
	}
	if expected := config.CountChecks(); expected > 0 {
		return x.pass(ctx, i, m, expected, began.Add(x.WaitTimeout))
	}
	return x.goesOn(ctx, i, m)
}

// ended judges a Machine that does not run: one that was through with its work, and
// is not to do it again, is as good as one that goes on.
func (x *run) ended(m api.Machine) error {
	policy := m.Config.Restart.Policy
	if exit := m.LastExit(); m.State == "stopped" && exit != nil && exit.ExitCode == 0 && (policy == "" || policy == "no") {
		return nil
	}
	return fmt.Errorf("it is %s%s", m.State, m.Why())
}

// pass waits until all checks pass.
func (x *run) pass(ctx context.Context, i int, m api.Machine, expected int, deadline time.Time) error {
	for {
		passing, complaint := m.PassingChecks(), ""
		for _, check := range m.Checks {
			if check.Status != "passing" {
				complaint = fmt.Sprintf(": %s is %s, %s", check.Name, check.Status, cmp.Or(check.Output, "not answered yet"))
			}
		}
		switch {
		case m.State != "started":
			return x.ended(m)
		case passing >= expected:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%d of its %d checks pass after %v%s", passing, expected, x.WaitTimeout, complaint)
		}
		x.tell(i, fmt.Sprintf("waiting for its checks, %d of %d pass", passing, expected))
		var err error
		if m, err = x.next(ctx, m.ID); err != nil {
			return err
		}
	}
}

// goesOn watches a Machine that has no checks.
func (x *run) goesOn(ctx context.Context, i int, m api.Machine) error {
	x.tell(i, fmt.Sprintf("watching it for %v, since it has no checks", x.Settle))
	for end := time.Now().Add(x.Settle); time.Now().Before(end); {
		var err error
		if m, err = x.next(ctx, m.ID); err != nil {
			return err
		}
		switch {
		case m.State != "started":
			return x.ended(m)
		case m.Restarts > 0:
			return fmt.Errorf("it ended and was started again%s", m.Why())
		}
	}
	return nil
}

// next is a Machine a moment later.
func (x *run) next(ctx context.Context, id string) (api.Machine, error) {
	select {
	case <-ctx.Done():
		return api.Machine{}, ctx.Err()
	case <-time.After(x.Poll):
	}
	return x.get(ctx, id)
}

func (x *run) get(ctx context.Context, id string) (api.Machine, error) {
	answer, err := x.Client.GetMachineWithResponse(ctx, x.plan.App, id)
	if err := api.Check(answer, err); err != nil {
		return api.Machine{}, err
	}
	return *answer.JSON200, nil
}

// logLines is how much of what a failed Machine wrote is shown.
const logLines = 10

// logs is the end of what a Machine wrote, as far as it can be had.
func (x *run) logs(ctx context.Context, id string) string {
	response, err := x.Client.MachineLogs(ctx, x.plan.App, id, &api.MachineLogsParams{})
	if err := api.CheckResponse(response, err); err != nil {
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}

// machineID makes the id of a new Machine: the request that makes it can then be
// repeated, and what became of it be asked.
func machineID() string {
	var b [7]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
