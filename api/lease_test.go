package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func TestLease(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	none := refusal{code: 404, status: "not_found"}
	w.refused(t, none, func() answer { return w.get(at + "/lease") })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "ttl"}, func() answer { return w.post(at+"/lease?ttl=120", `{"ttl":60}`) })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "ttl"}, func() answer { return w.post(at+"/lease", `{"ttl":-1}`) })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "owner"}, func() answer { return w.post(at+"/lease", `{"owner":"a\u0000"}`) })
	a := w.post(at+"/lease?ttl=120", "")
	w.durable(t, a, http.StatusCreated)
	var lease, again api.LeaseAnswer
	a.into(t, &lease)
	left := time.Until(time.Unix(lease.Data.ExpiresAt, 0))
	if lease.Status != "success" || lease.Data.Nonce == "" || lease.Data.Version != m.InstanceID || left < 100*time.Second || left > 121*time.Second {
		t.Errorf("lease %s, expected one of 120 s", a.body)
	}
	held := refusal{code: 409, status: "conflict", field: "fly-machine-lease-nonce"}
	w.refused(t, held, func() answer { return w.post(at+"/lease?ttl=120", "") })
	w.refused(t, held, func() answer { return w.ask("DELETE", at+"/lease", "", "") })

	a = w.holding(lease.Data.Nonce, "POST", at+"/lease", "application/json", `{"ttl":600,"owner":"me","description":"longer"}`)
	w.durable(t, a, http.StatusCreated)
	a.into(t, &again)
	if again.Data.Nonce != lease.Data.Nonce || again.Data.ExpiresAt <= lease.Data.ExpiresAt || again.Data.Owner != "me" {
		t.Errorf("lease %s, expected the same one for longer", a.body)
	}
	if shown := w.get(at + "/lease"); string(shown.body) != string(a.body) {
		t.Errorf("lease %s, expected %s", shown.body, a.body)
	}
	w.durable(t, w.holding(lease.Data.Nonce, "POST", at+"/stop", "", ""), http.StatusOK)
	w.durable(t, w.holding(lease.Data.Nonce, "DELETE", at+"/lease", "", ""), http.StatusOK)
	w.refused(t, none, func() answer { return w.get(at + "/lease") })
	w.refused(t, held, func() answer { return w.holding(lease.Data.Nonce, "POST", at+"/start", "", "") })
	w.durable(t, w.post(at+"/start", ""), http.StatusOK)
}

// A lease can be taken along with what makes or changes a Machine.
func TestLeaseWithChange(t *testing.T) {
	w := newWorld(t)
	w.seed()
	create := `{"id":"00000000000001","lease_ttl":60,` + withConfig("")[1:]
	var made, again api.Machine
	w.post("/v1/apps/web/machines", create).into(t, &made)
	at := "/v1/apps/web/machines/" + made.ID
	if l := w.machine(made.ID).Lease; made.Nonce == "" || l == nil || l.Nonce != made.Nonce {
		t.Fatalf("Machine %+v, expected the nonce of its lease", made)
	}
	before := w.before()
	w.post("/v1/apps/web/machines", create).into(t, &again)
	if again.ID != made.ID || again.Nonce != made.Nonce {
		t.Errorf("Machine %+v, expected the one of the first try", again)
	}
	w.unchanged(t, before)

	w.refused(t, refusal{code: 409, status: "conflict", field: "fly-machine-lease-nonce"}, func() answer {
		return w.post(at, `{"lease_ttl":60,`+withConfig("")[1:])
	})
	a := w.holding(made.Nonce, "POST", at, "application/json", `{"lease_ttl":600,`+withConfig("")[1:])
	a.into(t, &again)
	if a.code != http.StatusOK || again.Nonce != made.Nonce || !w.machine(made.ID).Lease.HeldAt(time.Now().Add(500*time.Second)) {
		t.Errorf("answer %d %s, expected the same lease for longer", a.code, a.body)
	}
	w.durable(t, w.holding(made.Nonce, "DELETE", at+"/lease", "", ""), http.StatusOK)
	w.post(at, `{"lease_ttl":60,`+withConfig("")[1:]).into(t, &again)
	if l := w.machine(made.ID).Lease; l == nil || again.Nonce != l.Nonce || l.Nonce == made.Nonce {
		t.Errorf("nonce %q, expected that of a new lease", again.Nonce)
	}
}

const (
	writers = 8
	changes = 5 // of each writer
)

// atOnce runs writers at the same time, each making its changes.
func atOnce(change func(writer, n int)) {
	var running sync.WaitGroup
	for writer := range writers {
		running.Go(func() {
			for n := range changes {
				change(writer, n)
			}
		})
	}
	running.Wait()
}

// counter is the number that writers add to.
func counter(t *testing.T, m api.Machine) int {
	if m.Config.Metadata["n"] == "" {
		return 0
	}
	n, err := strconv.Atoi(m.Config.Metadata["n"])
	if err != nil {
		t.Error(err)
	}
	return n
}

// Under leases, who reads and then writes loses nothing.
func TestLeasesSerializeWriters(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	atOnce(func(_, _ int) {
		var lease api.LeaseAnswer
		for {
			a := w.post(at+"/lease?ttl=60", "")
			if a.code == http.StatusCreated {
				a.into(t, &lease)
				break
			}
			if a.code != http.StatusConflict {
				t.Errorf("answer %d %s", a.code, a.body)
				return
			}
		}
		var now api.Machine
		w.get(at).into(t, &now)
		next := fmt.Sprintf(`{"value":"%d"}`, counter(t, now)+1)
		if a := w.holding(lease.Data.Nonce, "POST", at+"/metadata/n", "application/json", next); a.code != http.StatusNoContent {
			t.Errorf("answer %d %s to who holds the lease", a.code, a.body)
		}
		if a := w.holding(lease.Data.Nonce, "DELETE", at+"/lease", "", ""); a.code != http.StatusOK {
			t.Errorf("answer %d %s to the release", a.code, a.body)
		}
	})
	if n := w.machine(m.ID).Config.Metadata["n"]; n != strconv.Itoa(writers*changes) {
		t.Errorf("%s changes are kept, expected %d", n, writers*changes)
	}
}

// By current_version, who replaces a configuration that another has replaced
// meanwhile is told.
func TestVersionsSerializeWriters(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	atOnce(func(_, _ int) {
		for {
			var now api.Machine
			w.get(at).into(t, &now)
			a := w.post(at, fmt.Sprintf(`{"current_version":%q,`, now.InstanceID)+withConfig(fmt.Sprintf(`,"metadata":{"n":"%d"}`, counter(t, now)+1))[1:])
			switch {
			case a.code == http.StatusOK:
				return
			case a.code != http.StatusConflict || a.failure.Field != "current_version":
				t.Errorf("answer %d %s", a.code, a.body)
				return
			}
		}
	})
	if n := w.machine(m.ID).Config.Metadata["n"]; n != strconv.Itoa(writers*changes) {
		t.Errorf("%s changes are kept, expected %d", n, writers*changes)
	}
}

// Without either, changes of different things at once are all kept.
func TestConcurrentChangesAreKept(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	atOnce(func(writer, n int) {
		key := fmt.Sprintf("k%d.%d", writer, n)
		if a := w.post(at+"/metadata/"+key, `{"value":"x"}`); a.code != http.StatusNoContent {
			t.Errorf("answer %d %s", a.code, a.body)
		}
		if n == 0 && writer%2 == 0 {
			w.post(at+"/cordon", "")
			w.post(at+"/stop", "")
		}
	})
	now := w.machine(m.ID)
	if len(now.Config.Metadata) != writers*changes || !now.Cordoned || now.Desired != state.Stopped {
		t.Errorf("Machine %+v, expected %d entries of metadata, cordoned and to be stopped", now, writers*changes)
	}
}

// One id makes one Machine, however often and at once it is asked for.
func TestOneIDMakesOneMachine(t *testing.T) {
	w := newWorld(t)
	w.seed()
	before := len(w.store.Snapshot().AppMachines("web"))
	atOnce(func(_, n int) {
		var m api.Machine
		a := w.post("/v1/apps/web/machines", fmt.Sprintf(`{"id":"0000000000000%d",`, n)+withConfig("")[1:])
		if a.into(t, &m); a.code != http.StatusOK || m.ID != fmt.Sprintf("0000000000000%d", n) {
			t.Errorf("answer %d %s", a.code, a.body)
		}
	})
	if n := len(w.store.Snapshot().AppMachines("web")) - before; n != changes {
		t.Errorf("%d Machines were made, expected %d", n, changes)
	}
}
