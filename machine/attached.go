package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sixpn/sixpn/state"
)

// attached is the device of a Machine that something else runs, while it is a port.
type attached struct {
	attachment
	gone  <-chan struct{}
	heard <-chan net.HardwareAddr // nil: the guest's hardware address is known
	stop  context.CancelFunc      // of what watches it
}

// watch looks after a device that is a port, or is about to be one.
func (w *worker) watch(ctx context.Context, a attachment) (*attached, error) {
	ctx, cancel := context.WithCancel(ctx)
	all := &attached{attachment: a, stop: cancel}
	if len(a.Device.GuestMAC) == 0 {
		h, err := hear(ctx, a.Device.Ifindex, a.Addr)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("listen for the guest behind %s: %w", a.Device.Name, err)
		}
		all.heard = h.heard
	}
	all.gone = w.m.deviceGone(ctx, a.Device.Ifindex)
	return all, nil
}

// attach makes the device of something that runs elsewhere a port. Once it is one,
// the Machine counts as started: whether anything behind it works is not known here.
func (w *worker) attach(ctx context.Context, record state.Machine, attempt, restarts int) {
	w.settle(ctx, outcome{state: state.Starting, restarts: restarts, instance: record.InstanceID})
	w.reached("starting written")
	err := w.connectAttached(ctx, record, attempt)
	if err == nil {
		w.log.Info("a machine is attached", "device", w.attached.Device.Name, "address", record.Addr())
		w.settle(ctx, outcome{state: state.Started, restarts: restarts, instance: record.InstanceID})
		w.reached("started written")
		return
	}
	if ctx.Err() != nil {
		return // the next agent undoes it
	}
	if undoErr := w.detach(ctx); undoErr != nil {
		err = errors.Join(err, undoErr)
	}
	w.log.Warn("a machine could not be attached", "error", err)
	w.last = &lastRun{instance: record.InstanceID, attempt: attempt, code: 1, failed: true, message: err.Error()}
}

func (w *worker) connectAttached(ctx context.Context, record state.Machine, attempt int) error {
	if err := w.detach(ctx); err != nil { // what an earlier try left
		return err
	}
	boot, err := BootID()
	if err != nil {
		return err
	}
	mtu := record.Config.MTU
	setDefault(&mtu, w.m.config.MTU)
	c := *record.Config.Attach
	a := attachment{Instance: record.InstanceID, Attempt: attempt, Addr: record.Addr(), Attach: c, BootID: boot}
	var namespace *os.File
	if a.Made = c.Device == ""; a.Made {
		if namespace, err = openNetNS(c); err != nil {
			return err
		}
		defer namespace.Close()
	} else if a.Device, err = lookAtDevice(w.id, c, mtu); err != nil {
		return err
	}
	driver := w.m.config.Driver
	// The run of a process that this Machine once was is history.
	if err := os.Remove(filepath.Join(driver.directory(w.id), recordFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := w.m.claim(w.id, a); err != nil {
		return err
	}
	w.reached("attachment written")
	inside := ""
	if a.Made {
		veth := VethConfig{ID: w.id, Alias: AliasOf(w.m.config.Name, w.id), MTU: mtu, XDP: w.m.config.XDP}
		if a.Device, inside, err = makeInNetNS(ctx, namespace, veth); err != nil {
			return err
		}
		if err := driver.writeAttachment(w.id, a); err != nil {
			return err
		}
		w.reached("device made")
	}
	watched, err := w.watch(ctx, a)
	if err != nil {
		return err
	}
	w.attached = watched
	if err := w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Add(ctx, a.port(w.id)) }); err != nil {
		return fmt.Errorf("connect it to the router: %w", err)
	}
	w.reached("port added")
	if a.Made {
		if err := ConfigureGuest(ctx, namespace, GuestConfig{Addr: a.Addr, Device: inside, Shared: true}); err != nil {
			return err
		}
	}
	w.attached.Up = true
	return driver.writeAttachment(w.id, w.attached.attachment)
}

// claim writes down that a device is a Machine's, unless it is another's. A refusal
// writes nothing: what is written is what a detachment lets go of.
func (m *Manager) claim(id string, a attachment) error {
	m.claiming.Lock()
	defer m.claiming.Unlock()
	driver := m.config.Driver
	ids, err := driver.Attachments()
	if err != nil {
		return err
	}
	for _, other := range ids {
		theirs, err := readAttachment(driver.directory(other))
		if err == nil && other != id && !a.Made && theirs.present() && theirs.Device.Ifindex == a.Device.Ifindex {
			return fmt.Errorf("device %s is that of machine %s: detach it there first (sixpn machine detach %s)", a.Device.Name, other, other)
		}
	}
	return driver.writeAttachment(id, a)
}

// detach takes the device of a Machine away from the router, as its directory says;
// there may be none. A device that was there before stays, down.
func (w *worker) detach(ctx context.Context) error {
	if w.attached != nil {
		w.attached.stop()
		w.attached = nil
	}
	driver := w.m.config.Driver
	a, err := readAttachment(driver.directory(w.id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Remove(ctx, w.id) }); err != nil {
		return err
	}
	w.reached("port removed")
	if a.Made {
		if err := DeleteVeth(w.id); err != nil {
			return err
		}
	}
	return driver.removeAttachment(w.id)
}

// adoptAttached goes on with what an earlier agent attached, before run is called.
// What cannot be gone on with is detached, and attached anew if the record still
// wants it.
func (w *worker) adoptAttached(ctx context.Context) {
	a, err := readAttachment(w.m.config.Driver.directory(w.id))
	if err == nil && a.Up && a.present() {
		if w.attached, err = w.watch(ctx, a); err == nil {
			port := a.port(w.id)
			port.Adopted = true
			err = w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Add(ctx, port) })
		}
		if err == nil {
			return
		}
		w.log.Warn("an attached machine is attached anew", "error", err)
	}
	if err := w.detach(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("the device of a machine was not detached", "error", err)
	}
}

// stepAttached is step for a Machine that is attached.
func (w *worker) stepAttached(ctx context.Context, record state.Machine, retry time.Duration) (time.Duration, bool) {
	select {
	case <-w.attached.gone:
		w.noteGone(ctx, record)
		return 0, false
	default:
	}
	if record.Desired == state.Started && w.attached.Instance == record.InstanceID {
		w.settle(ctx, outcome{state: state.Started, restarts: w.restarts(record), instance: record.InstanceID})
		return w.retryOr(retry), false
	}
	w.outcome = outcome{state: state.Stopping, restarts: record.Restarts}
	revision, err := w.publish(ctx)
	if err != nil {
		w.log.Warn("a detachment waits for the store", "error", err)
		return w.m.config.RetryInterval, false
	}
	w.reached("stopping written")
	w.awaitApplied(ctx, revision, "a machine is detached although the kernel's tables may still choose it")
	if err := w.detach(ctx); err != nil {
		if ctx.Err() == nil {
			w.log.Warn("a machine is not detached yet", "error", err)
		}
		return w.m.config.RetryInterval, false
	}
	w.last = nil
	w.log.Info("a machine is detached")
	if record.Desired != state.Destroyed {
		w.settle(ctx, outcome{state: state.Stopped, restarts: w.restarts(record)})
	}
	return 0, false
}

// noteGone deals with a device that somebody took away.
func (w *worker) noteGone(ctx context.Context, record state.Machine) {
	a := w.attached.attachment
	message := fmt.Sprintf("device %s is gone: make it again, then start the machine", a.Device.Name)
	if a.Made {
		message = "its network namespace is gone, or the device in it: attach it anew when it is there again"
	}
	w.last = &lastRun{instance: a.Instance, attempt: a.Attempt, code: 1, failed: true, message: message}
	w.log.Warn("the device of an attached machine is gone", "device", a.Device.Name)
	if record.Desired != state.Destroyed {
		w.settle(ctx, outcome{state: state.Failed, message: message, restarts: w.restarts(record)})
	}
	if err := w.detach(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("the port of a machine was not removed", "error", err)
	}
}

// learn makes the router reach a guest that was heard.
func (w *worker) learn(ctx context.Context, mac net.HardwareAddr) error {
	w.attached.heard, w.attached.Device.GuestMAC = nil, mac
	if err := w.m.config.Driver.writeAttachment(w.id, w.attached.attachment); err != nil {
		return err
	}
	port := w.attached.port(w.id)
	port.Adopted = true
	w.log.Info("the guest of an attached machine was heard", "mac", mac.String())
	return w.ports(ctx, func(ctx context.Context) error { return w.m.config.Ports.Add(ctx, port) })
}

// hearAgain has a guest that was heard learned once more after a while.
func (w *worker) hearAgain(mac net.HardwareAddr) {
	again := make(chan net.HardwareAddr, 1)
	w.attached.heard = again
	time.AfterFunc(w.m.config.RetryInterval, func() { again <- mac })
}
