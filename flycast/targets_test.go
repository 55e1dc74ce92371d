package flycast

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		limit uint32
		users []user
		want  []uint32
	}{
		{"nobody", 5, nil, []uint32{}},
		{"one", 5, []user{{11, 0, 0, false}}, []uint32{5}},
		{"two alike", 6, []user{{11, 0, 0, false}, {12, 0, 0, false}}, []uint32{3, 3}},
		{"a newcomer", 6, []user{{11, 1, 6, false}, {12, 0, 0, false}}, []uint32{3, 3}},
		{"a newcomer, and not enough for all", 3, []user{{11, 2, 3, false}, {12, 0, 0, false}}, []uint32{3, 0}},
		{"nobody waits", 8, []user{{11, 1, 5, false}, {12, 3, 3, false}}, []uint32{5, 3}},
		{"one waits", 8, []user{{11, 1, 5, false}, {12, 3, 3, true}}, []uint32{2, 6}},
		{"one waits for the last", 4, []user{{11, 1, 2, false}, {12, 2, 2, true}}, []uint32{1, 3}},
		{"two wait for the last", 4, []user{{11, 2, 2, true}, {12, 1, 1, true}}, []uint32{2, 2}},
		{"all is used", 4, []user{{11, 2, 2, true}, {12, 2, 2, true}}, []uint32{2, 2}},
		{"the limit was lowered", 2, []user{{11, 1, 4, false}, {12, 0, 4, false}}, []uint32{1, 1}},
		{"it was lowered below the flows", 2, []user{{11, 3, 4, false}, {12, 2, 4, false}}, []uint32{3, 2}},
	} {
		if got := targets(c.limit, c.users); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Nobody gets less than its flows, all is dealt out, and to deal again changes nothing.
func TestTargetsProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Uint32Range(1, 50).Draw(t, "limit")
		users := make([]user, rapid.IntRange(1, 6).Draw(t, "users"))
		left := limit
		for i := range users {
			live := rapid.Uint32Range(0, left).Draw(t, "live")
			left -= live
			users[i] = user{sixpn.Host(11 + i), live, live, rapid.Bool().Draw(t, "waits")}
		}
		got := targets(limit, users)
		sum := uint32(0)
		for i, u := range users {
			if got[i] < u.live {
				t.Fatalf("host %d would have %d with %d flows: %+v", u.host, got[i], u.live, users)
			}
			sum += got[i]
			users[i].share = got[i]
		}
		if sum != limit {
			t.Fatalf("%d of %d are dealt out: %v of %+v", sum, limit, got, users)
		}
		if again := targets(limit, users); !slices.Equal(again, got) {
			t.Fatalf("dealt again it is %v, before %v: %+v", again, got, users)
		}
	})
}

// What is no datagram is refused, whatever it says of its length.
func TestDecodeDatagram(t *testing.T) {
	t.Parallel()
	whole := datagram{from: 1, to: 2, number: 3, seen: 4, first: 3, count: 1, reports: make([]report, perDatagram), grants: make([]grant, perDatagram)}.encode()
	const smallestMTU, headers = 1280, 48
	if len(whole) > smallestMTU-headers {
		t.Errorf("a full datagram has %d bytes, more than the smallest MTU takes", len(whole))
	}
	if _, err := decodeDatagram(whole); err != nil {
		t.Error(err)
	}
	for n := range whole {
		if _, err := decodeDatagram(whole[:n]); err == nil {
			t.Fatalf("%d bytes of %d are taken for a whole datagram", n, len(whole))
		}
	}
	whole[0]++
	if _, err := decodeDatagram(whole); err == nil {
		t.Error("another version is taken for this one")
	}
}
