package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/state"
)

// adopt takes over a run of an earlier agent, before run is called.
func (w *worker) adopt(ctx context.Context, p *Process) {
	switch p.Phase() {
	case PhaseCreated:
		// Its command never ran. It is made anew, which is simpler than to find
		// out how far the network had come.
		w.unstarted = new(p.Spec())
		if err := w.end(ctx, p); err != nil {
			w.log.Warn("a machine that was half made is not gone yet", "error", err)
		}
	case PhaseRunning:
		w.setProcess(p)
		w.frozen = p.Frozen()
		if err := w.addPort(ctx, p); err != nil {
			w.portDue = true
			w.log.Warn("an adopted machine has no port yet", "error", err)
		}
	case PhaseEnded:
		if p.ExitStatus().Started {
			w.setProcess(p) // step notes the end
		} else {
			w.unstarted = new(p.Spec())
			w.removePort(ctx)
		}
	}
}

// addPort gives the port of a run of an earlier agent to Ports again.
func (w *worker) addPort(ctx context.Context, p *Process) error {
	w.portDue = false
	if p == nil {
		return nil
	}
	device, err := FindVeth(w.id)
	if errors.Is(err, os.ErrNotExist) {
		// Nothing can ever reach it again.
		return errors.Join(fmt.Errorf("its device is gone, so it is ended: %w", err), p.Kill())
	}
	if err == nil {
		port := portOf(w.id, p.Spec().Addr, device)
		port.Adopted = true
		err = w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Add(ctx, port) })
	}
	w.portDue = err != nil
	return err
}

func (w *worker) ports(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, w.m.config.PortTimeout)
	defer cancel()
	return f(ctx)
}

func (w *worker) removePort(ctx context.Context) {
	w.portDue = false
	err := w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Remove(ctx, w.id) })
	if err == nil {
		err = deleteOwnVeth(w.m.config.Name, w.id)
	}
	if err != nil && ctx.Err() == nil {
		w.log.Warn("the port of a machine was not removed", "error", err)
	}
}

// start makes a run and connects it. Nothing runs before the port is up. It is false
// when nothing was tried, for the Machine is another host's by now, or no more.
func (w *worker) start(ctx context.Context, record state.Machine, attempt, restarts int) bool {
	if record.Config.Attach != nil {
		w.attach(ctx, record, attempt, restarts)
		return true
	}
	err := w.say(ctx, outcome{state: state.Starting, code: w.exitCode(record), restarts: restarts, instance: record.InstanceID})
	if kind := state.KindOf(err); kind == state.Conflict || kind == state.NotFound {
		return false
	}
	w.reached("starting written")
	p, err := w.m.config.Driver.Create(ctx, w.m.spec(record, attempt))
	w.reached("machine created")
	if err == nil {
		if err = w.connect(ctx, record, p); err == nil {
			w.setProcess(p)
			w.log.Info("a machine started", "device", DeviceName(w.id), "address", record.Addr())
			if !w.awaitListeners(ctx, record, p) {
				return true
			}
			w.settle(ctx, outcome{state: state.Started, code: w.exitCode(record), restarts: restarts, relayed: p.Relayed(), instance: record.InstanceID})
			w.reached("started written")
			return true
		}
		if endErr := w.end(ctx, p); endErr != nil {
			err = errors.Join(err, endErr)
		}
	}
	if ctx.Err() != nil {
		return true // the next agent finds it as it is
	}
	w.removePort(ctx)
	w.log.Warn("a machine could not be started", "error", err)
	// considerStart says so in the record, as it knows what comes next.
	w.last = &lastRun{instance: record.InstanceID, attempt: attempt, code: 1, failed: true, message: err.Error()}
	return true
}

// connect gives a created run its network and starts its command.
func (w *worker) connect(ctx context.Context, record state.Machine, p *Process) error {
	namespace, err := p.NetNS(ctx)
	if err != nil {
		return err
	}
	defer namespace.Close()
	w.reached("namespace opened")
	mtu := record.Config.MTU
	if mtu == 0 {
		mtu = w.m.config.MTU
	}
	device, err := CreateVeth(ctx, namespace, VethConfig{
		ID: w.id, Alias: AliasOf(w.m.config.Name, w.id), MTU: mtu, XDP: w.m.config.XDP,
	})
	if err != nil {
		return err
	}
	w.reached("device made")
	if err := w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Add(ctx, portOf(w.id, p.Spec().Addr, device)) }); err != nil {
		return fmt.Errorf("connect it to the router: %w", err)
	}
	w.reached("port added")
	if err := ConfigureGuest(ctx, namespace, GuestConfig{Addr: record.Addr()}); err != nil {
		return err
	}
	w.reached("guest configured")
	err = p.Start(ctx)
	w.reached("command started")
	return err
}

func (w *worker) reached(step string) { w.m.config.Driver.reached(step) }

// end kills a run and waits until nothing of it is left.
func (w *worker) end(ctx context.Context, p *Process) error {
	if err := p.Kill(); err != nil {
		return err
	}
	select {
	case <-p.Exited():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noteEnd deals with a run that is over.
func (w *worker) noteEnd(ctx context.Context, p *Process) {
	status := p.ExitStatus()
	last := &lastRun{
		instance: p.Spec().Instance, attempt: p.Spec().Attempt, code: status.Code,
		lost: status.Lost, rebooted: status.Lost && status.Rebooted, message: status.Message,
	}
	if !status.StartedAt.IsZero() && !status.Lost {
		last.lasted = status.FinishedAt.Sub(status.StartedAt)
	}
	w.last, w.restartDue = last, time.Time{}
	w.setProcess(nil)
	w.frozen = false
	w.log.Info("a machine ended", "code", status.Code, "lost", status.Lost, "message", status.Message)
	// First the record, so that no table chooses it any more, then the port; but
	// a store that is away does not keep a dead port alive.
	if r := w.current(); r != nil && r.State != state.Stopped && r.State != state.Failed && r.Desired != state.Destroyed {
		message := status.Message // an end that was asked for explains itself
		if r.Desired == state.Started && r.InstanceID == last.instance {
			message = last.describe(decision{})
		}
		w.settle(ctx, outcome{state: state.Stopped, code: &status.Code, message: message, restarts: w.restarts(*r)})
		w.reached("stopped written")
	}
	w.removePort(ctx)
	w.reached("port removed")
}

// stop ends a run in order: out of all tables, the signal, then the end.
func (w *worker) stop(ctx context.Context, p *Process) (time.Duration, bool) {
	record := w.current()
	if record == nil {
		return 0, false
	}
	w.outcome = outcome{state: state.Stopping, code: record.ExitCode, restarts: record.Restarts}
	revision, err := w.publish(ctx)
	if err != nil {
		w.log.Warn("a stop waits for the store", "error", err)
		return w.m.config.RetryInterval, false
	}
	w.reached("stopping written")
	w.awaitApplied(ctx, revision, "a machine is stopped although the kernel's tables may still choose it")
	w.terminate(ctx, p, stopConfig(*record))
	w.reached("command ended")
	if ctx.Err() != nil {
		return never, false // the next agent goes on with it
	}
	return 0, false // the end is noted by the next step
}

// terminate sends the stop signal and, after the timeout, SIGKILL to all.
func (w *worker) terminate(ctx context.Context, p *Process, c state.StopConfig) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = w.m.config.StopTimeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	// A frozen Machine would never see the signal.
	signalCtx, cancel := context.WithTimeout(ctx, timeout)
	err := errors.Join(p.Thaw(signalCtx), p.Signal(signalCtx, stopSignal(c.Signal)))
	cancel()
	w.frozen = false
	if err != nil && p.Phase() != PhaseEnded && ctx.Err() == nil {
		w.log.Warn("the stop signal was not delivered", "error", err)
	}
	select {
	case <-p.Exited():
		return
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	if err := w.end(ctx, p); err != nil && ctx.Err() == nil {
		w.log.Warn("a machine was not killed", "error", err)
	}
}

// stopConfig is how a Machine is stopped: as the command that stops it said, else
// as its config says.
func stopConfig(r state.Machine) state.StopConfig {
	return state.StopConfig{
		Signal:  cmp.Or(r.Stop.Signal, r.Config.StopConfig.Signal),
		Timeout: cmp.Or(r.Stop.Timeout, r.Config.StopConfig.Timeout),
	}
}

// stopSignal is the signal of a stop_config: a name with or without SIG, or a
// number. Anything else is SIGTERM.
func stopSignal(name string) syscall.Signal {
	name = strings.ToUpper(strings.TrimSpace(name))
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); s != 0 {
		return s
	}
	return syscall.SIGTERM
}

// destroy ends a Machine for good: the run, the port, the directory, and only
// then the record, so that whatever is left is always found by its record.
func (w *worker) destroy(ctx context.Context, p *Process) (time.Duration, bool) {
	if p != nil {
		return w.stop(ctx, p)
	}
	w.outcome = outcome{state: state.Destroying}
	_, err := w.publish(ctx)
	if err == nil {
		w.reached("destroying written")
		if err = w.detach(ctx); err == nil {
			w.removePort(ctx)
			err = w.m.config.Driver.Remove(ctx, w.id)
		}
		w.reached("directory removed")
	}
	if err == nil {
		w.unpublished = false
		storeCtx, cancel := context.WithTimeout(ctx, w.m.config.StoreTimeout)
		defer cancel()
		_, err = w.m.config.Store.DestroyMachine(storeCtx, w.id)
		w.reached("record removed")
	}
	if err != nil {
		if ctx.Err() == nil && w.current() != nil {
			w.log.Warn("a machine is not destroyed yet", "error", err)
		}
		return w.m.config.RetryInterval, false
	}
	w.destroyed = true
	return never, false
}

// forget removes what is left of a Machine that has no record any more.
func (w *worker) forget(ctx context.Context) (time.Duration, bool) {
	if p := w.running(); p != nil {
		w.log.Warn("a machine without a record is ended")
		if err := w.end(ctx, p); err != nil {
			return w.m.config.RetryInterval, false
		}
		w.setProcess(nil)
	}
	if err := w.detach(ctx); err != nil {
		w.log.Warn("a machine without a record is not detached", "error", err)
		return w.m.config.RetryInterval, false
	}
	w.removePort(ctx)
	if err := w.m.config.Driver.Remove(ctx, w.id); err != nil {
		w.log.Warn("a machine's directory was not removed", "error", err)
		return w.m.config.RetryInterval, false
	}
	// One with this id may come again: it begins anew.
	w.last, w.outcome, w.unstarted, w.unpublished, w.destroyed = nil, outcome{}, nil, false, false
	return never, true
}
