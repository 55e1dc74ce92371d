package bpf_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// places lists the places of machine_slots that hold a Machine.
func (w *world) places(key bpf.RouterMachineKey) (places []uint32) {
	w.t.Helper()
	var place uint32
	var machine bpf.RouterMachine
	entries := w.MachineSlots.Iterate()
	for entries.Next(&place, &machine) {
		if machine.Network == key.Network && machine.Machine == key.Machine {
			places = append(places, place)
		}
	}
	must(w.t, entries.Err())
	return places
}

// A writer that dies between two writes leaves a Machine at two places. The next Put
// clears the double, or it would come back when the first place is given up.
func TestDoublesAreCleared(t *testing.T) {
	w := newWorld(t)
	table := bpf.MachineSlots(w.MachineSlots)
	value := func(ifindex uint32) bpf.RouterMachine {
		return bpf.RouterMachine{Network: uint32(red), Machine: 77, Ifindex: ifindex}
	}
	key := bpf.RouterMachineKey{Network: uint32(red), Machine: 77}
	for name, put := range map[string]uint32{"an equal value": 2, "the double's value": 1, "another value": 3} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			must(t, table.Delete(key))
			must(t, table.Put(value(2)))
			home := w.places(key)[0]
			w.put(w.MachineSlots, (home+1)%bpf.Slots, value(1))
			must(t, table.Put(value(put)))
			if got := w.places(key); len(got) != 1 {
				t.Errorf("the Machine is at places %v, want one", got)
			}
			got, _, err := table.Get(key)
			must(t, err)
			if diff := cmp.Diff(value(put), got, cmpopts.IgnoreUnexported(got)); diff != "" {
				t.Errorf("the Machine (-want +got):\n%s", diff)
			}
			must(t, table.Delete(key))
			if got := w.places(key); len(got) != 0 {
				t.Errorf("the Machine is still at places %v after it was deleted", got)
			}
		})
	}
}

// Numbers of Machines count up in every network, and all must find a place together.
func TestRoomForMachines(t *testing.T) {
	const networks, machines = 100, 40
	for name, first := range map[string]sixpn.Network{"first networks": 1, "later networks": red} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			table := bpf.MachineSlots(w.MachineSlots)
			for n := range uint32(networks) {
				for m := range uint32(machines) {
					if err := table.Put(bpf.RouterMachine{Network: uint32(first) + n, Machine: 1 + m, Ifindex: 1}); err != nil {
						t.Fatalf("Machine %d of network %d of %d with %d each: %v", m, n, networks, machines, err)
					}
				}
			}
		})
	}
}

// The program looks for a Machine where Go has put it, whatever its numbers are.
func TestHomesAgree(t *testing.T) {
	const rounds = 1000
	w := newWorld(t)
	random := rand.New(rand.NewPCG(1, 2))
	numbers := []uint32{1, 2, 1 << 15, 1<<16 - 1, 1<<20 + 1}
	var missed []bpf.RouterMachineKey
	for range rounds {
		number := func() uint32 {
			return slices.Concat(numbers, []uint32{random.Uint32(), random.Uint32()})[random.IntN(len(numbers)+2)]
		}
		network, machine := sixpn.Network(number()), sixpn.Machine(number()&0xffffff)
		if machine == 0 || machine == w.client.machine {
			continue
		}
		sender, target := *w.client, *w.server
		sender.network, target.network, target.machine = network, network, machine
		w.setPort(bpf.RouterPort{
			Ifindex: sender.ifindex, Network: uint32(network), Host: uint32(thisHost), Machine: uint32(sender.machine), Counters: sender.counters,
			Mtu: testMTU, Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Mac: sender.router,
		})
		w.setDevice(&target, testMTU)
		s := from(&sender, target.addr(), protocolUDP, udp(1, 2, 3))
		if verdict, frame := w.fire(s); verdict != verdictRedirect || mac(frame[:6]) != target.guest {
			missed = append(missed, target.key())
		}
		must(t, bpf.MachineSlots(w.MachineSlots).Delete(target.key()))
	}
	if len(missed) > 0 {
		t.Errorf("%d of %d Machines were not found by the program: %v; drops %v", len(missed), rounds, missed[:min(len(missed), 5)], w.counts().Drops)
	}
}
