package state_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

var clientPrefix = clientv3.WithPrefix()

func TestDestroyApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	var machines []state.Machine
	for i := range contenders {
		machines = append(machines, w.machine(t, fmt.Sprintf("web-%d", i)))
	}
	gone := w.machine(t, "gone")
	_, err = w.DestroyMachine(ctx, gone.ID)
	must(t, err)
	for _, org := range []string{"", "globex"} {
		_, _, err = w.AllocateVIP(ctx, "web", org, "")
		must(t, err)
	}
	running := w.set(t, machines[0].ID, func(m *state.Machine) { m.State = state.Started })
	_, _, err = w.AcquireLease(ctx, running.ID, state.LeaseRequest{}) // which does not save it
	must(t, err)

	revision, err := w.DestroyApp(ctx, "web")
	must(t, err)
	s := at(t, w.Store, revision)
	if !s.Apps["web"].Destroying || len(s.VIPs) != 0 || len(s.Machines) != contenders {
		t.Errorf("the app is %+v with %d addresses and %d Machines", s.Apps["web"], len(s.VIPs), len(s.Machines))
	}
	for _, m := range s.Machines {
		if m.Desired != state.Destroyed || m.Events[0].Type != "destroy" || m.Events[0].Source != "user" {
			t.Errorf("Machine %s is wanted %s, its last event is %+v", m.Name, m.Desired, m.Events[0])
		}
	}
	again, err := w.DestroyApp(ctx, "web")
	must(t, err)
	if again != revision {
		t.Errorf("asked again the revision is %d, want %d", again, revision)
	}
	_, _, err = w.CreateMachine(ctx, w.newMachine("late"))
	refused(t, err, state.Conflict, "app")
	_, _, err = w.AllocateVIP(ctx, "web", "", "")
	refused(t, err, state.Conflict, "app")
	_, _, err = w.CreateApp(ctx, "web", "globex", "")
	refused(t, err, state.Conflict, "name")
	_, err = w.DestroyMachine(ctx, running.ID)
	refused(t, err, state.Conflict, "state")
	w.set(t, running.ID, func(m *state.Machine) { m.State = state.Stopped })

	// The host removes them all at once: one of them is the last, and takes the app along.
	for _, r := range together(contenders, func(i int) error {
		_, err := w.contender(i).DestroyMachine(within(t), machines[i].ID)
		return err
	}) {
		must(t, r)
	}
	_, revision, err = w.CreateApp(ctx, "web", "globex", "")
	must(t, err)
	s = at(t, w.Store, revision)
	if len(s.Apps) != 1 || len(s.Machines) != 0 || len(s.Deleted("web")) != 0 || s.Apps["web"].Destroying {
		t.Errorf("the new app has %+v, deleted %+v", s.Machines, s.Deleted("web"))
	}
	revision, err = w.DestroyApp(ctx, "web")
	must(t, err)
	if s = at(t, w.Store, revision); len(s.Apps) != 0 {
		t.Errorf("an app without Machines stays: %+v", s.Apps)
	}
	_, err = w.DestroyApp(ctx, "web")
	refused(t, err, state.NotFound, "app")
}

// TestDestroyAppMeetsCreations: whatever the order, no Machine is left without an app
// and none escapes.
func TestDestroyAppMeetsCreations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	together(contenders, func(i int) struct{} {
		if i == contenders/2 {
			if _, err := w.contender(i).DestroyApp(within(t), "web"); err != nil {
				t.Error(err)
			}
			return struct{}{}
		}
		_, _, err := w.contender(i).CreateMachine(within(t), w.newMachine(""))
		if kind := state.KindOf(err); err != nil && kind != state.Conflict && kind != state.NotFound {
			t.Error(err)
		}
		return struct{}{}
	})
	_, revision, err := w.CreateOrg(within(t), "last", "")
	must(t, err)
	s := at(t, w.Store, revision)
	if app, ok := s.Apps["web"]; ok != (len(s.Machines) > 0) || ok && !app.Destroying {
		t.Errorf("the app is %+v, there: %v, with %d Machines", app, ok, len(s.Machines))
	}
	for _, m := range s.Machines {
		if m.Desired != state.Destroyed {
			t.Errorf("Machine %s is wanted %s", m.ID, m.Desired)
		}
	}
}

func TestDeletedMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	n := w.newMachine("web-1")
	n.ID = "148e21dad76789"
	first, _, err := w.CreateMachine(ctx, n)
	must(t, err)
	lease, _, err := w.AcquireLease(ctx, first.ID, state.LeaseRequest{})
	must(t, err)
	_, err = w.DestroyMachine(ctx, first.ID)
	must(t, err)
	second := w.machine(t, "web-2")
	revision, err := w.DestroyMachine(ctx, second.ID)
	must(t, err)
	s := at(t, w.Store, revision)
	deleted := s.Deleted("web")
	if len(s.Machines) != 0 || len(deleted) != 2 || deleted[0].ID != second.ID || deleted[1].ID != first.ID {
		t.Fatalf("deleted are %+v, want %s and %s", deleted, second.ID, first.ID)
	}
	if m := deleted[1]; m.State != state.Destroyed || m.Desired != state.Destroyed || m.Lease != nil || m.Number != first.Number ||
		m.Events[0].Type != "destroy" || m.Events[0].Status != state.Destroyed || !m.UpdatedAt.After(first.UpdatedAt) {
		t.Errorf("the deleted Machine is %+v", m)
	}
	if len(s.Deleted("shop")) != 0 {
		t.Error("another app has deleted Machines")
	}
	// It is no Machine any more for anything else.
	_, _, err = w.ChangeMachine(ctx, first.ID, lease.Nonce, count)
	refused(t, err, state.NotFound, "id")
	_, err = w.DestroyMachine(ctx, first.ID)
	refused(t, err, state.NotFound, "id")
	// An id that comes again is not there twice.
	_, revision, err = w.CreateMachine(ctx, n)
	must(t, err)
	if s = at(t, w.Store, revision); len(s.Machines) != 1 || len(s.Deleted("web")) != 1 {
		t.Errorf("made again there are %d Machines and %d deleted ones, want one of each", len(s.Machines), len(s.Deleted("web")))
	}
}

// TestDeletedMachinesAreBounded fills a network's deleted Machines with old and new ones.
func TestDeletedMachinesAreBounded(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	w := populate(t, s)
	model := w.machine(t, "model")
	put := func(i int, age time.Duration) {
		m := model
		m.ID, m.State, m.UpdatedAt = fmt.Sprintf("%014x", i), state.Destroyed, time.Now().Add(-age)
		encoded, err := json.Marshal(m)
		must(t, err)
		_, err = e.Client().Put(within(t), "/sixpn/v1/networks/00000001/deleted/web/"+m.ID, string(encoded))
		must(t, err)
	}
	const old, fresh = 20, state.MaxDeleted + 10
	for i := range old {
		put(i, state.DeletedAge+time.Hour)
	}
	for i := range fresh {
		put(old+i, time.Minute)
	}
	_, revision, err := w.CreateOrg(within(t), "other", "")
	must(t, err)
	if n := len(at(t, s, revision).Deleted("web")); n != fresh {
		t.Errorf("%d are shown, want the %d that are not too old", n, fresh)
	}
	revision, err = w.DestroyMachine(within(t), model.ID)
	must(t, err)
	deleted := at(t, s, revision).Deleted("web")
	if len(deleted) != state.MaxDeleted || deleted[0].ID != model.ID {
		t.Errorf("%d are kept, the latest %s; want %d and %s", len(deleted), deleted[0].ID, state.MaxDeleted, model.ID)
	}
	for _, m := range deleted {
		if m.ID == fmt.Sprintf("%014x", old) {
			t.Error("the oldest is still there")
		}
	}
	left, err := e.Client().Get(within(t), "/sixpn/v1/networks/00000001/deleted/", clientPrefix)
	must(t, err)
	if left.Count != state.MaxDeleted {
		t.Errorf("the store has %d records of deleted Machines, want %d", left.Count, state.MaxDeleted)
	}
}

func TestDeleteNetworksAndOrgs(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	w := populate(t, s)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	staging, _, err := w.CreateNetwork(ctx, "globex", "staging")
	must(t, err)
	_, _, err = w.CreateApp(ctx, "shop", "globex", "staging")
	must(t, err)
	door, _, err := w.AllocateVIP(ctx, "web", "globex", "staging")
	must(t, err)

	refuse := func(name string, err error, kind state.ErrorKind, field string) {
		t.Helper()
		t.Run(name, func(t *testing.T) { refused(t, err, kind, field) })
	}
	refuse("default network", second(w.DeleteNetwork(ctx, "globex", "default")), state.Conflict, "network")
	refuse("default network without its name", second(w.DeleteNetwork(ctx, "globex", "")), state.Conflict, "network")
	refuse("unknown network", second(w.DeleteNetwork(ctx, "globex", "nobody")), state.NotFound, "network")
	refuse("another org's network", second(w.DeleteNetwork(ctx, "acme", "staging")), state.NotFound, "network")
	refuse("network of an unknown org", second(w.DeleteNetwork(ctx, "nobody", "staging")), state.NotFound, "org")
	refuse("network with an app", second(w.DeleteNetwork(ctx, "globex", "staging")), state.Conflict, "network")
	refuse("org with an app", second(w.DeleteOrg(ctx, "globex")), state.Conflict, "org")
	refuse("unknown org", second(w.DeleteOrg(ctx, "nobody")), state.NotFound, "org")
	refuse("malformed org", second(w.DeleteOrg(ctx, "../x")), state.Invalid, "org")
	shop := w.newMachine("shop-1")
	shop.App = "shop"
	m, _, err := w.CreateMachine(ctx, shop)
	must(t, err)
	_, err = w.DestroyMachine(ctx, m.ID) // leaves a record in the network
	must(t, err)
	_, err = w.DestroyApp(ctx, "shop")
	must(t, err)
	refuse("network with an address", second(w.DeleteNetwork(ctx, "globex", "staging")), state.Conflict, "network")
	refuse("org with an address", second(w.DeleteOrg(ctx, "globex")), state.Conflict, "org")
	_, err = w.ReleaseVIP(ctx, "web", door.Addr())
	must(t, err)

	revision, err := w.DeleteNetwork(ctx, "globex", "staging")
	must(t, err)
	if networks := at(t, s, revision).OrgNetworks("globex"); len(networks) != 1 {
		t.Errorf("the org has networks %+v, want the default one", networks)
	}
	again, _, err := w.CreateNetwork(ctx, "globex", "staging")
	must(t, err)
	if again.ID <= staging.ID {
		t.Errorf("the network made again has number %v, the one before had %v", again.ID, staging.ID)
	}
	revision, err = w.DeleteOrg(ctx, "globex")
	must(t, err)
	after := at(t, s, revision)
	if len(after.Orgs) != 1 || len(after.Networks) != 1 {
		t.Errorf("left are the orgs %+v and networks %+v, want acme's", after.Orgs, after.Networks)
	}
	for _, prefix := range []string{"names/networks/globex/", fmt.Sprintf("networks/%08x/", uint32(staging.ID)), fmt.Sprintf("networks/%08x/", uint32(again.ID)), "names/apps/shop"} {
		left, err := e.Client().Get(ctx, "/sixpn/v1/"+prefix, clientPrefix)
		must(t, err)
		if left.Count != 0 {
			t.Errorf("%s still has %d keys, the first is %s", prefix, left.Count, left.Kvs[0].Key)
		}
	}
	_, _, err = w.CreateOrg(ctx, "globex", "")
	must(t, err)
}

// TestDeletionsMeetCreations has the end of a network and of an org contend with
// everything that needs them: what exists afterwards exists whole.
func TestDeletionsMeetCreations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for round := range 4 {
		org := fmt.Sprintf("org-%d", round)
		_, _, err := w.CreateOrg(within(t), org, "")
		must(t, err)
		_, _, err = w.CreateNetwork(within(t), org, "staging")
		must(t, err)
		together(8, func(i int) struct{} {
			s, ctx := w.contender(i), within(t)
			var err error
			switch i % 4 {
			case 0:
				_, err = s.DeleteNetwork(ctx, org, "staging")
			case 1:
				_, err = s.DeleteOrg(ctx, org)
			case 2:
				_, _, err = s.CreateApp(ctx, fmt.Sprintf("app-%d-%d", round, i), org, "staging")
			case 3:
				_, _, err = s.AllocateVIP(ctx, "web", org, []string{"", "staging"}[i/4])
			}
			if kind := state.KindOf(err); err != nil && kind != state.Conflict && kind != state.NotFound {
				t.Error(err)
			}
			return struct{}{}
		})
	}
	_, revision, err := w.CreateOrg(within(t), "last", "")
	must(t, err)
	s := at(t, w.Store, revision)
	for _, n := range s.Networks {
		if _, ok := s.Orgs[n.Org]; !ok {
			t.Errorf("network %+v has no org", n)
		}
	}
	for _, a := range s.Apps {
		if n, ok := s.Networks[a.Network]; !ok || n.Org != a.Org {
			t.Errorf("app %+v has no network", a)
		}
	}
	for _, v := range s.VIPs {
		if _, ok := s.Networks[v.Network]; !ok {
			t.Errorf("address %+v has no network", v)
		}
	}
	for slug := range s.Orgs {
		if _, ok := s.NetworkNamed(slug, ""); !ok {
			t.Errorf("org %s has no default network", slug)
		}
	}
}

func TestSameRequestAllocatesOneAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	request := state.NewVIP{ID: "Deploy-1.a_b", App: "web", Org: "globex"}
	type result struct {
		vip state.VIP
		err error
	}
	results := together(contenders, func(i int) result {
		v, _, err := w.contender(i).CreateVIP(within(t), request)
		return result{v, err}
	})
	for _, r := range results {
		if r.err != nil || r.vip != results[0].vip || r.vip.Number != 1 {
			t.Errorf("got %+v and error %v, want one address", r.vip, r.err)
		}
	}
	other := request
	other.Org = ""
	_, _, err = w.CreateVIP(ctx, other)
	refused(t, err, state.Conflict, "id")
	for _, id := range []string{" ", "a b", "a/b", fmt.Sprintf("%065d", 1)} {
		other.ID = id
		_, _, err = w.CreateVIP(ctx, other)
		refused(t, err, state.Invalid, "id")
	}
	// Without an id each request is one of its own; so is one whose address is released.
	for range 2 {
		_, _, err = w.AllocateVIP(ctx, "web", "globex", "")
		must(t, err)
	}
	_, err = w.ReleaseVIP(ctx, "web", results[0].vip.Addr())
	must(t, err)
	v, _, err := w.CreateVIP(ctx, request)
	must(t, err)
	if v.Number != 4 {
		t.Errorf("the next address has number %d, want 4", v.Number)
	}
}
