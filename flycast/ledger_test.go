package flycast_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

type bounds = map[maps.Seat]flycast.Bounds

// What was written is read by the next agent, whatever the order, and however much was
// written between.
func TestLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ledger")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		ledger := flycast.OpenLedger(filepath.Join(dir, "shares"), "a boot")
		all := bounds{}
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			changed, gone := bounds{}, []maps.Seat(nil)
			seat := seatAt(sixpn.Host(rapid.IntRange(11, 12).Draw(t, "host")), sixpn.Machine(rapid.IntRange(1, 3).Draw(t, "machine")))
			if _, ok := all[seat]; ok && rapid.Bool().Draw(t, "goes") {
				delete(all, seat)
				gone = append(gone, seat)
			} else {
				all[seat] = rapid.MapOfN(rapid.Custom(func(t *rapid.T) sixpn.Host { return sixpn.Host(rapid.IntRange(11, 19).Draw(t, "client")) }),
					rapid.Uint32(), 1, 3).Draw(t, "bounds")
				changed[seat] = all[seat]
			}
			if err := ledger.Write(all, changed, gone); err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 2).Draw(t, "dies") == 0 {
				ledger = flycast.OpenLedger(filepath.Join(dir, "shares"), "a boot")
				got, err := ledger.Read()
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(all, got); d != "" {
					t.Fatalf("- written, + read:\n%s", d)
				}
			}
		}
	})
}

// Whatever a file is that is no whole ledger of this boot: nothing that is not sure is
// read of it, and writing goes on.
func TestLedgerFileDamaged(t *testing.T) {
	t.Parallel()
	one, two, three := seatAt(11, 1), seatAt(11, 2), seatAt(11, 3)
	both := bounds{one: {12: 3}, two: {12: 4, 13: 5}}
	for _, c := range []struct {
		name   string
		boot   string
		damage func(raw []byte) []byte
		want   bounds
	}{
		{"nothing", "this", func(raw []byte) []byte { return raw }, both},
		{"of another boot", "another", func(raw []byte) []byte { return raw }, bounds{}},
		{"empty", "this", func([]byte) []byte { return nil }, bounds{}},
		{"something else", "this", func(raw []byte) []byte { return append([]byte("x"), raw...) }, bounds{}},
		{"the last record cut off", "this", func(raw []byte) []byte { return raw[:len(raw)-1] }, bounds{one: {12: 3}}},
		{"the last record wrong", "this", func(raw []byte) []byte { raw[len(raw)-1]++; return raw }, bounds{one: {12: 3}}},
		{"a header behind it", "this", func(raw []byte) []byte { return append(raw, make([]byte, 40)...) }, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "shares")
			before := flycast.OpenLedger(path, "this")
			must(t, before.Write(bounds{one: {12: 3}}, bounds{one: {12: 3}}, nil))
			must(t, before.Write(both, bounds{two: both[two]}, nil))
			must(t, before.Close())
			raw, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, c.damage(raw), 0o600))

			ledger := flycast.OpenLedger(path, c.boot)
			got, err := ledger.Read()
			must(t, err)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Fatalf("- wanted, + read:\n%s", d)
			}
			got[three] = flycast.Bounds{13: 9}
			must(t, ledger.Write(got, bounds{three: got[three]}, nil))
			must(t, ledger.Close())
			again, err := flycast.OpenLedger(path, c.boot).Read()
			must(t, err)
			if d := cmp.Diff(got, again); d != "" {
				t.Fatalf("after more was written: - wanted, + read:\n%s", d)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
