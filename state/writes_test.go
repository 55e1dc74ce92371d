package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// TestRefusals has a row for each way a request is at odds with what exists. Each
// is refused with a kind and a field, and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	_, _, err = w.CreateApp(ctx, "other", "globex", "")
	must(t, err)
	started := w.machine(t, "web-1")
	_, _, err = w.UpdateMachine(ctx, started.ID, func(m *state.Machine) error { m.State = state.Started; return nil })
	must(t, err)
	vip, revision, err := w.AllocateVIP(ctx, "web", "", "")
	must(t, err)
	before := at(t, w.Store, revision)

	create := func(change func(*state.NewMachine)) error {
		n := w.newMachine("web-2")
		change(&n)
		_, _, err := w.CreateMachine(ctx, n)
		return err
	}
	update := func(change func(*state.Machine)) error {
		_, _, err := w.UpdateMachine(ctx, started.ID, func(m *state.Machine) error { change(m); return nil })
		return err
	}
	for name, row := range map[string]struct {
		err   error
		kind  state.ErrorKind
		field string
	}{
		"org: malformed slug":   {third(w.CreateOrg(ctx, "Acme", "")), state.Invalid, "slug"},
		"org: control in name":  {third(w.CreateOrg(ctx, "fine", "a\nb")), state.Invalid, "name"},
		"org: taken":            {third(w.CreateOrg(ctx, "acme", "")), state.Conflict, "slug"},
		"network: malformed":    {third(w.CreateNetwork(ctx, "acme", "a/b")), state.Invalid, "network"},
		"network: taken":        {third(w.CreateNetwork(ctx, "acme", "default")), state.Conflict, "network"},
		"network: unknown org":  {third(w.CreateNetwork(ctx, "nobody", "x")), state.NotFound, "org"},
		"app: malformed":        {third(w.CreateApp(ctx, "-web", "acme", "")), state.Invalid, "name"},
		"app: reserved":         {third(w.CreateApp(ctx, "internal", "acme", "")), state.Invalid, "name"},
		"app: taken":            {third(w.CreateApp(ctx, "web", "acme", "")), state.Conflict, "name"},
		"app: taken elsewhere":  {third(w.CreateApp(ctx, "other", "acme", "")), state.Conflict, "name"},
		"app: unknown org":      {third(w.CreateApp(ctx, "shop", "nobody", "")), state.NotFound, "org"},
		"app: malformed org":    {third(w.CreateApp(ctx, "shop", "../x", "")), state.Invalid, "org"},
		"app: unknown network":  {third(w.CreateApp(ctx, "shop", "acme", "staging")), state.NotFound, "network"},
		"vip: unknown app":      {third(w.AllocateVIP(ctx, "shop", "", "")), state.NotFound, "app"},
		"vip: malformed app":    {third(w.AllocateVIP(ctx, "../web", "", "")), state.NotFound, "app"},
		"vip: unknown org":      {third(w.AllocateVIP(ctx, "web", "nobody", "")), state.NotFound, "org"},
		"vip: unknown network":  {third(w.AllocateVIP(ctx, "web", "globex", "staging")), state.NotFound, "network"},
		"release: unknown app":  {second(w.ReleaseVIP(ctx, "shop", vip.Addr())), state.NotFound, "app"},
		"release: another's":    {second(w.ReleaseVIP(ctx, "other", vip.Addr())), state.NotFound, "ip"},
		"release: no address":   {second(w.ReleaseVIP(ctx, "web", netip.Addr{})), state.NotFound, "ip"},
		"release: a Machine's":  {second(w.ReleaseVIP(ctx, "web", started.Addr())), state.NotFound, "ip"},
		"release: none there":   {second(w.ReleaseVIP(ctx, "web", sixpn.VIPAddr(vip.Network, vip.Number+1))), state.NotFound, "ip"},
		"host: malformed name":  {third(w.RegisterHost(ctx, "a.b", "fra", 0)), state.Invalid, "host"},
		"host: unknown region":  {third(w.RegisterHost(ctx, "host-2", "xxx", 0)), state.Invalid, "region"},
		"host: taken":           {third(w.RegisterHost(ctx, "host-1", "fra", 0)), state.Conflict, "host"},
		"host: unknown number":  {third(w.RegisterHost(ctx, "host-2", "fra", missingHost)), state.NotFound, "host"},
		"machine: bad id":       {create(func(n *state.NewMachine) { n.ID = "148E21DAD76789" }), state.Invalid, "id"},
		"machine: id in use":    {create(func(n *state.NewMachine) { n.ID = started.ID }), state.Conflict, "id"},
		"machine: bad name":     {create(func(n *state.NewMachine) { n.Name = "web_2" }), state.Invalid, "name"},
		"machine: taken name":   {create(func(n *state.NewMachine) { n.Name = "web-1" }), state.Conflict, "name"},
		"machine: bad region":   {create(func(n *state.NewMachine) { n.Region = "FRA" }), state.Invalid, "region"},
		"machine: unknown app":  {create(func(n *state.NewMachine) { n.App = "shop" }), state.NotFound, "app"},
		"machine: unknown host": {create(func(n *state.NewMachine) { n.Host = missingHost }), state.NotFound, "host"},
		"machine: bad config":   {create(func(n *state.NewMachine) { n.Config.Init.Exec = nil }), state.Invalid, "config.init.exec"},
		"update: unknown":       {third(w.UpdateMachine(ctx, "00000000000000", nil)), state.NotFound, "id"},
		"update: bad id":        {third(w.UpdateMachine(ctx, "web-1", nil)), state.Invalid, "id"},
		"update: bad state":     {update(func(m *state.Machine) { m.State = "flying" }), state.Invalid, "state"},
		"update: bad desired":   {update(func(m *state.Machine) { m.Desired = state.Starting }), state.Invalid, "desired"},
		"update: bad config":    {update(func(m *state.Machine) { m.Config.MTU = 1279 }), state.Invalid, "config.mtu"},
		"update: id":            {update(func(m *state.Machine) { m.ID = "00000000000001" }), state.Invalid, ""},
		"update: name":          {update(func(m *state.Machine) { m.Name = "x" }), state.Invalid, ""},
		"update: app":           {update(func(m *state.Machine) { m.App = "other" }), state.Invalid, ""},
		"update: network":       {update(func(m *state.Machine) { m.Network++ }), state.Invalid, ""},
		"update: host":          {update(func(m *state.Machine) { m.Host++ }), state.Invalid, ""},
		"update: number":        {update(func(m *state.Machine) { m.Number++ }), state.Invalid, ""},
		"update: region":        {update(func(m *state.Machine) { m.Region = "nrt" }), state.Invalid, ""},
		"destroy: unknown":      {second(w.DestroyMachine(ctx, "00000000000000")), state.NotFound, "id"},
		"destroy: bad id":       {second(w.DestroyMachine(ctx, "")), state.Invalid, "id"},
		"destroy: started":      {second(w.DestroyMachine(ctx, started.ID)), state.Conflict, "state"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, row.err, row.kind, row.field) })
	}
	// The next write's revision says how many there were.
	_, revision, err = w.CreateApp(ctx, "last", "acme", "")
	must(t, err)
	if revision != before.Revision+1 {
		t.Errorf("the next write has revision %d, want %d: something refused was written", revision, before.Revision+1)
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

func TestDefaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newMachine("")
	m, revision, err := w.CreateMachine(within(t), n)
	must(t, err)
	if state.ValidateMachineID(m.ID) != nil || m.Name != m.ID || m.Region != "fra" || m.Network != w.web.Network ||
		m.State != state.Created || m.Desired != state.Started || m.Number == 0 || m.InstanceID == "" || m.CreatedAt.IsZero() {
		t.Errorf("unexpected Machine %+v", m)
	}
	if stored := at(t, w.Store, revision).Machines[m.ID]; !stored.CreatedAt.Equal(m.CreatedAt) || stored.Addr() != m.Addr() {
		t.Errorf("the Machine stored is %+v, the one returned %+v", stored, m)
	}
	if kind, _ := sixpn.Classify(m.Addr()); kind != sixpn.KindMachine {
		t.Errorf("its address %v is that of a %v", m.Addr(), kind)
	}
	v, _, err := w.AllocateVIP(within(t), "web", "", "")
	must(t, err)
	if kind, _ := sixpn.Classify(v.Addr()); kind != sixpn.KindVIP || v.Network != w.web.Network {
		t.Errorf("the address %v is that of a %v", v.Addr(), kind)
	}
}

func TestNetworksOfAnOrg(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	staging, _, err := w.CreateNetwork(ctx, "acme", "staging")
	must(t, err)
	app, _, err := w.CreateApp(ctx, "shop", "acme", "staging")
	must(t, err)
	if app.Network != staging.ID || app.Network == w.web.Network {
		t.Errorf("the app is in network %v, want %v", app.Network, staging.ID)
	}
	_, _, err = w.CreateOrg(ctx, "globex", "")
	must(t, err)
	for name, row := range map[string]struct {
		org, network string
		want         func(*state.Snapshot) sixpn.Network
	}{
		"own":              {"", "", func(*state.Snapshot) sixpn.Network { return staging.ID }},
		"other of own org": {"", "default", func(*state.Snapshot) sixpn.Network { return w.web.Network }},
		"other org": {"globex", "", func(s *state.Snapshot) sixpn.Network {
			n, _ := s.NetworkNamed("globex", "")
			return n.ID
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v, revision, err := w.AllocateVIP(within(t), "shop", row.org, row.network)
			must(t, err)
			if want := row.want(at(t, w.Store, revision)); v.Network != want {
				t.Errorf("the address is of network %v, want %v", v.Network, want)
			}
		})
	}
	if networks := w.Snapshot().OrgNetworks("acme"); len(networks) != 2 || networks[1].Name != "staging" {
		t.Errorf("the org has networks %+v, want default and staging", networks)
	}
}

func TestSameRequestWithAnIDMakesOneMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newMachine("web-1")
	n.ID = "148e21dad76789"
	n.Config.Env = map[string]string{} // stored as absent
	type result struct {
		number sixpn.Machine
		err    error
	}
	for _, r := range together(contenders, func(i int) result {
		m, _, err := w.contender(i).CreateMachine(within(t), n)
		return result{m.Number, err}
	}) {
		if r.err != nil || r.number != 1 {
			t.Errorf("got Machine number %v and error %v, want 1 and none", r.number, r.err)
		}
	}
	for name, change := range map[string]func(*state.NewMachine){
		"name":   func(n *state.NewMachine) { n.Name = "web-2" },
		"config": func(n *state.NewMachine) { n.Config.MTU = 1300 },
		"region": func(n *state.NewMachine) { n.Region = "nrt" },
		"host":   func(n *state.NewMachine) { n.Host = missingHost },
	} {
		t.Run("another "+name, func(t *testing.T) {
			other := n
			change(&other)
			_, _, err := w.CreateMachine(within(t), other)
			refused(t, err, state.Conflict, "id")
		})
	}
}

func TestUpdateMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	code := 3
	updated, revision, err := w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error {
		m.State, m.ExitCode, m.Message = state.Failed, &code, "it broke"
		m.Config.Env["NEW"] = "1" // also a change, though the map is the same
		return nil
	})
	must(t, err)
	stored := at(t, w.Store, revision).Machines[m.ID]
	if stored.State != state.Failed || *stored.ExitCode != 3 || stored.Config.Env["NEW"] != "1" {
		t.Errorf("stored is %+v", stored)
	}
	if !updated.UpdatedAt.After(m.UpdatedAt) || !stored.UpdatedAt.Equal(updated.UpdatedAt) {
		t.Errorf("updated at %v, stored as %v, before %v", updated.UpdatedAt, stored.UpdatedAt, m.UpdatedAt)
	}

	_, unchanged, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil })
	must(t, err)
	if unchanged != revision {
		t.Errorf("an update that changes nothing has revision %d, want that of the last write, %d", unchanged, revision)
	}
	mine := errors.New("mine")
	if _, _, err := w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error {
		m.State = state.Started
		return mine
	}); !errors.Is(err, mine) {
		t.Errorf("got error %v, want the one of change", err)
	}
	if again, _, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil }); err != nil || again.State != state.Failed {
		t.Errorf("after a refused change the state is %v (%v), want failed", again.State, err)
	}
}

// TestHostIsFoundAgain covers an agent that was killed after it registered.
func TestHostIsFoundAgain(t *testing.T) {
	t.Parallel()
	s := running(t)
	ctx := within(t)
	first := state.NewHost{Name: "host-1", Region: "fra", Token: "secret-1"}
	host, revision, err := s.JoinHost(ctx, first)
	must(t, err)

	again, same, err := s.JoinHost(ctx, first)
	must(t, err)
	if again.ID != host.ID || same != revision {
		t.Errorf("the same host got number %v at revision %d, want %v at %d", again.ID, same, host.ID, revision)
	}
	other := first
	other.Token = "secret-2"
	_, _, err = s.JoinHost(ctx, other)
	refused(t, err, state.Conflict, "host")

	moved, _, err := s.RegisterHost(ctx, "host-one", "nrt", host.ID)
	must(t, err)
	if moved.ID != host.ID || moved.Name != "host-one" || moved.Region != "nrt" || moved.Token != host.Token {
		t.Errorf("after a change of name and region the host is %+v", moved)
	}
	// The old name is free, the new one is not.
	second, _, err := s.JoinHost(ctx, other)
	must(t, err)
	if second.ID == host.ID {
		t.Errorf("another host got the same number, %v", second.ID)
	}
	_, _, err = s.RegisterHost(ctx, "host-one", "fra", second.ID)
	refused(t, err, state.Conflict, "host")
}

// TestFieldsOfANewerRelease writes what this build does not know and lets it update
// the record.
func TestFieldsOfANewerRelease(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	w := populate(t, open(t, e))
	m := w.machine(t, "web-1")
	const key = "/sixpn/v1/networks/00000001/machines/"
	read := func() map[string]any {
		r, err := e.Client().Get(within(t), key+m.ID)
		must(t, err)
		var tree map[string]any
		must(t, json.Unmarshal(r.Kvs[0].Value, &tree))
		return tree
	}
	newer := read()
	newer["later"] = true
	newer["config"].(map[string]any)["later"] = map[string]any{"cpus": 2.0}
	newer["config"].(map[string]any)["services"].([]any)[1].(map[string]any)["later"] = true
	// A policy that this release would refuse in a new configuration.
	newer["config"].(map[string]any)["restart"].(map[string]any)["policy"] = "spot-price"
	encoded, err := json.Marshal(newer)
	must(t, err)
	_, err = e.Client().Put(within(t), key+m.ID, string(encoded))
	must(t, err)

	_, _, err = w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error { m.State = state.Started; return nil })
	must(t, err)
	after := read()
	newer["state"], newer["updated_at"], newer["events"] = "started", after["updated_at"], after["events"]
	want, err := json.Marshal(newer)
	must(t, err)
	got, err := json.Marshal(after)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
}

func TestStoreAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	e := start(t, directory(t))
	s := open(t, e)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := s.CreateOrg(ctx, "acme", "")
	refused(t, err, state.Unavailable, "")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error in its chain", err)
	}
	must(t, e.Close())
	_, _, err = s.CreateOrg(within(t), "acme", "")
	refused(t, err, state.Unavailable, "")
}
