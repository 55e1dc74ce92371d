package state_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// set brings a Machine into a state, as its host and its users do.
func (w world) set(t *testing.T, id string, change func(*state.Machine)) state.Machine {
	t.Helper()
	m, _, err := w.UpdateMachine(within(t), id, func(m *state.Machine) error { change(m); return nil })
	must(t, err)
	return m
}

func TestMoveAppTakesEverythingAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	allocate := func(n state.NewVIP) state.VIP {
		v, _, err := w.CreateVIP(ctx, n)
		must(t, err)
		return v
	}
	own := allocate(state.NewVIP{ID: "first", App: "web"})
	foreign := allocate(state.NewVIP{App: "web", Org: "globex"})
	_, _, err = w.CreateNetwork(ctx, "acme", "staging")
	must(t, err)
	third := allocate(state.NewVIP{App: "web", Network: "staging"})
	gone := w.machine(t, "gone")
	_, err = w.DestroyMachine(ctx, gone.ID)
	must(t, err)
	before := w.set(t, w.machine(t, "web-1").ID, func(m *state.Machine) {
		m.State, m.Relayed = state.Started, []uint16{8080}
		m.Checks = []state.CheckStatus{{Name: "up", Service: -1, Status: state.CheckPassing}}
	})

	app, revision, err := w.MoveApp(ctx, "web", "globex", "")
	must(t, err)
	s := at(t, w.Store, revision)
	network, _ := s.NetworkNamed("globex", "")
	if got := s.Apps["web"]; app.Network != network.ID || app.Org != "globex" || got.Network != app.Network || got.Org != "globex" {
		t.Errorf("the app is %+v, returned as %+v, want it in network %v", got, app, network.ID)
	}
	if len(s.NetworkApps(w.web.Network)) != 0 || len(s.NetworkApps(network.ID)) != 1 {
		t.Error("the app is not in its new network alone")
	}
	after := s.Machines[before.ID]
	if after.Network != network.ID || after.Addr() == before.Addr() || after.State != state.Stopping || after.Desired != state.Started ||
		after.InstanceID == before.InstanceID || after.Pending != after.InstanceID || after.Checks != nil || after.Relayed != nil ||
		after.Name != before.Name || after.Host != before.Host || after.Events[0].Type != "move" {
		t.Errorf("the Machine is now %+v", after)
	}
	if len(s.Machines) != 1 || len(s.AppMachines("web")) != 1 || len(s.HostMachines(w.host.ID)) != 1 || len(s.Deleted("web")) != 0 {
		t.Errorf("the Machines are %+v, deleted %+v", s.Machines, s.Deleted("web"))
	}
	var networks []sixpn.Network
	for _, v := range s.AppVIPs("web") {
		networks = append(networks, v.Network)
		if v.Addr() == own.Addr() {
			t.Errorf("the app still has %v of the network that it left", own.Addr())
		}
	}
	slices.Sort(networks)
	if want := []sixpn.Network{network.ID, network.ID, third.Network}; !slices.Equal(networks, want) {
		t.Errorf("its addresses are of networks %v, want %v", networks, want)
	}
	for _, v := range []state.VIP{foreign, third} {
		if s.VIPs[v.Addr()] != v {
			t.Errorf("the address %v is now %+v, want it as it was", v.Addr(), s.VIPs[v.Addr()])
		}
	}

	// The request that made the first address now names the one in its place.
	again := allocate(state.NewVIP{ID: "first", App: "web"})
	if again.Network != network.ID || s.VIPs[again.Addr()].Request != "first" {
		t.Errorf("the first request again gives %+v", again)
	}
	// Everything else goes on under the new network: names, updates, a move back.
	_, _, err = w.CreateMachine(ctx, w.newMachine("web-1"))
	refused(t, err, state.Conflict, "name")
	w.set(t, before.ID, func(m *state.Machine) { m.State = state.Stopped })
	same, unchanged, err := w.MoveApp(ctx, "web", "globex", "default")
	must(t, err)
	if unchanged != revision || same != app {
		t.Errorf("a move to where it is has revision %d and app %+v, want %d and %+v", unchanged, same, revision, app)
	}
	_, revision, err = w.MoveApp(ctx, "web", "acme", "")
	must(t, err)
	back := at(t, w.Store, revision)
	if m := back.Machines[before.ID]; m.Network != w.web.Network || m.Number <= gone.Number || m.Number == before.Number {
		t.Errorf("back, the Machine has number %v of network %v: numbers are never reused", m.Number, m.Network)
	}
	for _, v := range back.AppVIPs("web") {
		if v.Network == w.web.Network && v.Number <= own.Number {
			t.Errorf("back, the app has the address %v again", v.Addr())
		}
	}
}

// TestMoveByState: what runs is stopped and started again, what stands still stays so.
func TestMoveByState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, err := w.CreateOrg(within(t), "globex", "")
	must(t, err)
	zero, one := 0, 1
	type row struct {
		desired, state state.MachineState
		policy         string
		code           *int

		wantDesired, want state.MachineState
		restarted         bool // it has another instance, so nothing goes on as it was
	}
	rows := map[string]row{
		"new":                   {state.Started, state.Created, "", nil, state.Started, state.Created, true},
		"made for later":        {state.Stopped, state.Created, "", nil, state.Stopped, state.Created, false},
		"starting":              {state.Started, state.Starting, "", nil, state.Started, state.Stopping, true},
		"started":               {state.Started, state.Started, "", nil, state.Started, state.Stopping, true},
		"about to stop":         {state.Stopped, state.Started, "", nil, state.Stopped, state.Stopping, true},
		"about to be destroyed": {state.Destroyed, state.Started, "", nil, state.Destroyed, state.Stopping, true},
		"stopping":              {state.Stopped, state.Stopping, "", nil, state.Stopped, state.Stopping, true},
		"stopped":               {state.Stopped, state.Stopped, "", nil, state.Stopped, state.Stopped, false},
		"ended":                 {state.Started, state.Stopped, "", &zero, state.Started, state.Stopped, false},
		"ended well":            {state.Started, state.Stopped, "on-failure", &zero, state.Started, state.Stopped, false},
		"ended badly":           {state.Started, state.Stopped, "on-failure", &one, state.Started, state.Stopped, true},
		"ended, always back":    {state.Started, state.Stopped, "always", &zero, state.Started, state.Stopped, true},
		"failed":                {state.Started, state.Failed, "always", &one, state.Started, state.Failed, false},
		"suspending":            {state.Suspended, state.Suspending, "", nil, state.Stopped, state.Stopping, true},
		"suspended":             {state.Suspended, state.Suspended, "", nil, state.Stopped, state.Stopping, true},
		"about to go on":        {state.Started, state.Suspended, "", nil, state.Started, state.Stopping, true},
		"destroying":            {state.Destroyed, state.Destroying, "", nil, state.Destroyed, state.Destroying, false},
	}
	machines := map[string]state.Machine{}
	for name, r := range rows {
		machines[name] = w.set(t, w.machine(t, "").ID, func(m *state.Machine) {
			m.Desired, m.State, m.ExitCode = r.desired, r.state, r.code
			m.Config.Restart = state.Restart{Policy: r.policy}
		})
	}
	_, revision, err := w.MoveApp(within(t), "web", "globex", "")
	must(t, err)
	s := at(t, w.Store, revision)
	var numbers []sixpn.Machine
	for name, r := range rows {
		before, after := machines[name], s.Machines[machines[name].ID]
		numbers = append(numbers, after.Number)
		if after.Desired != r.wantDesired || after.State != r.want || (after.InstanceID != before.InstanceID) != r.restarted {
			t.Errorf("%s: it is %s, wanted %s, of another instance: %v; want %s, %s, %v",
				name, after.State, after.Desired, after.InstanceID != before.InstanceID, r.want, r.wantDesired, r.restarted)
		}
		if pending := after.Pending != ""; pending != (r.restarted && r.wantDesired == state.Started) {
			t.Errorf("%s: pending is %q", name, after.Pending)
		}
		if after.Network == before.Network {
			t.Errorf("%s: it did not move", name)
		}
	}
	distinct(t, "the machine number", numbers)
}

func TestMoveRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	m := w.machine(t, "web-1")
	lease, revision, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{TTL: time.Minute})
	must(t, err)
	for name, row := range map[string]struct {
		app, org, network string
		kind              state.ErrorKind
		field             string
	}{
		"unknown app":     {"shop", "globex", "", state.NotFound, "app"},
		"unknown org":     {"web", "nobody", "", state.NotFound, "org"},
		"malformed org":   {"web", "../x", "", state.Invalid, "org"},
		"no org":          {"web", "", "", state.Invalid, "org"},
		"unknown network": {"web", "globex", "staging", state.NotFound, "network"},
		"leased":          {"web", "globex", "", state.Conflict, "lease"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.MoveApp(within(t), row.app, row.org, row.network)
			refused(t, err, row.kind, row.field)
		})
	}
	next, err := w.ReleaseLease(ctx, m.ID, lease.Nonce)
	must(t, err)
	if next != revision+1 {
		t.Errorf("the next write has revision %d, want %d: something refused was written", next, revision+1)
	}
	_, err = w.DestroyApp(ctx, "web")
	must(t, err)
	_, _, err = w.MoveApp(ctx, "web", "globex", "")
	refused(t, err, state.Conflict, "app")
}

// TestMovesAreWhole moves an app to and fro while its Machines come, change and go,
// and looks at every snapshot, of one store that watches and of one that reads anew:
// each Machine is there once and in the network of its app, with indexes that agree.
func TestMovesAreWhole(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	watching := open(t, e)
	run(t, watching)
	w := populate(t, open(t, e))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	var stays []string
	for range 6 {
		stays = append(stays, w.machine(t, "").ID)
	}
	_, _, err = w.AllocateVIP(ctx, "web", "", "")
	must(t, err)
	_, start, err := w.AllocateVIP(ctx, "web", "", "")
	must(t, err)
	at(t, watching, start)

	whole := func(s *state.Snapshot) error {
		app, ok := s.Apps["web"]
		if !ok || s.Networks[app.Network].Org != app.Org {
			return fmt.Errorf("revision %d: the app is %+v", s.Revision, app)
		}
		for _, id := range stays {
			if _, ok := s.Machines[id]; !ok {
				return fmt.Errorf("revision %d: Machine %s is not there", s.Revision, id)
			}
		}
		numbers := map[netip.Addr]bool{}
		for _, m := range s.Machines {
			if m.Network != app.Network {
				return fmt.Errorf("revision %d: Machine %s is in network %v, its app in %v", s.Revision, m.ID, m.Network, app.Network)
			}
			numbers[m.Addr()] = true
		}
		if n := len(s.Machines); len(s.AppMachines("web")) != n || len(s.HostMachines(w.host.ID)) != n || len(numbers) != n {
			return fmt.Errorf("revision %d: %d Machines, %d in the index, %d addresses", s.Revision, n, len(s.AppMachines("web")), len(numbers))
		}
		vips := s.AppVIPs("web")
		if len(vips) != 2 || vips[0].Network != app.Network || vips[1].Network != app.Network {
			return fmt.Errorf("revision %d: addresses %+v, want two of network %v", s.Revision, vips, app.Network)
		}
		return nil
	}
	done := make(chan int)
	go func() {
		networks := map[sixpn.Network]bool{}
		defer func() { done <- len(networks) }()
		for revision := watching.Snapshot().Revision; ; {
			s, err := watching.Wait(ctx, revision)
			if err != nil {
				return
			}
			revision = s.Revision
			networks[s.Apps["web"].Network] = true
			if err := whole(s); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	// Changes are of the process that moves, and take turns with it. What comes and goes
	// is of another one, and waits until each of its writes was seen.
	seen := func(revision int64, err error) error {
		if err == nil {
			_, err = watching.Wait(ctx, revision-1)
		}
		return err
	}
	const rounds = 6
	var updates atomic.Int64
	var moving atomic.Bool
	moving.Store(true)
	mover, other := open(t, e), open(t, e)
	results := together(4, func(i int) error {
		s := mover
		switch i {
		case 0: // moves
			defer moving.Store(false)
			for round := range rounds {
				if _, _, err := s.MoveApp(ctx, "web", []string{"globex", "acme"}[round%2], ""); err != nil {
					return err
				}
				anew, err := state.Open(ctx, e.Client(), logTo(t))
				if err != nil {
					return err
				}
				if err := whole(anew.Snapshot()); err != nil {
					return err
				}
			}
		case 1: // comes and goes
			s = other
			for moving.Load() {
				m, revision, err := s.CreateMachine(ctx, w.newMachine("guest"))
				if err := seen(revision, err); err != nil {
					return err
				}
				_, revision, err = s.UpdateMachine(ctx, m.ID, func(m *state.Machine) error { m.State = state.Stopped; return nil })
				if err := seen(revision, err); err != nil {
					return err
				}
				revision, err = s.DestroyMachine(ctx, m.ID)
				if err := seen(revision, err); err != nil {
					return err
				}
			}
		default: // changes
			for moving.Load() {
				if _, _, err := s.UpdateMachine(ctx, stays[i], func(m *state.Machine) error {
					m.ExitCode = new(orZero(m.ExitCode) + 1)
					return nil
				}); err != nil {
					return err
				}
				updates.Add(1)
			}
		}
		return nil
	})
	for i, err := range results {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	_, last, err := w.CreateOrg(ctx, "last", "")
	must(t, err)
	s := at(t, watching, last)
	cancel()
	if n := <-done; n != 2 {
		t.Errorf("the app was seen in %d networks, want 2", n)
	}
	var found int64
	for _, m := range s.Machines {
		found += int64(orZero(m.ExitCode))
	}
	if found != updates.Load() || found == 0 {
		t.Errorf("%d updates are there, want %d: moves lost some", found, updates.Load())
	}
}

// TestMoveOfManyMachines has more writes and bytes than etcd takes in a transaction
// when nobody raises its limits.
func TestMoveOfManyMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, err := w.CreateOrg(within(t), "globex", "")
	must(t, err)
	const many = 64
	n := w.newMachine("")
	for i := range 40 {
		n.Config.Metadata[fmt.Sprint(i)] = string(slices.Repeat([]byte("x"), 1024))
	}
	together(8, func(i int) struct{} {
		for range many / 8 {
			if _, _, err := w.CreateMachine(within(t), n); err != nil {
				t.Error(err)
			}
		}
		return struct{}{}
	})
	app, revision, err := w.MoveApp(within(t), "web", "globex", "")
	must(t, err)
	s := at(t, w.Store, revision)
	var numbers []sixpn.Machine
	for _, m := range s.AppMachines("web") {
		if m.Network != app.Network {
			t.Fatalf("a Machine is in network %v, want %v", m.Network, app.Network)
		}
		numbers = append(numbers, m.Number)
	}
	if len(numbers) != many {
		t.Errorf("%d Machines moved, want %d", len(numbers), many)
	}
	distinct(t, "the machine number", numbers)
	next, _, err := w.CreateMachine(within(t), w.newMachine(""))
	must(t, err)
	if next.Number != many+1 {
		t.Errorf("the next Machine has number %v, want %d", next.Number, many+1)
	}
}
