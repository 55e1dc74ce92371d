package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
)

func TestStoreStatus(t *testing.T) {
	newWorld(t)
	want := []string{
		"Held by: hosts of the fleet", "Revision: 7", "",
		"HOST ROLE ENDPOINT VERSION SIZE STATE",
		"one leader https://192.0.2.1:51822 3.7.3 2.0 MiB answers",
		"two voter https://192.0.2.2:51822 does not answer: it is away",
	}
	if diff := cmp.Diff(want, columns(do(t, "store", "status"))); diff != "" {
		t.Errorf("store status (-want +got):\n%s", diff)
	}
	if s := asJSON[api.StoreStatus](t, "store", "status"); s.Kind != api.StoreStatusKindFleet || len(s.Members) != 2 {
		t.Errorf("store status: %+v", s)
	}
}

// An export is put in the place of a store that a host has, which is kept; an export
// that is not whole changes nothing.
func TestStoreExportAndRestore(t *testing.T) {
	newWorldWithApps(t)
	file := filepath.Join(t.TempDir(), "store")
	if out := do(t, "store", "export", file); !strings.HasPrefix(out, "Exported the store to "+file) {
		t.Errorf("store export: %q", out)
	}
	content, err := os.ReadFile(file)
	must(t, err)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the export: %v, error %v", info.Mode(), err)
	}
	if out := do(t, "store", "export"); strings.Count(out, "\n") != strings.Count(string(content), "\n") {
		t.Errorf("to standard output it has %d lines, expected %d", strings.Count(out, "\n"), strings.Count(string(content), "\n"))
	}
	if r := sixpnRun(t, "--json", "store", "export"); r.code != exitUsage {
		t.Errorf("store export --json: %+v", r)
	}
	state, err := os.MkdirTemp("", "store") // short: a unix socket must fit in
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(state) })
	for _, left := range []string{"last-state", "fleet/fleet.json", "store/old"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(state, left)), 0o700))
		must(t, os.WriteFile(filepath.Join(state, left), nil, 0o600))
	}
	half := filepath.Join(t.TempDir(), "half")
	must(t, os.WriteFile(half, content[:len(content)/2], 0o600))
	if r := sixpnRun(t, "store", "restore", half, "--state-dir", state, "-y"); r.code != exitFailed || !strings.Contains(r.err, "no whole export") {
		t.Errorf("half an export: %+v", r)
	}
	if r := sixpnRun(t, "store", "restore", file, "--state-dir", state); r.code != exitUsage || !strings.Contains(r.err, "--yes") {
		t.Errorf("restore without being asked: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(state, "store", "old")); err != nil {
		t.Errorf("what was refused changed the store: %v", err)
	}
	out := do(t, "store", "restore", file, "--state-dir", state, "--yes")
	aside, err := filepath.Glob(filepath.Join(state, "store.before-*", "old"))
	must(t, err)
	if !strings.HasPrefix(out, "Restored ") || len(aside) != 1 {
		t.Errorf("store restore: %q, the store of before is %v", out, aside)
	}
	for _, gone := range []string{"last-state", "fleet/fleet.json", "store.new"} {
		if _, err := os.Stat(filepath.Join(state, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if _, err := os.Stat(filepath.Join(state, "store", "etcd", "member")); err != nil {
		t.Errorf("there is no store: %v", err)
	}
}

func TestStoreImportNeedsACluster(t *testing.T) {
	newWorld(t)
	file := filepath.Join(t.TempDir(), "store")
	do(t, "store", "export", file)
	if r := sixpnRun(t, "store", "import", file); r.code != exitUsage || !strings.Contains(r.err, "store") {
		t.Errorf("import into nothing: %+v", r)
	}
	if r := sixpnRun(t, "store", "import", file, "--store", "192.0.2.1:2379"); r.code != exitUsage || !strings.Contains(r.err, "https://192.0.2.1:2379") {
		t.Errorf("import to what is no URL: %+v", r)
	}
	if r := sixpnRun(t, "store", "import", file, "--store", "http://127.0.0.1:1"); r.code != exitFailed || !strings.Contains(r.err, "does not answer") {
		t.Errorf("import to where nobody is: %+v", r)
	}
}
