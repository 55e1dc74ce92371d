package state

import (
	"context"
	"fmt"
	"strconv"
)

// A restored store does not know what came after its export. What a host runs is more
// than a record, so the host writes its own records again where the store has none: that
// of itself, and those of its Machines, with the app and the network that they are in.
// What somebody else has by now, a name or a number, stays his, and the Machine ends as
// one that has no record does. All else is as the export has it: a Machine that was
// destroyed after it is there again, one that moved is where it was.

// reclaim does that, by what the host knew before. An error leaves it to be done again.
func (s *Store) reclaim(ctx context.Context, before *Snapshot) error {
	self := s.Host()
	host, known := before.Hosts[self]
	if !known {
		return nil
	}
	if err := s.again(ctx, "host "+host.Name, func(t *transaction) error { return t.reclaimHost(host) }); err != nil {
		return err
	}
	now := s.Snapshot()
	for _, m := range before.HostMachines(self) {
		if _, ok := now.Machines[m.ID]; ok || m.Desired == Destroyed {
			continue
		}
		if err := s.again(ctx, fmt.Sprintf("machine %s of app %s", m.ID, m.App), func(t *transaction) error {
			return t.reclaimMachine(m, before.Apps[m.App], before.Networks[m.Network])
		}); err != nil {
			return err
		}
	}
	return nil
}

// again writes something that there was, and says so when it cannot be: only that the
// store does not answer is an error.
func (s *Store) again(ctx context.Context, what string, write func(*transaction) error) error {
	revision, err := s.transact(ctx, creating, "record "+what+" again", write)
	switch {
	case KindOf(err) == Unavailable:
		return err
	case err != nil:
		s.log.Error("the restored store does not know what this host has, and does not take it", "what", what, "error", err)
	case revision != 0:
		s.log.Warn("the restored store did not know what this host has: it is recorded again", "what", what)
	}
	return nil
}

func (t *transaction) reclaimHost(h Host) error {
	if _, found, err := load[Host](t, keyHost(h.ID)); err != nil || found {
		return err
	}
	if err := t.rename(h.ID, nameHost, "", h.Name); err != nil {
		return err
	}
	if err := t.rename(h.ID, nameHostKey, "", h.PublicKey); err != nil {
		return err
	}
	if err := t.raise(counterHosts, uint32(h.ID)); err != nil {
		return err
	}
	return t.create(keyHost(h.ID), h)
}

func (t *transaction) reclaimMachine(m Machine, app App, network Network) error {
	if owner, err := t.owner(nameMachineID(m.ID)); err != nil || owner != 0 {
		return err // it is elsewhere
	}
	if app.Name == "" || network.ID == 0 {
		return refuse(Conflict, "app", "the records of its app and its network could not be read before: create it anew")
	}
	if _, err := t.host(m.Host); err != nil {
		return err
	}
	if err := t.reclaimNetwork(network); err != nil {
		return err
	}
	if err := t.reclaimApp(app); err != nil {
		return err
	}
	taken, _, err := t.get(nameMachine(m.App, m.Name))
	if err != nil {
		return err
	}
	if taken != nil {
		return refuse(Conflict, "name", "the app %q has another Machine of the name %q by now: that one stays", m.App, m.Name)
	}
	if err := t.raise(counterMachines(m.Network), uint32(m.Number)); err != nil {
		return err
	}
	t.put(nameMachine(m.App, m.Name), m.ID)
	t.put(nameMachineID(m.ID), hex8(m.Network))
	t.put(indexMachine(m.Host, m.ID), "")
	return t.create(keyMachine(m.Network, m.ID), m)
}

func (t *transaction) reclaimApp(a App) error {
	owner, err := t.owner(nameApp(a.Name))
	switch {
	case err != nil:
		return err
	case owner == uint32(a.Network):
		return nil
	case owner != 0:
		return refuse(Conflict, "app", "the app %q is in another network by now: that one stays", a.Name)
	}
	a.Destroying = false
	t.put(nameApp(a.Name), hex8(a.Network))
	return t.create(keyApp(a.Network, a.Name), a)
}

// reclaimNetwork makes the org too, if need be: a host has no records of orgs.
func (t *transaction) reclaimNetwork(n Network) error {
	there, found, err := load[Network](t, keyNetwork(n.ID))
	if err != nil {
		return err
	}
	if found {
		if there.Value.Org != n.Org || there.Value.Name != n.Name {
			return refuse(Conflict, "network", "the network %v is another one by now: that one stays", n.ID)
		}
		return nil
	}
	org, _, err := t.get(keyOrg(n.Org))
	if err != nil {
		return err
	}
	if org == nil {
		if n.Name != DefaultNetwork {
			return refuse(Conflict, "org", "there is no org %q: create it, then the Machine anew", n.Org)
		}
		if err := t.create(keyOrg(n.Org), Org{Slug: n.Org, Name: n.Org, CreatedAt: n.CreatedAt}); err != nil {
			return err
		}
	}
	taken, _, err := t.get(nameNetwork(n.Org, n.Name))
	if err != nil {
		return err
	}
	if taken != nil {
		return refuse(Conflict, "network", "the org %q has another network %q by now: that one stays", n.Org, n.Name)
	}
	if err := t.raise(counterNetworks, uint32(n.ID)); err != nil {
		return err
	}
	t.put(nameNetwork(n.Org, n.Name), hex8(n.ID))
	return t.create(keyNetwork(n.ID), n)
}

// raise has a counter give out no number up to one that is in use.
func (t *transaction) raise(counter string, used uint32) error {
	value, _, err := t.get(counter)
	if err != nil {
		return err
	}
	last, err := strconv.ParseUint(string(value), 10, 32)
	if value != nil && err != nil {
		return refuse(Unavailable, "", "the counter %s holds %q, expected a number below 2^32: restore the store from a backup", counter, value)
	}
	if uint64(used) > last {
		t.put(counter, strconv.FormatUint(uint64(used), 10))
	}
	return nil
}
