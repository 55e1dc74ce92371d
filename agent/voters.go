package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// memberTimeout is for one change of the store's members; a new one reads all of it.
const memberTimeout = 2 * time.Minute

// voters keeps as many members of the fleet's own store as there should be. Each host
// sees for itself what is next, and does its own part: it becomes a member, or takes
// out one that is lost.
type voters struct {
	*agent
	life  context.Context       // of the task
	since map[uint64]time.Time  // when each member was first seen without its host
	of    map[uint64]sixpn.Host // whose each member was when that was last seen
	left  map[uint64]bool       // members of removed hosts that are still to go
	ended chan error            // of this host's own member
}

// openMember starts this host's member of the store, if it was one. It serves once
// there is a majority, which need not be now.
func (a *agent) openMember(ctx context.Context) {
	if !state.HasData(a.config.storeDir()) {
		return
	}
	member, err := state.StartEmbedded(ctx, state.EmbeddedConfig{Dir: a.config.storeDir(), Log: a.log, Listen: a.fleet.Listen(a.read.Load), Async: true})
	if err != nil {
		// The others have the store too; this one is replaced, or repaired by hand.
		a.log.Error("this host's member of the store does not start: the host goes on as a client of the others", "error", err)
		return
	}
	a.member = member
}

// keepVoters is the task.
func (a *agent) keepVoters(ctx context.Context) error {
	if a.fleet == nil || len(a.config.Store) > 0 {
		<-ctx.Done()
		return nil
	}
	v := &voters{agent: a, life: ctx, since: map[uint64]time.Time{}, of: map[uint64]sixpn.Host{}, left: map[uint64]bool{}}
	v.watch()
	ticker := time.NewTicker(a.config.Timeouts.Members)
	defer ticker.Stop()
	for {
		var again <-chan time.Time
		if len(v.left) > 0 {
			again = time.After(unseatRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-v.ended:
			v.lostSeat(ctx, err)
			continue
		case id := <-a.unseating:
			v.left[id] = true
			continue
		case <-again:
		case <-ticker.C:
		}
		if err := v.step(ctx); err != nil && ctx.Err() == nil {
			a.log.Info("the members of the store stay as they are for now", "error", err)
		}
	}
}

// watch learns when this host's own member ends.
func (v *voters) watch() {
	v.ended = make(chan error, 1)
	if member := v.member; member != nil {
		ended := v.ended
		go func() { ended <- member.Wait(v.life) }() // ends with the task
	}
}

// lostSeat is when this host's member stopped: the others have removed it, or its disk
// failed. What it holds is of no use either way.
func (v *voters) lostSeat(ctx context.Context, why error) {
	if ctx.Err() != nil {
		return
	}
	v.log.Warn("this host's member of the store has ended: the host goes on as a client of the others", "error", why)
	if err := v.member.Close(); err != nil {
		v.log.Debug("the member was closed", "error", err)
	}
	v.member = nil
	v.watch()
}

// step does what is next, if it is this host's part.
func (v *voters) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	if change, _, err := v.next(ctx); err != nil || !v.mine(change) {
		return err
	}
	return state.ChangingMembers(ctx, v.client, func(ctx context.Context) error {
		change, members, err := v.next(ctx) // another host may have done it
		if err != nil || !v.mine(change) {
			return err
		}
		return v.do(ctx, change, members)
	})
}

// next decides, by the state and the members as they are now.
func (v *voters) next(ctx context.Context) (fleet.Change, []state.StoreMember, error) {
	members, err := state.StoreMembers(ctx, v.client)
	if err != nil {
		return fleet.Change{}, nil, err
	}
	snapshot := v.store.Snapshot()
	var hosts []fleet.Candidate
	at := map[netip.AddrPort]sixpn.Host{}
	for id, h := range snapshot.Hosts {
		c := fleet.Candidate{ID: id, Region: h.Region, Away: !snapshot.Present(id), Draining: h.Draining}
		c.Underlay, _ = netip.ParseAddrPort(h.Endpoint) // one that cannot be read is of no member
		at[c.Underlay] = id
		hosts = append(hosts, c)
	}
	now := time.Now()
	gone := map[uint64]bool{}
	maps.DeleteFunc(v.left, func(id uint64, _ bool) bool {
		return !slices.ContainsFunc(members, func(m state.StoreMember) bool { return m.ID == id })
	})
	for _, m := range members {
		id, ok := at[m.Underlay]
		if ok {
			v.of[m.ID] = id
		}
		if ok && snapshot.Present(id) {
			delete(v.since, m.ID)
			continue
		}
		if v.since[m.ID].IsZero() {
			v.since[m.ID] = now
		}
		// A host that moves keeps its number; one that was removed loses it.
		_, there := snapshot.Hosts[v.of[m.ID]]
		removed := v.of[m.ID] != 0 && !there || v.left[m.ID] && !ok
		gone[m.ID] = removed || now.Sub(v.since[m.ID]) >= v.config.Timeouts.Replace
		for i := range hosts {
			hosts[i].Lost = hosts[i].Lost || ok && hosts[i].ID == id && gone[m.ID]
		}
	}
	if err := v.moveSelf(ctx, members); err != nil {
		return fleet.Change{}, nil, err
	}
	for _, m := range members {
		if m.Underlay == v.config.underlay() && v.member == nil && v.embedded == nil {
			// It does not run, and cannot come back: another one begins anew.
			return fleet.Change{Kind: fleet.RemoveMember, Host: v.host.ID, Member: m}, members, nil
		}
	}
	return fleet.NextChange(hosts, members, func(m state.StoreMember) bool { return gone[m.ID] }), members, nil
}

// unseat takes the member of a host out of the store that is removed from the fleet: the
// others would go on to send it all that is written. It returns what is left to be done.
func (a *agent) unseat(ctx context.Context, host state.Host) (left []uint64) {
	at, err := netip.ParseAddrPort(host.Endpoint)
	if err != nil || a.fleet == nil || len(a.config.Store) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), membersTimeout)
	defer cancel()
	members, err := state.StoreMembers(ctx, a.client)
	for _, m := range members {
		if m.Underlay != at {
			continue
		}
		if removeErr := state.RemoveMember(ctx, a.client, m.ID); removeErr != nil {
			left, err = append(left, m.ID), errors.Join(err, removeErr)
		}
	}
	if err != nil {
		a.log.Info("the member of the store on the host that is removed is still to be taken out", "host", host.Name, "error", err)
	}
	return left
}

// unseatRetry is how soon the task tries again what unseat could not do.
const unseatRetry = time.Second

// unseatLater has the task go on with it.
func (a *agent) unseatLater(left []uint64) {
	for _, id := range left {
		select {
		case a.unseating <- id:
		default: // so much at once is nobody's fleet; each host's task finds it in time
		}
	}
}

// moveSelf tells the others where this host's member is now.
func (v *voters) moveSelf(ctx context.Context, members []state.StoreMember) error {
	own := v.config.underlay()
	for _, m := range members {
		if v.member != nil && m.ID == v.member.MemberID() && m.Underlay != own {
			return state.MoveMember(ctx, v.client, m.ID, own)
		}
	}
	return nil
}

// mine says whether a change is this host's part: only it can become a member itself or
// knows when it has caught up; whoever sees it first takes another one out.
func (v *voters) mine(c fleet.Change) bool {
	switch c.Kind {
	case fleet.AddMember, fleet.PromoteMember:
		return c.Host == v.host.ID
	case fleet.RemoveMember:
		return true
	}
	return false
}

func (v *voters) do(ctx context.Context, c fleet.Change, members []state.StoreMember) error {
	switch c.Kind {
	case fleet.AddMember:
		return v.join(ctx, members)
	case fleet.PromoteMember:
		if v.member == nil || v.member.MemberID() != c.Member.ID {
			// This host died while it became a member, and has nothing of it.
			return state.RemoveMember(ctx, v.client, c.Member.ID)
		}
		err := state.PromoteLearner(ctx, v.client, c.Member.ID)
		if state.KindOf(err) == state.Conflict {
			return nil // not yet
		}
		if err == nil {
			v.log.Info("this host has a vote in the store")
		}
		return err
	case fleet.RemoveMember:
		v.log.Warn("a member of the store is taken out", "member", c.Member.Underlay, "host", c.Host)
		return state.RemoveMember(ctx, v.client, c.Member.ID)
	}
	return nil
}

// join makes this host a member of the store, without a vote for now.
func (v *voters) join(ctx context.Context, members []state.StoreMember) error {
	var others []netip.AddrPort
	for _, m := range members {
		others = append(others, m.Underlay)
	}
	if err := state.RemoveData(v.config.storeDir()); err != nil {
		return err
	}
	id, err := state.AddLearner(ctx, v.client, v.config.underlay())
	if err != nil {
		return err
	}
	member, err := state.StartEmbedded(ctx, state.EmbeddedConfig{Dir: v.config.storeDir(), Log: v.log, Listen: v.fleet.Listen(v.read.Load), Members: others})
	if err != nil {
		// Else nobody could be added as long as this one does not come.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), membersTimeout)
		defer cancel()
		return errors.Join(err, state.RemoveMember(undo, v.client, id))
	}
	v.member = member
	v.watch()
	v.log.Info("this host holds the store too", "members", len(members)+1)
	return nil
}
