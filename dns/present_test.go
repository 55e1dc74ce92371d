package dns

import (
	"maps"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// TestAbsentHosts: a started Machine of a host that is not present is answered for, under
// every name, as one that is stopped.
func TestAbsentHosts(t *testing.T) {
	const there = host + 1
	const moved = "00000000000002"
	at := func(s state.MachineState, absent ...sixpn.Host) *View {
		from := *world()
		from.Machines = maps.Clone(from.Machines)
		m := from.Machines[moved]
		m.Host, m.State = there, s
		from.Machines[moved] = m
		from.Absent = map[sixpn.Host]bool{}
		for _, h := range absent {
			from.Absent[h] = true
		}
		return NewView(state.Assemble(from), fromHere)
	}
	present, absent, stopped := at(state.Started), at(state.Started, there), at(state.Stopped)
	rows := append([]example{
		{title: "the absent one's own name", name: moved + ".vm.web.internal."},
		{title: "its region's", name: "iad.web.internal."},
		{title: "its process group's", name: "worker.process.web.internal."},
		{title: "its metadata's", name: "primary.role.kv._metadata.web.internal."},
		{title: "the nearest", name: "top2.nearest.of.web.internal."},
		{title: "its address's", name: arpa(sixpn.MachineAddr(acme, there, 2).String()), rrtype: miekg.TypePTR},
	}, table...)
	differ := 0
	for _, row := range rows {
		t.Run(row.title, func(t *testing.T) {
			row, query := row.defaults()
			answer := func(v *View) string { return describe(v.Answer(row.asker, overWire(t, query.Copy()))) }
			equal(t, answer(absent), answer(stopped))
			if answer(present) != answer(absent) {
				differ++
			}
		})
	}
	if differ < 8 {
		t.Errorf("only %d names tell a host that is present from one that is not", differ)
	}
}
