package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// host2 is another host of the fleet, "two" in Frankfurt.
func (w *world) host2(t *testing.T) state.Host {
	t.Helper()
	h, revision, err := w.store.JoinHost(t.Context(), state.NewHost{Name: "two", Region: "fra", Token: "two", Endpoint: "192.0.2.2:51821", Version: "v2"})
	must(t, err)
	_, err = w.store.Wait(t.Context(), revision-1)
	must(t, err)
	return h
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	two := w.host2(t)
	lost, revision, err := w.store.RegisterHost(t.Context(), "lost", "ams", 0)
	must(t, err)
	_, err = w.store.Wait(t.Context(), revision-1)
	must(t, err)
	want := []string{
		"NAME ID REGION STATE ENDPOINT MACHINES ROUND TRIP LOSS HANDSHAKE REVISION STORE SEEN VERSION",
		"lost " + lost.ID.String() + " ams present 0 4.2 ms 25% 1h0m0s no answer",
		"one " + w.host.String() + " ams present 0 7 voter 0s v1",
		"two " + two.ID.String() + " fra present 192.0.2.2:51821 0 4.2 ms 25% 1h0m0s 5 of 7 0s v2",
	}
	if diff := cmp.Diff(want, columns(do(t, "hosts", "list"))); diff != "" {
		t.Errorf("hosts list (-want +got):\n%s", diff)
	}
	if hosts := asJSON[[]api.Host](t, "hosts", "list"); len(hosts) != 3 || !hosts[1].ThisHost || hosts[2].ThisHost || hosts[2].AppliedRevision != 5 {
		t.Errorf("hosts list: %+v", hosts)
	}
	if out := do(t, "hosts", "drain", "two"); out != "Host two takes no new Machines\n" {
		t.Errorf("hosts drain: %q", out)
	}
	want = []string{"Name: two", "ID: " + two.ID.String(), "Region: fra", "State: draining", "Endpoint: 192.0.2.2:51821", "Mesh: native, XDP generic", "Machines: 0",
		"Round trip: 4.2 ms", "Loss: 25%", "Handshake: 1 hour ago", "Seen: 0 s ago", "Wanted revision: 7", "Applied revision: 5", "Version: v2", "Created: just now", "Trouble: a table is full"}
	if diff := cmp.Diff(want, columns(do(t, "hosts", "show", "two"))); diff != "" {
		t.Errorf("hosts show (-want +got):\n%s", diff)
	}
	if out := do(t, "hosts", "show", "lost"); !strings.Contains(out, "No answer:  ") || !strings.Contains(out, "no route to host") {
		t.Errorf("hosts show of one that does not answer: %q", out)
	}
	if out := do(t, "hosts", "undrain", "two"); out != "Host two takes new Machines\n" {
		t.Errorf("hosts undrain: %q", out)
	}
	if h := asJSON[api.Host](t, "hosts", "show", "two"); h.State != api.HostStatePresent || h.Draining {
		t.Errorf("after undrain: %+v", h)
	}
	if out := do(t, "hosts", "remove", "two", "--yes"); out != "Removed host two\n" {
		t.Errorf("hosts remove: %q", out)
	}
	for _, args := range []string{"show two", "drain two", "undrain two", "remove two -y", "remove one -y"} {
		if r := sixpnRun(t, append([]string{"hosts"}, strings.Fields(args)...)...); r.code != exitFailed || !strings.Contains(r.err, "host") {
			t.Errorf("hosts %s: %+v", args, r)
		}
	}
}

func TestHostsInvite(t *testing.T) {
	newWorld(t)
	// Alone on its line, for scripts.
	if out := do(t, "hosts", "invite", "--region", "fra", "--expires", "15m"); out != "sixpn1.token\n" {
		t.Errorf("hosts invite: %q", out)
	}
	i := asJSON[api.Invitation](t, "hosts", "invite", "-r", "fra", "--expires", "15m")
	if left := time.Until(i.ExpiresAt); i.Token == "" || i.Region != "fra" || left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("hosts invite: %+v", i)
	}
	if r := sixpnRun(t, "hosts", "invite", "--region", "nowhere"); r.code != exitFailed || !strings.Contains(r.err, "nowhere") {
		t.Errorf("a region that there is not: %+v", r)
	}
	if r := sixpnRun(t, "hosts", "invite", "--expires", "0s"); r.code != exitUsage {
		t.Errorf("an invitation of no time: %+v", r)
	}
	if r := sixpnRun(t, "hosts", "invite", "--expires", "10000h"); r.code != exitFailed || !strings.Contains(r.err, "expires_in") {
		t.Errorf("an invitation of a year: %+v", r)
	}
}
