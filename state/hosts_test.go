package state_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/state"
)

// publicKey is a key that only this number has.
func publicKey(n byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune('a'+n)), 32)))
}

func newHost(n byte) state.NewHost {
	return state.NewHost{
		Name: "host-" + string(rune('0'+n)), Region: "fra", Token: "token-" + string(rune('0'+n)),
		PublicKey: publicKey(n), Endpoint: "192.0.2.1:5182" + string(rune('0'+n)), Version: "1.0",
	}
}

func TestJoinWritesWhatIsNew(t *testing.T) {
	t.Parallel()
	s := running(t)
	first, _, err := s.JoinHost(within(t), newHost(1))
	must(t, err)
	if want := newHost(1); first.PublicKey != want.PublicKey || first.Endpoint != want.Endpoint || first.Version != want.Version {
		t.Fatalf("the host is %+v, want it with %+v", first, want)
	}
	for name, change := range map[string]func(h *state.NewHost, want *state.Host){
		"nothing":       func(*state.NewHost, *state.Host) {},
		"another key":   func(h *state.NewHost, want *state.Host) { h.PublicKey = publicKey(7); want.PublicKey = h.PublicKey },
		"another place": func(h *state.NewHost, want *state.Host) { h.Endpoint = "[2001:db8::1]:4"; want.Endpoint = h.Endpoint },
		"another agent": func(h *state.NewHost, want *state.Host) { h.Version = "2.0"; want.Version = h.Version },
		"a gateway":     func(h *state.NewHost, want *state.Host) { h.Gateway, want.Gateway = true, true },
		"a native mesh": func(h *state.NewHost, want *state.Host) {
			h.Mesh = state.MeshNative
			want.Mesh, want.PublicKey = h.Mesh, ""
		},
		"no mesh so far": func(h *state.NewHost, _ *state.Host) { h.PublicKey, h.Endpoint, h.Version = "", "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.JoinHost(within(t), newHost(1))
			must(t, err)
			again, want := newHost(1), first
			again.Known = first.ID
			change(&again, &want)
			got, revision, err := s.JoinHost(within(t), again)
			must(t, err)
			if got != want {
				t.Errorf("the host is\n%+v, want\n%+v", got, want)
			}
			if stored := at(t, s, revision).Hosts[first.ID]; stored != want {
				t.Errorf("the snapshot has\n%+v, want\n%+v", stored, want)
			}
		})
	}
}

func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	s := running(t)
	first, _, err := s.JoinHost(within(t), newHost(1))
	must(t, err)
	for name, row := range map[string]struct {
		change func(h *state.NewHost)
		kind   state.ErrorKind
		field  string
	}{
		"its name is taken":               {func(h *state.NewHost) { h.Name = first.Name }, state.Conflict, "host"},
		"its key is another host's":       {func(h *state.NewHost) { h.PublicKey = first.PublicKey }, state.Conflict, "public_key"},
		"its number is another host's":    {func(h *state.NewHost) { h.Known = first.ID }, state.Conflict, "host"},
		"its number is nobody's":          {func(h *state.NewHost) { h.Known = missingHost }, state.NotFound, "host"},
		"its key is short":                {func(h *state.NewHost) { h.PublicKey = "YQ==" }, state.Invalid, "public_key"},
		"its key is no base64":            {func(h *state.NewHost) { h.PublicKey = strings.Repeat("?", 44) }, state.Invalid, "public_key"},
		"its endpoint has no port":        {func(h *state.NewHost) { h.Endpoint = "192.0.2.1" }, state.Invalid, "endpoint"},
		"its endpoint has port 0":         {func(h *state.NewHost) { h.Endpoint = "192.0.2.1:0" }, state.Invalid, "endpoint"},
		"its endpoint is a name":          {func(h *state.NewHost) { h.Endpoint = "host-1:51821" }, state.Invalid, "endpoint"},
		"its endpoint is everywhere":      {func(h *state.NewHost) { h.Endpoint = "[::]:51821" }, state.Invalid, "endpoint"},
		"its endpoint is many":            {func(h *state.NewHost) { h.Endpoint = "224.0.0.1:51821" }, state.Invalid, "endpoint"},
		"its mesh is of no mode":          {func(h *state.NewHost) { h.Mesh = "vxlan" }, state.Invalid, "mesh"},
		"its version is not for printing": {func(h *state.NewHost) { h.Version = "1\n" }, state.Invalid, "version"},
		"its version is too long":         {func(h *state.NewHost) { h.Version = strings.Repeat("1", 101) }, state.Invalid, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(2)
			row.change(&h)
			_, _, err := s.JoinHost(within(t), h)
			refused(t, err, row.kind, row.field)
		})
	}
	// Nothing of that was written: the names are free, and the next number is the next.
	second, _, err := s.JoinHost(within(t), newHost(2))
	must(t, err)
	if second.ID != first.ID+1 {
		t.Errorf("the second host has number %v, want %v", second.ID, first.ID+1)
	}
}

// TestAHostThatLostItsDiskIsANewOne: it knows neither its number nor its token.
func TestAHostThatLostItsDiskIsANewOne(t *testing.T) {
	t.Parallel()
	s := running(t)
	lost, _, err := s.JoinHost(within(t), newHost(1))
	must(t, err)
	again := newHost(1)
	again.Token, again.PublicKey = "made anew", publicKey(7)
	_, _, err = s.JoinHost(within(t), again)
	refused(t, err, state.Conflict, "host")
	if !strings.Contains(err.Error(), "sixpn hosts remove host-1") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	_, err = s.RemoveHost(within(t), lost.ID, false)
	must(t, err)
	next, _, err := s.JoinHost(within(t), again)
	must(t, err)
	if next.ID == lost.ID {
		t.Errorf("the number %v was given out twice", next.ID)
	}
	// Should the old disk come back, its host is none any more.
	old := newHost(1)
	old.Known = lost.ID
	_, _, err = s.JoinHost(within(t), old)
	refused(t, err, state.NotFound, "host")
}

func TestDraining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stays := w.machine(t, "web-1")
	first, err := w.SetDraining(within(t), w.host.ID, true)
	must(t, err)
	again, err := w.SetDraining(within(t), w.host.ID, true)
	must(t, err)
	if again != first {
		t.Errorf("asked again it wrote revision %d after %d", again, first)
	}
	_, _, err = w.CreateMachine(within(t), w.newMachine("web-2"))
	refused(t, err, state.Conflict, "host")
	_, _, err = w.RegisterHost(within(t), w.host.Name, "nrt", w.host.ID)
	must(t, err)
	_, revision, err := w.UpdateMachine(within(t), stays.ID, func(m *state.Machine) error { m.State = state.Started; return nil })
	must(t, err)
	if s := at(t, w.Store, revision); !s.Hosts[w.host.ID].Draining || s.Machines[stays.ID].State != state.Started {
		t.Errorf("the host is %+v, with %+v", s.Hosts[w.host.ID], s.Machines)
	}
	_, err = w.SetDraining(within(t), w.host.ID, false)
	must(t, err)
	w.machine(t, "web-2")
	_, err = w.SetDraining(within(t), missingHost, true)
	refused(t, err, state.NotFound, "host")
}

func TestRemoveHost(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	w := populate(t, s)
	other, _, err := w.JoinHost(within(t), newHost(2))
	must(t, err)
	var on, elsewhere []state.Machine
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		on = append(on, w.machine(t, name))
		n := w.newMachine("other-" + name)
		n.Host = other.ID
		m, _, err := w.CreateMachine(within(t), n)
		must(t, err)
		elsewhere = append(elsewhere, m)
	}
	for _, id := range []string{on[0].ID, elsewhere[0].ID} {
		_, _, err := w.UpdateMachine(within(t), id, func(m *state.Machine) error { m.State = state.Started; return nil })
		must(t, err)
	}
	_, _, err = w.AcquireLease(within(t), on[1].ID, state.LeaseRequest{})
	must(t, err)

	_, err = w.RemoveHost(within(t), missingHost, false)
	refused(t, err, state.NotFound, "host")
	_, err = w.RemoveHost(within(t), missingHost, true)
	refused(t, err, state.NotFound, "host")
	_, err = w.RemoveHost(within(t), w.host.ID, false)
	refused(t, err, state.Conflict, "host")
	alive := keepAlive(t, e.Client(), w.host.ID)
	_, err = w.RemoveHost(within(t), w.host.ID, true)
	refused(t, err, state.Conflict, "host")
	alive.revoke(t)

	revision, err := w.RemoveHost(within(t), w.host.ID, true)
	must(t, err)
	after := at(t, w.Store, revision)
	if len(after.Hosts) != 1 || len(after.HostMachines(w.host.ID)) != 0 || len(after.HostMachines(other.ID)) != len(elsewhere) ||
		len(after.Machines) != len(elsewhere) || len(after.Deleted("web")) != len(on) {
		t.Errorf("after the removal there are hosts %v, Machines %v", after.Hosts, after.Machines)
	}
	// What has gone with it is free for others.
	_, _, err = w.RegisterHost(within(t), w.host.Name, "fra", 0)
	must(t, err)
	w.host = other
	w.machine(t, "web-1")
	// A host without Machines needs no force, even while its agent is at work.
	idle, _, err := w.JoinHost(within(t), newHost(3))
	must(t, err)
	keepAlive(t, e.Client(), idle.ID)
	_, err = w.RemoveHost(within(t), idle.ID, false)
	must(t, err)
}

// TestHostsKeepFieldsOfANewerRelease through whatever is written of them.
func TestHostsKeepFieldsOfANewerRelease(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	host, _, err := s.JoinHost(within(t), newHost(1))
	must(t, err)
	key := "/sixpn/v1/hosts/" + hex8(host.ID) + "/host"
	read := func() (tree map[string]any) {
		r, err := e.Client().Get(within(t), key)
		must(t, err)
		must(t, json.Unmarshal(r.Kvs[0].Value, &tree))
		return tree
	}
	newer := read()
	newer["later"] = map[string]any{"cores": 2.0}
	encoded, err := json.Marshal(newer)
	must(t, err)
	_, err = e.Client().Put(within(t), key, string(encoded))
	must(t, err)
	_, err = s.SetDraining(within(t), host.ID, true)
	must(t, err)
	again := newHost(1)
	again.Known, again.Version = host.ID, "2.0"
	_, _, err = s.JoinHost(within(t), again)
	must(t, err)
	got := read()
	if later, _ := got["later"].(map[string]any); later["cores"] != 2.0 || got["draining"] != true || got["version"] != "2.0" {
		t.Errorf("the record is %v, want it with what was unknown", got)
	}
}
