package state

import (
	"context"

	"github.com/sixpn/sixpn"
)

// CreateApp makes an app. An empty network is the default one of its org.
func (s *Store) CreateApp(ctx context.Context, name, org, network string) (App, int64, error) {
	if err := ValidateAppName(name); err != nil {
		return App{}, 0, err
	}
	app := App{Name: name, Org: org, CreatedAt: now()}
	revision, err := s.transact(ctx, creating, "create app "+name, func(t *transaction) error {
		if err := t.mustHaveOrg(org); err != nil {
			return err
		}
		taken, err := t.owner(nameApp(name))
		if err != nil {
			return err
		}
		if taken != 0 {
			return refuse(Conflict, "name", "the name %q is taken: names of apps are unique in the fleet; choose another", name)
		}
		if app.Network, err = t.networkNamed(org, network); err != nil {
			return err
		}
		t.put(nameApp(name), hex8(app.Network))
		return t.create(keyApp(app.Network, name), app)
	})
	if err != nil {
		return App{}, 0, err
	}
	return app, revision, nil
}

// app finds an app by its name.
func (t *transaction) app(name string) (App, error) {
	r, err := t.appRecord(name)
	return r.Value, err
}

func (t *transaction) appRecord(name string) (Record[App], error) {
	missing := refuse(NotFound, "app", "there is no app %.80q: create it with `sixpn apps create`, or look with `sixpn apps list`", name)
	if ValidateAppName(name) != nil {
		return Record[App]{}, missing // also keeps a '/' out of keys
	}
	n, err := t.owner(nameApp(name))
	if err != nil {
		return Record[App]{}, err
	}
	if n == 0 {
		return Record[App]{}, missing
	}
	r, found, err := load[App](t, keyApp(sixpn.Network(n), name))
	if err == nil && !found {
		err = missing
	}
	return r, err
}

// mustStay refuses an app that is being destroyed.
func (a App) mustStay() error {
	if a.Destroying {
		return refuse(Conflict, "app", "the app %q is being destroyed: wait until it is gone, then create it again", a.Name)
	}
	return nil
}

// appMachines reads the Machines of an app. Whoever commits afterwards knows that
// there are no others: a new one takes a name, one that goes changes a record.
func (t *transaction) appMachines(app App) ([]Record[Machine], error) {
	names, err := t.listLatest(nameMachines(app.Name))
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(names))
	for _, kv := range names {
		keys = append(keys, keyMachine(app.Network, string(kv.Value)))
	}
	found, err := t.latest(keys)
	if err != nil {
		return nil, err
	}
	machines := make([]Record[Machine], 0, len(found))
	for _, kv := range found {
		m, err := readable[Machine](string(kv.Key), kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// DestroyApp asks for the end of an app: it takes no new Machines, its Flycast
// addresses are released, and its Machines are to be destroyed, whoever has leases of
// them. The record goes with the last Machine; at once when there is none. Asking
// again changes nothing.
func (s *Store) DestroyApp(ctx context.Context, app string) (int64, error) {
	var record Record[App]
	revision, err := s.transactHolding(ctx, s.Snapshot().AppMachines(app), "destroy app "+app, func(t *transaction) error {
		var err error
		if record, err = t.appRecord(app); err != nil {
			return err
		}
		if record.Value.Destroying {
			return nil
		}
		vips, err := t.appVIPs(app)
		if err != nil {
			return err
		}
		for _, v := range vips {
			t.removeVIP(v.Value)
		}
		machines, err := t.appMachines(record.Value)
		if err != nil {
			return err
		}
		if len(machines) == 0 {
			t.removeApp(record.Value)
			return nil
		}
		for _, m := range machines {
			before := m.Value
			m.Value.Desired, m.Value.Stop = Destroyed, StopConfig{}
			if err := t.writeMachine(before, &m, sourceUser); err != nil {
				return err
			}
		}
		record.Value.Destroying = true
		return write(t, keyApp(record.Value.Network, app), record)
	})
	if err == nil && revision == 0 {
		revision = record.ModRevision
	}
	return revision, err
}

// removeApp removes an app that has no Machines and no addresses.
func (t *transaction) removeApp(a App) {
	t.remove(keyApp(a.Network, a.Name))
	t.remove(nameApp(a.Name))
	t.removeAll(keyAppDeleted(a.Network, a.Name))
	t.remove(changedAppVIPs(a.Name))
}
