package machine_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

func TestRestartPolicy(t *testing.T) {
	backoff := machine.Backoff{Initial: time.Second, Max: 5 * time.Second, Stable: 10 * time.Second}
	failure := machine.Run{Instance: "i", Code: 1}
	onFailure := state.Restart{Policy: "on-failure"}
	for _, row := range []struct {
		name   string
		policy state.Restart
		change func(*machine.Run) // of a run that failed at its first attempt; nil: it never ran
		want   machine.Decision
	}{
		{"never ran", state.Restart{}, nil, machine.Decision{Start: true}},
		{"no", state.Restart{Policy: "no"}, func(*machine.Run) {}, machine.Decision{}},
		{"empty is no", state.Restart{}, func(*machine.Run) {}, machine.Decision{}},
		{"on-failure", onFailure, func(*machine.Run) {}, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"on-failure, clean", onFailure, func(r *machine.Run) { r.Code = 0 }, machine.Decision{}},
		{"on-failure, lost", onFailure, func(r *machine.Run) { r.Code, r.Lost = 0, true }, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"on-failure, did not run", onFailure, func(r *machine.Run) { r.Code, r.Failed = 0, true }, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"always, clean", state.Restart{Policy: "always"}, func(r *machine.Run) { r.Code = 0 }, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"doubled", onFailure, func(r *machine.Run) { r.Attempt = 2 }, machine.Decision{Start: true, Pause: 4 * time.Second, Attempt: 3}},
		{"at most", onFailure, func(r *machine.Run) { r.Attempt = 60 }, machine.Decision{Start: true, Pause: 5 * time.Second, Attempt: 61}},
		{"after a stable run", onFailure, func(r *machine.Run) { r.Attempt, r.Lasted = 9, 10*time.Second }, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"retries left", state.Restart{Policy: "always", MaxRetries: 3}, func(r *machine.Run) { r.Attempt = 2 }, machine.Decision{Start: true, Pause: 4 * time.Second, Attempt: 3}},
		{"retries used up", state.Restart{Policy: "always", MaxRetries: 3}, func(r *machine.Run) { r.Attempt = 3 }, machine.Decision{GaveUp: true}},
		{"retries renewed by a stable run", state.Restart{Policy: "always", MaxRetries: 3}, func(r *machine.Run) { r.Attempt, r.Lasted = 3, time.Minute }, machine.Decision{Start: true, Pause: time.Second, Attempt: 1}},
		{"a reboot is no retry", state.Restart{Policy: "always", MaxRetries: 3}, func(r *machine.Run) { r.Attempt, r.Lost, r.Rebooted = 3, true, true }, machine.Decision{Start: true}},
		{"a reboot, no", state.Restart{}, func(r *machine.Run) { r.Lost, r.Rebooted = true, true }, machine.Decision{}},
		{"a new command", state.Restart{}, func(r *machine.Run) { r.Instance = "before" }, machine.Decision{Start: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var last *machine.Run
			if row.change != nil {
				r := failure
				row.change(&r)
				last = &r
			}
			if diff := cmp.Diff(row.want, machine.Decide("i", row.policy, last, backoff)); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIDRanges(t *testing.T) {
	dir := t.TempDir()
	claim := func(owner string, preferred uint32) uint32 {
		t.Helper()
		first, err := machine.ClaimIDs(dir, owner, preferred)
		if err != nil {
			t.Fatal(err)
		}
		return first
	}
	a := claim("agent/a", 0)
	if again := claim("agent/a", a); again != a {
		t.Errorf("its own range %d was not had again, but %d", a, again)
	}
	if b := claim("other/b", a); b == a {
		t.Errorf("two owners have range %d", a)
	}
	if a%65536 != 0 || a < 1<<28 {
		t.Errorf("range %d does not begin where ranges do", a)
	}
	if err := machine.ReleaseIDs(dir, func(owner string) bool { return owner == "agent/a" }); err != nil {
		t.Fatal(err)
	}
	if c := claim("agent/c", a); c != a {
		t.Errorf("the range %d that was given back was not had, but %d", a, c)
	}
}
