package maps

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sixpn/sixpn/bpf"
)

// Sync makes the tables what is wanted. It may end after any single write, by an
// error or by ctx, and be called again. A *RefusedError says that all went well but
// for what found no room; that is tried again by the next Sync.
//
// Sync first frees what the grace period of earlier ones kept. When Changes.Waiting
// is not 0, call it again after that period, with the same Want if there is no other.
func (t *Tables) Sync(ctx context.Context, want Want) (Changes, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	w := &writer{ctx: ctx, after: t.options.AfterWrite, changes: Changes{Tables: map[string]int{}}}
	if err := want.check(); err != nil {
		return w.changes, err
	}
	k, err := t.readKernel()
	if err != nil {
		return w.changes, err
	}
	if !t.known {
		if err := t.recover(k); err != nil {
			return w.changes, err
		}
	}
	t.known = false // until this one has come to its end
	pass := &pass{Tables: t, writer: w, kernel: k, want: want, now: t.options.Now(), before: k.regions()}
	if err := pass.run(); err != nil {
		return w.changes, err
	}
	t.known = true
	t.used = k.used()
	t.seats, t.ended, t.void = pass.seats(), pass.endedSeats(), nil
	w.changes.Waiting = pass.waiting()
	w.changes.Gone = pass.newlyGone
	if len(w.refused) > 0 {
		return w.changes, &RefusedError{Errors: w.refused}
	}
	return w.changes, nil
}

// recover learns from the kernel what another agent, or an interrupted Sync, left.
func (t *Tables) recover(k *kernel) error {
	var taken []span
	for s := range k.regions() {
		taken = append(taken, s)
	}
	strays, err := t.strayRegions(taken)
	if err != nil {
		return err
	}
	t.letGo = nil
	for _, s := range strays {
		t.letGo = append(t.letGo, letGo{s, t.options.Now()})
	}
	t.highest = 0
	for index, element := range k.backends.all {
		if element != (bpf.RouterBackend{}) {
			t.highest = uint32(index)
		}
	}
	return nil
}

// pass is one Sync at work.
type pass struct {
	*Tables
	*writer
	*kernel
	want   Want
	now    time.Time
	before map[span]bool // regions in use when it began

	holes    holes
	counters map[uint32]uint32 // index into port_counters, by ifindex
	placed   map[serviceKey]placement
	users    map[user]uint32 // elements of `backends` in use
	keep     map[uint32]bool // those that are wanted
	nextFree uint32          // no element below is free
	inUse    int             // quotas that live flows keep

	newlyGone int
}

// run is the order of a Sync.
func (p *pass) run() error {
	steps := []func() error{
		// What nothing points to, since long enough.
		p.freeRegions,
		p.freeBackends,
		p.freeQuotas,
		// What would lead to another network once its device is another Machine's.
		p.cutReusedDevices,
		p.makeRoom,
		// The private namespace answers everybody: it comes first.
		p.numberPorts,
		p.putHostPorts,
		p.putMeshDevice,
		p.putQuotas,
		p.putMachines,
		p.putServices,
		p.putVIPs,
		p.putAllocations,
		p.putMachinePorts,
	}
	if !p.want.AddOnly {
		steps = append(steps,
			p.removePorts,
			p.removeAllocations,
			p.removeVIPs,
			p.removeServices,
			p.removeMachines,
		)
	}
	// Last, for a service may have moved away from a backend only just now.
	steps = append(steps, p.flagBackends, p.releaseRegions)
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom removes what is not wanted before anything is added, in tables that cannot
// hold both: better a moment of no answer than none for good.
func (p *pass) makeRoom() error {
	if p.want.AddOnly {
		return nil
	}
	singles, ranges := p.wantedServices()
	rooms := []struct {
		crowded bool
		remove  func() error
	}{
		// Every port has its counters, and these are fewer than places for ports.
		{crowded(&p.ports, p.wantedPorts(), min(p.ports.max, p.maps.PortCounters.MaxEntries())), p.removePorts},
		{crowded(&p.allocations, p.wantedAllocations(), p.allocations.max), p.removeAllocations},
		{crowded(&p.vips, p.wantedVIPs(), p.vips.max), p.removeVIPs},
		{crowded(&p.services, singles, p.services.max) || crowded(&p.ranges, ranges, p.ranges.max), p.removeServices},
		{crowded(&p.machines, p.wantedMachines(), p.machines.max), p.removeMachines},
	}
	for _, room := range rooms {
		if !room.crowded {
			continue
		}
		if err := room.remove(); err != nil {
			return err
		}
	}
	return nil
}

// freeRegions wipes the regions whose grace period is over: a free element is zero.
func (p *pass) freeRegions() error {
	taken := make([]span, 0, len(p.before)+len(p.letGo))
	for s := range p.before {
		taken = append(taken, s)
	}
	// A copy: if this is cut short, the next one recovers from the kernel.
	for _, region := range slices.Clone(p.letGo) {
		if p.now.Sub(region.since) < p.options.Grace {
			taken = append(taken, region.span)
			continue
		}
		what := fmt.Sprintf("the free region at %d", region.offset)
		if err := p.writeRegion(p.writer, what, region.span, make([]uint32, region.length)); err != nil {
			return err
		}
		p.letGo = slices.DeleteFunc(p.letGo, func(other letGo) bool { return other == region })
	}
	p.holes = newHoles(p.maps.Maglev.MaxEntries(), taken)
	return nil
}

// releaseRegions starts the grace period of the regions that this pass left.
func (p *pass) releaseRegions() error {
	after := p.regions()
	for s := range p.before {
		if !after[s] {
			p.letGo = append(p.letGo, letGo{s, p.now})
		}
	}
	return nil
}

// waiting counts what later passes will free.
func (p *pass) waiting() int {
	return len(p.letGo) + len(p.gone) + len(p.unused) + p.inUse
}
