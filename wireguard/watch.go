package wireguard

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// Run restores the mesh when its engine has ended or does not answer any more, or its
// device was removed: all that WireGuard knows of its peers was in there. A device that is found again
// keeps its index and what is attached to it; one that is made anew is down, and
// told by Changed. Run ends with the context, without an error.
func (m *Mesh) Run(ctx context.Context) error {
	for {
		if m.Device().Kernel {
			m.waitDevice(ctx)
		} else {
			m.waitEngine(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		m.log.Warn("the mesh was lost and is restored", "device", m.Device().Name)
		if !m.restore(ctx) {
			return nil
		}
	}
}

// waitEngine returns when the engine has ended, cannot be reached, or seems to hang.
// What of it does not end is left to establish.
func (m *Mesh) waitEngine(ctx context.Context) {
	p, err := findEngine(DeviceName(m.config.Name), m.home)
	if err != nil {
		return
	}
	defer p.close()
	working, hangs := context.WithCancel(ctx)
	defer hangs()
	go func() {
		m.askEngine(working)
		hangs()
	}()
	if err := p.lost(working); err != nil {
		return
	}
	// Only then can another engine take up the device.
	ctx, cancel := context.WithTimeout(ctx, m.config.StartTimeout)
	defer cancel()
	if err := p.wait(ctx); err != nil {
		m.log.Warn("the mesh's engine closed its socket and goes on", "error", err)
	}
}

// askEngine returns when the engine has twice in a row not said in time that it is at
// work: a host that stood still for a moment has it answer the second time.
func (m *Mesh) askEngine(ctx context.Context) {
	for missed := 0; missed < 2; {
		if !pause(ctx, m.config.AskInterval) {
			return
		}
		err := atWork(ctx, DeviceName(m.config.Name), m.config.AnswerTimeout)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			missed = 0
		default:
			missed++
			m.log.Warn("the mesh's engine gave no answer", "device", m.Device().Name, "times", missed, "error", err)
		}
	}
}

// waitDevice returns when the kernel's device is gone, or is another one. Its work
// is done by the kernel, so there is nothing else to lose.
func (m *Mesh) waitDevice(ctx context.Context) {
	for pause(ctx, m.config.RestoreInterval) {
		var link netlink.Link
		err := m.home.Do(func() error {
			var err error
			link, err = netlink.LinkByName(DeviceName(m.config.Name))
			return err
		})
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
			return
		case err != nil:
			m.log.Warn("the mesh's device cannot be looked for", "error", err)
		case uint32(link.Attrs().Index) != m.Device().Ifindex:
			return
		}
	}
}

// restore tries until the mesh is there again, or the context ends.
func (m *Mesh) restore(ctx context.Context) bool {
	said := ""
	for {
		err := m.restoreOnce(ctx)
		if err == nil {
			m.log.Info("the mesh was restored", "device", m.Device().Name)
			return true
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.log.Error("the mesh cannot be restored yet", "error", err)
		}
		if !pause(ctx, m.config.RestoreInterval) {
			return false
		}
	}
}

func (m *Mesh) restoreOnce(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.device.Ifindex
	if err := m.establish(ctx); err != nil {
		return err
	}
	if m.device.Ifindex != before {
		select {
		case m.changed <- struct{}{}:
		default: // not yet taken, and it says the same
		}
	}
	return nil
}

// pause returns false when the context ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
