package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// An update replaces the whole configuration and makes another run, whatever the
// Machine was doing.
func TestUpdateMachine(t *testing.T) {
	w := newWorld(t)
	w.seed()
	const body = `{"config":{"init":{"exec":["sleep","61"]},"metadata":{"new":"1"}}%s}`
	for _, row := range []struct {
		name           string
		before         state.MachineState
		desired        state.MachineState
		more           string
		state, becomes state.MachineState // what it is and is to be afterwards
		pending        bool
	}{
		{"that runs", state.Started, state.Started, "", state.Stopping, state.Started, true},
		{"that is stopped", state.Stopped, state.Stopped, "", state.Starting, state.Started, false},
		{"that failed", state.Failed, state.Started, "", state.Starting, state.Started, false},
		{"that is suspended", state.Suspended, state.Suspended, "", state.Stopping, state.Started, true},
		{"that stops", state.Stopping, state.Stopped, "", state.Stopping, state.Started, true},
		{"that never ran", state.Created, state.Stopped, "", state.Starting, state.Started, false},
		{"that runs, to be stopped", state.Started, state.Started, `,"skip_launch":true`, state.Stopping, state.Stopped, false},
		{"that is stopped, to stay so", state.Stopped, state.Stopped, `,"skip_launch":true`, state.Stopped, state.Stopped, false},
		{"that never ran, to stay so", state.Created, state.Stopped, `,"skip_launch":true`, state.Created, state.Stopped, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := w.create("web", state.Restart{})
			m, revision, err := w.store.UpdateMachine(t.Context(), m.ID, func(m *state.Machine) error {
				m.State, m.Desired = row.before, row.desired
				m.Config.StopConfig.Signal = "SIGQUIT"
				return nil
			})
			must(t, err)
			w.seen(revision)
			a := w.post("/v1/apps/web/machines/"+m.ID, strings.Replace(body, "%s", row.more, 1))
			w.durable(t, a, http.StatusOK)
			now := w.machine(m.ID)
			if now.State != row.state || now.Desired != row.becomes || now.InstanceID == m.InstanceID || (now.Pending == now.InstanceID) != row.pending {
				t.Errorf("Machine %+v, expected it %s and to be %s by another run", now, row.state, row.becomes)
			}
			if diff := cmp.Diff(state.MachineConfig{Init: state.Init{Exec: []string{"sleep", "61"}}, Metadata: map[string]string{"new": "1"}}, now.Config); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			if row.pending && now.Stop.Signal != "SIGQUIT" {
				t.Errorf("the run of before is stopped by %q, expected its own configuration's", now.Stop.Signal)
			}
			var answered api.Machine
			a.into(t, &answered)
			if answered.InstanceID != now.InstanceID || answered.Nonce != "" {
				t.Errorf("answer %s, expected instance %s and no lease", a.body, now.InstanceID)
			}
		})
	}
}

func TestUpdateRefused(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	going := w.create("web", state.Restart{})
	w.ask("DELETE", "/v1/apps/web/machines/"+going.ID+"?force=true", "", "")
	for _, lease := range []string{"", `"lease_ttl":60,`} {
		for _, row := range []struct {
			name, id, more string
			code           int
			status, field  string
		}{
			{"of another version", m.ID, `"current_version":"old",`, 409, "conflict", "current_version"},
			{"of another id", m.ID, `"id":"00000000000000",`, 422, "invalid_argument", "id"},
			{"of another name", m.ID, `"name":"other",`, 422, "invalid_argument", "name"},
			{"of another region", m.ID, `"region":"fra",`, 422, "invalid_argument", "region"},
			{"of none", "00000000000000", ``, 404, "not_found", "machine_id"},
			{"of one that is being destroyed", going.ID, ``, 412, "failed_precondition", ""},
		} {
			t.Run(row.name+lease, func(t *testing.T) {
				w.refused(t, refusal{code: row.code, status: row.status, field: row.field}, func() answer {
					return w.post("/v1/apps/web/machines/"+row.id, `{`+lease+row.more+withConfig("")[1:])
				})
			})
		}
		t.Run("by nothing"+lease, func(t *testing.T) {
			w.refused(t, refusal{code: 422, status: "invalid_argument", field: "config.init.exec"}, func() answer {
				return w.post("/v1/apps/web/machines/"+m.ID, `{`+lease+`"config":{}}`)
			})
		})
	}
	if a := w.post("/v1/apps/web/machines/"+m.ID, `{"current_version":"`+m.InstanceID+`","name":"`+m.Name+`","region":"ams",`+withConfig("")[1:]); a.code != http.StatusOK {
		t.Errorf("answer %d %s to an update of the version that there is", a.code, a.body)
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	w.durable(t, w.post(at+"/suspend", ""), http.StatusOK)
	if now := w.machine(m.ID); now.Desired != state.Suspended || now.InstanceID != m.InstanceID {
		t.Errorf("Machine %+v, expected the same run to be suspended", now)
	}
	answered := w.later("", "GET", at+"/wait?state=suspended", "")
	w.become(m.ID, state.Suspending, nil)
	w.become(m.ID, state.Suspended, nil)
	if a := <-answered; a.code != http.StatusOK {
		t.Errorf("wait for suspended: %d %s", a.code, a.body)
	}
	if a := w.get(at + "/wait?state=settled&timeout=1"); a.code != http.StatusOK {
		t.Errorf("suspended is not settled: %d %s", a.code, a.body)
	}
	w.durable(t, w.post(at+"/start", ""), http.StatusOK)
	if now := w.machine(m.ID); now.Desired != state.Started || now.InstanceID != m.InstanceID || now.State != state.Suspended || now.Pending != "" {
		t.Errorf("Machine %+v, expected the same run to go on", now)
	}
	w.become(m.ID, state.Stopped, new(int))
	w.refused(t, refusal{code: 412, status: "failed_precondition"}, func() answer { return w.post(at+"/suspend", "") })
}

func TestSignalMachine(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID + "/signal"
	var sent syscall.Signal
	w.machines.signal = func(id string, s syscall.Signal) error {
		if id != m.ID {
			t.Errorf("signal to %s, expected %s", id, m.ID)
		}
		sent = s
		return nil
	}
	if a := w.post(at, `{"signal":"usr1"}`); a.code != http.StatusOK || sent != syscall.SIGUSR1 {
		t.Errorf("answer %d %s and signal %v, expected SIGUSR1", a.code, a.body, sent)
	}
	for _, signal := range []string{"", "nothing"} {
		w.refused(t, refusal{code: 422, status: "invalid_argument", field: "signal"}, func() answer {
			return w.post(at, `{"signal":"`+signal+`"}`)
		})
	}
	w.machines.signal = func(string, syscall.Signal) error { return errors.New("it has ended") }
	if a := w.post(at, `{"signal":"HUP"}`); a.code != http.StatusUnprocessableEntity || !strings.Contains(a.failure.Error, "it has ended") {
		t.Errorf("answer %d %s, expected why", a.code, a.body)
	}
	w.become(m.ID, state.Stopping, nil)
	w.refused(t, refusal{code: 412, status: "failed_precondition"}, func() answer { return w.post(at, `{"signal":"HUP"}`) })
}

func TestCordonAndEvents(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	var shown api.Machine
	for _, verb := range []string{"cordon", "uncordon"} {
		w.durable(t, w.post(at+"/"+verb, ""), http.StatusOK)
		w.durable(t, w.post(at+"/"+verb, ""), http.StatusOK) // again, which changes nothing
		shown = api.Machine{}
		w.get(at).into(t, &shown)
		if shown.Cordoned != (verb == "cordon") || shown.InstanceID != m.InstanceID {
			t.Errorf("Machine %+v after %s", shown, verb)
		}
	}
	var events []api.MachineEvent
	w.get(at+"/events").into(t, &events)
	var types []string
	for _, e := range events {
		types = append(types, e.Type+" by "+e.Source)
	}
	if got := strings.Join(types, ", "); got != "uncordon by user, cordon by user, start by flyd, launch by user" {
		t.Errorf("events %s", got)
	}
	if diff := cmp.Diff(events, shown.Events); diff != "" {
		t.Errorf("events by themselves and in the Machine (-own +its):\n%s", diff)
	}
	w.get(at+"/events?limit=1").into(t, &events)
	if len(events) != 1 || events[0].Type != "uncordon" {
		t.Errorf("events %+v, expected the latest", events)
	}
}

// A cordon with a lease ends with it.
func TestCordonWithLease(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	lease, _, err := w.store.AcquireLease(t.Context(), m.ID, state.LeaseRequest{})
	must(t, err)
	for _, row := range []struct {
		method, path string
		cordoned     bool
	}{{"POST", "/cordon?with_lease=true", true}, {"DELETE", "/lease", false}} {
		w.durable(t, w.holding(lease.Nonce, row.method, at+row.path, "", ""), http.StatusOK)
		var shown api.Machine
		w.get(at).into(t, &shown)
		if shown.Cordoned != row.cordoned {
			t.Errorf("after %s %s it is cordoned: %v", row.method, row.path, shown.Cordoned)
		}
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID + "/metadata"
	if a := w.get(at); strings.TrimSpace(string(a.body)) != "{}" {
		t.Errorf("metadata %s, expected none", a.body)
	}
	w.durable(t, w.post(at+"/Some.Key", `{"value":"a b"}`), http.StatusNoContent)
	w.durable(t, w.post(at+"/other", `{"value":""}`), http.StatusNoContent)
	now := w.machine(m.ID)
	if diff := cmp.Diff(map[string]string{"Some.Key": "a b", "other": ""}, now.Config.Metadata); diff != "" || now.InstanceID != m.InstanceID {
		t.Errorf("metadata of run %s (-want +got):\n%s", now.InstanceID, diff)
	}
	var value api.MetadataValue
	w.get(at+"/Some.Key").into(t, &value)
	if value.Value != "a b" {
		t.Errorf("value %q, expected a b", value.Value)
	}
	w.durable(t, w.ask("DELETE", at+"/Some.Key", "", ""), http.StatusNoContent)
	w.durable(t, w.ask("DELETE", at+"/Some.Key", "", ""), http.StatusNoContent)
	w.refused(t, refusal{code: 404, status: "not_found", field: "key"}, func() answer { return w.get(at + "/Some.Key") })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "key"}, func() answer { return w.post(at+"/a%20b", `{"value":"x"}`) })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "value"}, func() answer { return w.post(at+"/k", `{"value":"a\nb"}`) })
}

// Bytes that are no text come and go as base64.
func TestExecBytes(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	path := "/v1/apps/web/machines/" + m.ID + "/exec"
	w.machines.exec = func(_ context.Context, _ string, c api.Command) (int, error) {
		_, err := io.Copy(c.Stdout, c.Stdin)
		return 0, err
	}
	var got api.ExecResult
	w.post(path, `{"cmd":"cat","stdin":"/wD+","encoding":"base64"}`).into(t, &got)
	if want := (api.ExecResult{Stdout: "/wD+", Encoding: "base64"}); got != want {
		t.Errorf("exec %+v, expected %+v", got, want)
	}
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "stdin"}, func() answer {
		return w.post(path, `{"cmd":"cat","stdin":"no!","encoding":"base64"}`)
	})
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "encoding"}, func() answer {
		return w.post(path, `{"cmd":"cat","encoding":"hex"}`)
	})
}
