package state_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/state"
)

// exported is a store with something of everything.
func exported(t *testing.T) (*state.Store, string) {
	t.Helper()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	w := populate(t, s)
	for range 150 { // more than a transaction takes
		w.machine(t, "")
	}
	_, err := s.CreateAuthority(within(t), state.Authority{Certificate: "c", Key: "k"})
	must(t, err)
	_, revision, err := w.AllocateVIP(within(t), "web", "", "")
	must(t, err)
	at(t, s, revision)
	var file strings.Builder
	records, err := state.Export(within(t), e.Client(), &file)
	must(t, err)
	if lines := strings.Count(file.String(), "\n"); records == 0 || lines != records+2 {
		t.Errorf("%d lines for %d records", lines, records)
	}
	return s, file.String()
}

// A store moves to a cluster of the operator's, and back, with all that it holds.
func TestStoreMoves(t *testing.T) {
	t.Parallel()
	before, file := exported(t)
	endpoint := etcdServer(t, "http")
	theirs := remote(t, state.RemoteConfig{Endpoints: []string{endpoint}, Patience: deadline})
	read, err := state.ReadExport(strings.NewReader(file))
	must(t, err)
	must(t, read.Import(within(t), theirs))
	refused(t, read.Import(within(t), theirs), state.Conflict, "store")

	var second strings.Builder
	_, err = state.Export(within(t), theirs, &second)
	must(t, err)
	read, err = state.ReadExport(strings.NewReader(second.String()))
	must(t, err)
	back := startClosing(t, directory(t))
	must(t, read.Import(within(t), back.Client()))
	after := open(t, back)
	if diff := cmp.Diff(before.Snapshot(), after.Snapshot(), cmpopts.IgnoreUnexported(state.Snapshot{}), cmpopts.EquateComparable(netip.Addr{}),
		cmpopts.IgnoreFields(state.Snapshot{}, "Revision")); diff != "" {
		t.Errorf("the snapshot changed on the way (-before +after):\n%s", diff)
	}
	if a, err := after.Authority(within(t)); err != nil || a.Key != "k" {
		t.Errorf("authority %+v, error %v", a, err)
	}
	// The counters came along: no number is given out twice.
	w := world{after, before.Snapshot().Apps["web"], hostOf(before), nil}
	if m := w.machine(t, ""); m.Number != 151 {
		t.Errorf("the next Machine has number %v, expected 151", m.Number)
	}
}

func hostOf(s *state.Store) state.Host {
	h, _ := s.Snapshot().HostNamed("host-1")
	return h
}

// An import that was cut off is begun again with the same file, and with no other.
func TestImportIsBegunAgain(t *testing.T) {
	t.Parallel()
	_, file := exported(t)
	_, other := exported(t)
	read := func(file string) *state.Exported {
		e, err := state.ReadExport(strings.NewReader(file))
		must(t, err)
		return e
	}
	target := startClosing(t, directory(t))
	begun := read(file)
	// What an import leaves that dies after its first request.
	_, err := target.Client().Put(within(t), "/sixpn/v1/import", begun.Sum())
	must(t, err)
	refused(t, read(other).Import(within(t), target.Client()), state.Conflict, "store")
	must(t, begun.Import(within(t), target.Client()))
	if n := len(open(t, target).Snapshot().Machines); n != 150 {
		t.Errorf("%d Machines, expected 150", n)
	}
}

func TestExportsThatAreNotWhole(t *testing.T) {
	t.Parallel()
	_, good := exported(t)
	lines := strings.SplitAfter(good, "\n")
	changed := bytes.Replace([]byte(good), []byte(`"value":"`), []byte(`"value":"AAAA`), 1)
	for name, file := range map[string]string{
		"nothing": "", "something else": "hello\n", "JSON": "{}\n", "another format": strings.Replace(good, `"sixpn_store":1`, `"sixpn_store":2`, 1),
		"no end": strings.Join(lines[:len(lines)-2], ""), "cut in a line": good[:len(good)/2], "a record less": lines[0] + strings.Join(lines[2:], ""),
		"a record changed": string(changed), "twice": good + good, "no head": strings.Join(lines[1:], ""),
	} {
		if _, err := state.ReadExport(strings.NewReader(file)); state.KindOf(err) != state.Invalid {
			t.Errorf("%s: error %v, expected a refusal", name, err)
		}
	}
}
