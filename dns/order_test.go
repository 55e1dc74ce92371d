package dns

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// The nearest come in order of distance from the resolver's region, and by id
// where that is the same; in every answer.
func TestNearest(t *testing.T) {
	var machines []state.Machine
	for i, region := range []string{"nrt", "iad", "ams", "fra", "moon", "iad", "fra", "lhr"} {
		machines = append(machines, state.Machine{
			ID: fmt.Sprintf("%014x", i+1), App: "web", Network: acme, Number: sixpn.Machine(i + 1), State: state.Started, Region: region,
		})
	}
	snapshot := snapshot([]state.App{{Name: "web", Network: acme}}, machines, nil)
	for _, row := range []struct {
		region string
		number int
		want   []int // Machines by number
	}{
		{"fra", 8, []int{4, 7, 3, 8, 2, 6, 1, 5}},
		{"fra", 3, []int{4, 7, 3}},
		{"fra", 1, []int{4}},
		{"iad", 4, []int{2, 6, 8, 3}},
		{"hkg", 2, []int{1, 4}},
		{"moon", 3, []int{5, 1, 2}}, // nobody knows where that is: only it is near
		{"", 2, []int{1, 2}},
	} {
		view := NewView(snapshot, state.NewDistances(row.region, nil))
		for range 10 {
			reply := view.Answer(acme, ask(fmt.Sprintf("top%d.nearest.of.web.internal.", row.number), miekg.TypeAAAA))
			var got []int
			for _, rr := range reply.Answer {
				got = append(got, int(rr.(*miekg.AAAA).AAAA[13]))
			}
			if !slices.Equal(got, row.want) {
				t.Fatalf("from %s the nearest %d are %v, expected %v", row.region, row.number, got, row.want)
			}
		}
	}
}

// Machines come and go; an answer is of the snapshot that is the latest when the
// question comes, whatever was asked before.
func TestServerFollowsTheState(t *testing.T) {
	p := newPrivate(t)
	latest := make(chan *state.Snapshot, 1)
	latest <- crowd(1)
	p.serve(Config{Snapshot: func() *state.Snapshot {
		snapshot := <-latest
		latest <- snapshot
		return snapshot
	}})
	conn := p.dial("udp6", client(acme), sixpn.DNS)
	for machines := 1; machines < 10; machines++ {
		<-latest
		latest <- crowd(machines)
		for _, name := range []string{"web.internal.", "global.web.internal.", "top9.nearest.of.web.internal."} {
			if reply := converse(t, conn, ask(name, miekg.TypeAAAA)); len(reply.Answer) != machines {
				t.Errorf("%s has %d addresses, expected %d", name, len(reply.Answer), machines)
			}
		}
	}
}

// Round trips are measured while the agent runs; an answer goes by the latest.
func TestServerFollowsTheDistances(t *testing.T) {
	p := newPrivate(t)
	var latest atomic.Pointer[state.Distances]
	snapshot := world()
	p.serve(Config{Snapshot: func() *state.Snapshot { return snapshot }, Distances: latest.Load})
	conn := p.dial("udp6", client(acme), sixpn.DNS)
	for _, row := range []struct {
		measured map[string]time.Duration
		nearest  byte // Machine by number
	}{
		{nil, 1},
		{map[string]time.Duration{"fra": 90 * time.Millisecond, "iad": 5 * time.Millisecond}, 2},
		{map[string]time.Duration{"fra": 3 * time.Millisecond, "iad": 5 * time.Millisecond}, 1},
	} {
		latest.Store(state.NewDistances("ams", row.measured))
		reply := converse(t, conn, ask("top1.nearest.of.web.internal.", miekg.TypeAAAA))
		if len(reply.Answer) != 1 || reply.Answer[0].(*miekg.AAAA).AAAA[13] != row.nearest {
			t.Errorf("measured %v: the nearest is %v, expected Machine %d", row.measured, reply.Answer, row.nearest)
		}
	}
}
