package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// migrations plays what agents do about them: the first host, which the world plays but
// for this, hands over what is to leave it, and the other one starts it, or cannot.
func (w *world) migrations(t *testing.T, other sixpn.Host, starts bool) {
	t.Helper()
	for _, h := range []sixpn.Host{w.host, other} {
		_, err := w.etcd.Put(t.Context(), fmt.Sprintf("/sixpn/v1/hosts/%08x/alive", uint32(h)), `{"session":"of a test"}`)
		must(t, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var playing sync.WaitGroup
	playing.Go(func() {
		for snapshot := w.store.Snapshot(); ; {
			for _, m := range snapshot.Machines {
				var err error
				switch {
				case m.Leaving():
					_, _, err = w.store.HandOver(ctx, w.host, m.ID)
				case m.Arriving() && starts:
					_, _, err = w.store.UpdateOwnMachine(ctx, other, m.ID, func(m *state.Machine) error { m.State, m.Pending = state.Started, ""; return nil })
				case m.Arriving():
					_, _, err = w.store.HandBack(ctx, other, m.ID, "no such file")
				}
				if kind := state.KindOf(err); err != nil && kind != state.Conflict && ctx.Err() == nil { // else of an older snapshot
					t.Error(err)
				}
			}
			var err error
			if snapshot, err = w.store.Wait(ctx, snapshot.Revision); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); playing.Wait() })
}

func TestMachineMigrate(t *testing.T) {
	w := newWorldWithApps(t)
	w.migrations(t, w.host2(t).ID, true)
	id := runs(t, "--", "run")
	if out := do(t, "machine", "migrate", id, "--to", "two"); !strings.HasPrefix(out, "Machine "+id+" is on two with address fdaa:0:1:") || !strings.HasSuffix(out, ", started\n") {
		t.Errorf("machine migrate: %q", out)
	}
	if m := asJSON[api.Machine](t, "machine", "status", id); m.HostName != "two" || m.Region != "fra" || m.Migration != nil {
		t.Errorf("after the migration: %+v", m)
	}
	if out := strings.Join(columns(do(t, "machine", "status", id)), "\n"); !strings.Contains(out, "Host: two") {
		t.Errorf("machine status: %q", out)
	}
	again := runs(t, "--", "run")
	if out := do(t, "machine", "migrate", again, "--to", "two", "-w", "0"); out != "Machine "+again+" is on its way to two\n" {
		t.Errorf("machine migrate without waiting: %q", out)
	}
	for args, message := range map[string]string{
		"machine migrate " + id + " --to nobody":         "sixpn hosts list",
		"machine migrate 00000000000000 --to two":        "sixpn machine list",
		"machine run -a web -d --host nobody -- run":     "sixpn hosts list",
		"machine run -a web -d --host two -r ams -- run": "leave one of the two out",
	} {
		if r := sixpnRun(t, strings.Fields(args)...); r.code != exitFailed || !strings.Contains(r.err, message) || r.out != "" {
			t.Errorf("sixpn %s: %+v, expected %q", args, r, message)
		}
	}
}

func TestMachineMigrateThatFails(t *testing.T) {
	w := newWorldWithApps(t)
	w.migrations(t, w.host2(t).ID, false)
	id := runs(t, "--", "run")
	r := sixpnRun(t, "machine", "migrate", id, "--to", "two")
	if r.code != exitFailed || !strings.Contains(r.err, "stays on one: no such file") || r.out != "" {
		t.Errorf("machine migrate: %+v", r)
	}
	if out := strings.Join(columns(do(t, "machine", "status", id)), "\n"); !strings.Contains(out, "Migration: to two, failed just now: no such file") {
		t.Errorf("machine status: %q", out)
	}
}
