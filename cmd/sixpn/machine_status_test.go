package main

import (
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// What a Machine's host sees of it is shown beside its record, and that there is no answer
// where there is none.
func TestStatusOfAMachineNow(t *testing.T) {
	w := newWorldWithApps(t)
	w.live = api.Live{
		Port:   &api.PortStatus{Device: "m1", MTU: 1420, RxPackets: 30, RxBytes: 3000, TxPackets: 4, TxBytes: 400, Dropped: 5},
		Drops:  []api.DropStatus{{Reason: "no_machine", Packets: 5}},
		Checks: []state.CheckStatus{{Name: "up", Status: state.CheckCritical, Output: "connection refused\nby it"}},
		Limits: []api.LimitStatus{
			{Vip: "fdaa:0:1:0:1::1", Protocol: "tcp", Port: 80, InternalPort: 8080, HardLimit: 20, Hosts: []api.LimitShare{
				{HostName: "one", Flows: 3, Share: 8, Standing: api.LimitShareStandingAgreed, Waiting: true}, {HostName: "two", Standing: api.LimitShareStandingFenced},
			}},
			{Vip: "fdaa:0:1:0:1::1", Protocol: "udp", Port: 53, InternalPort: 53, SoftLimit: 9, Hosts: []api.LimitShare{{HostName: "one", Flows: 5, Standing: api.LimitShareStandingQuiet}}},
			{Vip: "fdaa:0:1:0:1::2", Protocol: "tcp", Port: 80, InternalPort: 8080, HardLimit: 20},
		},
	}
	here := runs(t, "--", "run")
	elsewhere, revision, err := w.store.CreateMachine(t.Context(), state.NewMachine{
		App: "web", Host: w.host2(t).ID, Config: state.MachineConfig{Attach: &state.Attach{Pid: 4711}},
	})
	must(t, err)
	_, err = w.store.Wait(t.Context(), revision-1)
	must(t, err)
	now := []string{"m1 1420 30 packets, 3000 bytes 4 packets, 400 bytes 5", "no_machine 5", "up critical", "connection refused",
		"[fdaa:0:1:0:1::1]:80/tcp none 20 one 3 8 agreed, one waits", "[fdaa:0:1:0:1::1]:80/tcp none 20 two 0 0 fenced",
		"[fdaa:0:1:0:1::1]:53/udp 9 none one 5 any quiet", "[fdaa:0:1:0:1::2]:80/tcp none 20"}
	for _, row := range []struct {
		name, id    string
		shown, kept []string
		lives       bool
	}{
		{"here", here, now, []string{"No answer:"}, true},
		{"of a host that does not answer", elsewhere.ID, []string{
			"Host: two", "No answer: this is what was last written down: host two, whose agent alone can answer, cannot be reached",
			"Attached: network namespace of process 4711 of host two",
		}, append(now, "DROP REASON"), false},
	} {
		out := strings.Join(columns(do(t, "machine", "status", row.id)), "\n")
		for _, want := range row.shown {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q, expected %q", row.name, out, want)
			}
		}
		for _, other := range row.kept {
			if strings.Contains(out, other) {
				t.Errorf("%s: %q, and %q in it", row.name, out, other)
			}
		}
		seen := asJSON[seenMachine](t, "machine", "status", row.id)
		if seen.ID != row.id || (seen.Live != nil) != row.lives || (seen.NoAnswer == "") != row.lives {
			t.Errorf("%s, as JSON: %+v, no answer %q", row.name, seen.Live, seen.NoAnswer)
		}
	}
}
