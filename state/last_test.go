package state

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
)

func someLast() last {
	return last{
		cluster: 0xfedcba9876543210, fleet: "FLEET", revision: 1 << 40, savedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		held: map[sixpn.Host]bool{3: true, 0xffffffff: true},
		records: map[string]rawRecord{
			keyHost(3):            {[]byte(`{"id":3,"from_the_future":{"n":9007199254740993}}`), 7},
			keyOrg("acme"):        {[]byte(`{"slug":"acme","name":"A <&> B"}`), 8},
			keyOrg("damaged"):     {[]byte("\xff\x00 no JSON"), 9},
			keyOrg("null"):        {[]byte("null"), 10},
			keyMachine(1, "abcd"): {[]byte(`{"id":"abcd"}`), 11},
		},
	}
}

func TestLastIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "last")
	for name, change := range map[string]func(*last){
		"as it is":   func(*last) {},
		"of nothing": func(l *last) { l.records, l.held = map[string]rawRecord{}, map[sixpn.Host]bool{} },
		"no fleet":   func(l *last) { l.fleet = "" },
	} {
		t.Run(name, func(t *testing.T) {
			want := someLast()
			change(&want)
			if err := writeLast(path, want); err != nil {
				t.Fatal(err)
			}
			got, err := readLast(path)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("it is read as\n%+v, want\n%+v", got, want)
			}
		})
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("others can read it: %v (%v)", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("there are %v (%v), want one file", files, err)
	}
}

// TestDamagedLastIsNone: a part of the state would be taken for the whole.
func TestDamagedLastIsNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "last")
	if err := writeLast(path, someLast()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := readLast(path); err == nil {
			t.Fatalf("%s: it is read as %+v", what, l)
		}
	}
	for n := range len(whole) {
		refuse("cut after some bytes", whole[:n])
	}
	for i := range whole {
		changed := append([]byte(nil), whole...)
		changed[i] ^= 1
		refuse("a bit of it is another: "+string(changed), changed)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for i := range lines[:len(lines)-1] {
		refuse("without a line", []byte(strings.Join(append(append([]string(nil), lines[:i]...), lines[i+1:]...), "")))
	}
	newer := someLast()
	if err := writeLast(path, newer); err != nil {
		t.Fatal(err)
	}
}

// TestFailedWriteLeavesTheOldFile, when there is no room, or no directory any more.
func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "last")
	want := someLast()
	if err := writeLast(path, want); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	changed := want
	changed.revision++
	if err := writeLast(path, changed); err == nil {
		t.Fatal("it was written")
	}
	if got, err := readLast(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the file is %+v (%v), want the old one", got, err)
	}
}

func TestUnfamiliar(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		cluster, known    uint64
		revision, knownAt int64
		fleet, knownFleet string
		want              string // part of it, "" for a store that is recognised
	}{
		"the same":                      {1, 1, 9, 9, "A", "A", ""},
		"it has gone on":                {1, 1, 10, 9, "A", "A", ""},
		"nothing was known":             {1, 0, 1, 0, "A", "", ""},
		"the fleet was not asked":       {1, 1, 9, 9, "", "A", ""},
		"the fleet has got its name":    {1, 1, 9, 9, "A", "", ""},
		"nobody has a name":             {1, 1, 9, 9, noFleet, "", ""},
		"another cluster":               {2, 1, 9, 9, "A", "A", "cluster 2"},
		"another fleet":                 {1, 1, 9, 9, "B", "A", "fleet B"},
		"wiped, and as far by now":      {1, 1, 9, 9, noFleet, "A", "fleet -"},
		"behind":                        {1, 1, 8, 9, "A", "A", "revision 8"},
		"another cluster, nothing else": {2, 1, 1, 9, noFleet, "A", "cluster 2"},
	} {
		t.Run(name, func(t *testing.T) {
			got := unfamiliar(row.cluster, row.known, row.revision, row.knownAt, row.fleet, row.knownFleet)
			if (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
				t.Errorf("it says %q, want %q", got, row.want)
			}
		})
	}
}
