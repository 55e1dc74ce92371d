package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func (w *world) machine(id string) state.Machine { return w.store.Snapshot().Machines[id] }

func TestStopStartRestartDestroy(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	start := func(previous string) {
		t.Helper()
		a := w.ask("POST", at+"/start", "", "")
		var started api.Started
		a.into(t, &started)
		if a.code != http.StatusOK || started.PreviousState != previous {
			t.Fatalf("start: %d %s, expected previous_state %s", a.code, a.body, previous)
		}
	}

	start("started")
	if now := w.machine(m.ID); now.InstanceID != m.InstanceID {
		t.Error("starting a Machine that runs made another run")
	}

	w.durable(t, w.post(at+"/stop", `{"signal":"int","timeout":"7s"}`), http.StatusOK)
	if now := w.machine(m.ID); now.Desired != state.Stopped || now.State != state.Started || now.Stop.Signal != "SIGINT" || now.Stop.Timeout.Seconds() != 7 {
		t.Errorf("Machine %+v, expected it to be asked to stop, by SIGINT within 7 s", now)
	}
	w.durable(t, w.ask("POST", at+"/stop", "", ""), http.StatusOK)
	if now := w.machine(m.ID); now.Stop != (state.StopConfig{}) {
		t.Errorf("the stop of before is still in force: %+v", now.Stop)
	}

	zero := 0
	w.become(m.ID, state.Stopped, &zero)
	start("stopped")
	started := w.machine(m.ID)
	if started.Desired != state.Started || started.InstanceID == m.InstanceID || started.State != state.Starting {
		t.Errorf("Machine %+v, expected a new run that starts", started)
	}
	start("starting")
	if now := w.machine(m.ID); now.InstanceID != started.InstanceID {
		t.Error("a second start made another run")
	}

	w.become(m.ID, state.Started, nil)
	w.durable(t, w.ask("POST", at+"/restart?timeout=3s&signal=SIGQUIT", "", ""), http.StatusOK)
	restarted := w.machine(m.ID)
	if restarted.InstanceID == started.InstanceID || restarted.Desired != state.Started || restarted.State != state.Stopping || restarted.Stop.Signal != "SIGQUIT" || restarted.Stop.Timeout.Seconds() != 3 {
		t.Errorf("Machine %+v, expected a new run after it has stopped", restarted)
	}
	w.become(m.ID, state.Stopped, &zero)
	if a := w.get(at + "/wait?state=settled&timeout=1"); a.code != http.StatusRequestTimeout {
		t.Errorf("the end before a restart is settled: %d %s", a.code, a.body)
	}
	w.become(m.ID, state.Stopping, &zero)
	w.durable(t, w.ask("POST", at+"/restart?force_stop=true", "", ""), http.StatusOK)
	if now := w.machine(m.ID); now.Stop.Signal != "SIGKILL" {
		t.Errorf("stop %+v, expected SIGKILL", now.Stop)
	}

	w.become(m.ID, state.Failed, &zero)
	w.durable(t, w.ask("DELETE", at, "", ""), http.StatusOK)
	if now := w.machine(m.ID); now.Desired != state.Destroyed {
		t.Errorf("Machine %+v, expected it to be asked to go", now)
	}
	for _, verb := range []string{"start", "restart"} {
		if a := w.ask("POST", at+"/"+verb, "", ""); a.code != http.StatusPreconditionFailed || !strings.Contains(a.failure.Error, "being destroyed") {
			t.Errorf("%s of what is being destroyed: %d %s", verb, a.code, a.body)
		}
	}
	w.ask("POST", at+"/stop", "", "")
	if now := w.machine(m.ID); now.Desired != state.Destroyed {
		t.Error("a stop took back that it is to be destroyed")
	}
}

func TestWaitMachine(t *testing.T) {
	w := newWorld(t)
	w.seed()
	one := 1
	for _, row := range []struct {
		name, query string
		restart     state.Restart
		states      []state.MachineState // one after the other
		code        *int
		want        string // state; "" for an error
	}{
		{"started is the default", "", state.Restart{}, []state.MachineState{state.Starting, state.Started}, nil, "started"},
		{"stopped", "?state=stopped", state.Restart{}, []state.MachineState{state.Started, state.Stopping, state.Stopped}, nil, "stopped"},
		{"settled when started", "?state=settled", state.Restart{}, []state.MachineState{state.Starting, state.Started}, nil, "started"},
		{"settled when failed", "?state=settled", state.Restart{}, []state.MachineState{state.Starting, state.Failed}, nil, "failed"},
		{"settled when stopped", "?state=settled", state.Restart{}, []state.MachineState{state.Starting, state.Stopped}, nil, "stopped"},
		{"stopped by policy is not settled", "?state=settled", state.Restart{Policy: "always"}, []state.MachineState{state.Starting, state.Stopped, state.Starting, state.Started}, &one, "started"},
		{"a failure by policy is not settled", "?state=settled", state.Restart{Policy: "on-failure"}, []state.MachineState{state.Starting, state.Stopped, state.Starting, state.Started}, &one, "started"},
		{"destroyed", "?state=destroyed", state.Restart{}, []state.MachineState{state.Stopped, ""}, nil, "destroyed"},
		{"never", "?state=started", state.Restart{}, []state.MachineState{state.Stopped, ""}, nil, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := w.create("web", row.restart)
			answered := w.later("", "GET", "/v1/apps/web/machines/"+m.ID+"/wait"+row.query, "")
			for _, s := range row.states {
				select {
				case a := <-answered:
					t.Fatalf("answered %s before it was %s", a.body, s)
				default:
				}
				if s != "" {
					w.become(m.ID, s, row.code)
				} else if _, err := w.store.DestroyMachine(t.Context(), m.ID); err != nil {
					t.Fatal(err)
				}
			}
			a := <-answered
			if row.want == "" {
				if a.code != http.StatusPreconditionFailed {
					t.Errorf("answer %d %s, expected that it will never be", a.code, a.body)
				}
				return
			}
			var reached api.Reached
			a.into(t, &reached)
			if a.code != http.StatusOK || !reached.Ok || reached.State != row.want {
				t.Errorf("answer %d %s, expected state %s", a.code, a.body, row.want)
			}
		})
	}
}

// The run that is waited for may be replaced by another meanwhile.
func TestWaitForAnInstance(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	is := func(instance string, s state.MachineState) bool {
		t.Helper()
		a := w.get(at + "/wait?timeout=1&state=" + string(s) + "&instance_id=" + instance)
		if a.code != http.StatusOK && a.code != http.StatusRequestTimeout {
			t.Fatalf("answer %d %s", a.code, a.body)
		}
		return a.code == http.StatusOK
	}
	if !is(m.InstanceID, state.Started) || is(m.InstanceID, state.Stopped) {
		t.Error("the run that goes on is not started, or stopped")
	}
	w.post(at+"/restart", "")
	next := w.machine(m.ID).InstanceID
	if is(m.InstanceID, state.Stopped) || is(next, state.Stopped) || is(next, state.Started) {
		t.Error("a run that is still to end counts as stopped, or the one after it as anything")
	}
	w.become(m.ID, state.Stopped, new(int))
	if !is(m.InstanceID, state.Stopped) || is(next, state.Stopped) {
		t.Error("the run of before has not stopped, or the next one has")
	}
	_, revision, err := w.store.UpdateMachine(t.Context(), m.ID, func(m *state.Machine) error {
		m.State, m.Pending = state.Started, ""
		return nil
	})
	must(t, err)
	w.seen(revision)
	if !is(m.InstanceID, state.Stopped) || is(m.InstanceID, state.Started) || !is(next, state.Started) {
		t.Error("the run of before counts as started, or the next one does not")
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	path := "/v1/apps/web/machines/" + m.ID + "/exec"
	w.machines.exec = func(_ context.Context, id string, c api.Command) (int, error) {
		if id != m.ID {
			t.Errorf("exec in %s, expected %s", id, m.ID)
		}
		stdin := []byte("nothing")
		if c.Stdin != nil {
			stdin, _ = io.ReadAll(c.Stdin)
		}
		fmt.Fprintf(c.Stdout, "%q", c.Exec)
		fmt.Fprintf(c.Stderr, "%s", stdin)
		return 7, nil
	}
	for body, want := range map[string]api.ExecResult{
		`{"command":["a b"]}`:                     {ExitCode: 7, Stdout: `["a b"]`, Stderr: "nothing"},
		`{"cmd":"a 'b c'","timeout":5}`:           {ExitCode: 7, Stdout: `["a" "b c"]`, Stderr: "nothing"},
		`{"cmd":"a","stdin":"text"}`:              {ExitCode: 7, Stdout: `["a"]`, Stderr: "text"},
		`{"cmd":"a","stdin":"0123456789abcd"}`:    {ExitCode: 7, Stdout: `["a"]`, Stderr: "0123456789abcd"},
		`{"cmd":"a","stdin":"0123456789abcdefX"}`: {ExitCode: 7, Stdout: `["a"]`, Stderr: "0123456789abcdef", Truncated: true},
	} {
		var got api.ExecResult
		a := w.post(path, body)
		a.into(t, &got)
		if a.code != http.StatusOK || got != want {
			t.Errorf("exec %s: %d %+v, expected %+v", body, a.code, got, want)
		}
	}

	w.machines.exec = func(context.Context, string, api.Command) (int, error) {
		return 0, errors.New("a is not found in PATH")
	}
	if a := w.post(path, `{"cmd":"a"}`); a.code != http.StatusUnprocessableEntity || !strings.Contains(a.failure.Error, "not found in PATH") {
		t.Errorf("exec of what is not there: %d %s", a.code, a.body)
	}
	w.machines.exec = func(ctx context.Context, _ string, _ api.Command) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	if a := w.post(path, `{"cmd":"a","timeout":1}`); a.code != http.StatusRequestTimeout || a.failure.Field != "timeout" {
		t.Errorf("exec that takes too long: %d %s", a.code, a.body)
	}
	w.become(m.ID, state.Stopping, nil)
	if a := w.post(path, `{"cmd":"a"}`); a.code != http.StatusPreconditionFailed {
		t.Errorf("exec in what does not run: %d %s", a.code, a.body)
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	path := "/v1/apps/web/machines/" + m.ID + "/logs"
	if a := w.get(path); a.code != http.StatusOK || len(a.body) != 0 {
		t.Errorf("logs of a Machine that wrote nothing: %d %q", a.code, a.body)
	}
	w.machines.append("one\n")
	if a := w.get(path); string(a.body) != "one\n" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("logs %q of type %s, expected the line as text", a.body, a.header.Get("Content-Type"))
	}

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sixpn"+path+"?follow=true", nil)
	must(t, err)
	response, err := w.http.Do(request)
	must(t, err)
	defer response.Body.Close()
	line := make([]byte, 4)
	for _, text := range []string{"one\n", "two\n"} {
		if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != text {
			t.Fatalf("followed %q, error %v, expected %q while it goes on", line, err, text)
		}
		w.machines.append("two\n")
	}
	w.machines.append("end\n")
	w.become(m.ID, state.Stopped, new(int))
	rest, err := io.ReadAll(response.Body)
	if err != nil || !strings.HasSuffix(string(rest), "end\n") {
		t.Errorf("followed %q, error %v, expected all until the Machine ended", rest, err)
	}

	w.machines.failure = errors.New("the disk is gone")
	if a := w.get(path); a.code != http.StatusInternalServerError || !strings.Contains(a.failure.Error, "the disk is gone") {
		t.Errorf("answer %d %s, expected why", a.code, a.body)
	}
}

// A follower of a Machine that has not begun yet waits for it.
func TestLogsOfACreatedMachine(t *testing.T) {
	w := newWorld(t)
	w.seed()
	m := w.create("web", state.Restart{})
	w.machines.failure = errors.New("there is no log yet")
	answered := w.later("", "GET", "/v1/apps/web/machines/"+m.ID+"/logs?follow=true", "")
	w.machines.mu.Lock()
	w.machines.failure = nil
	w.machines.mu.Unlock()
	w.machines.append("up\n")
	w.become(m.ID, state.Starting, nil)
	w.become(m.ID, state.Failed, nil)
	if a := <-answered; string(a.body) != "up\n" {
		t.Errorf("followed %d %q, expected the line", a.code, a.body)
	}
}

// A log that breaks off must not look like one that ended.
func TestLogsBreakOff(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	w.machines.append("one\n")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sixpn/v1/apps/web/machines/"+m.ID+"/logs?follow=true", nil)
	must(t, err)
	response, err := w.http.Do(request)
	must(t, err)
	defer response.Body.Close()
	line := make([]byte, 4)
	_, err = io.ReadFull(response.Body, line)
	must(t, err)
	w.machines.mu.Lock()
	w.machines.failure = errors.New("the disk is gone")
	w.machines.mu.Unlock()
	w.machines.append("")
	if rest, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("read %q to the end, expected an error", rest)
	}
}

// A server that stops does not wait for followers.
func TestStopWithFollowers(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	w.machines.append("one\n")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sixpn/v1/apps/web/machines/"+m.ID+"/logs?follow=true", nil)
	must(t, err)
	response, err := w.http.Do(request)
	must(t, err)
	defer response.Body.Close()
	line := make([]byte, 4)
	_, err = io.ReadFull(response.Body, line)
	must(t, err)
	w.plane.release = make(chan struct{})
	waiting := w.later("", "POST", "/v1/orgs?wait=applied", `{"slug":"late"}`)
	w.eventually("the data plane is asked", func() bool {
		w.plane.mu.Lock()
		defer w.plane.mu.Unlock()
		return len(w.plane.asked) == 1
	})
	w.stop()
	if a := <-waiting; a.code != http.StatusGatewayTimeout {
		t.Errorf("answer %d %s, expected that it is not applied", a.code, a.body)
	}
	// Nor does it let them believe that the Machine has ended.
	if rest, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("read %q to the end, expected an error", rest)
	}
}
