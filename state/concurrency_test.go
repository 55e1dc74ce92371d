package state_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// together runs f this many times at once and returns the results.
func together[T any](n int, f func(i int) T) []T {
	results := make([]T, n)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			results[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return results
}

// oneWins checks that exactly one of the contenders succeeded and every other was
// told of a conflict about field.
func oneWins(t *testing.T, errs []error, field string) {
	t.Helper()
	wins := 0
	for _, err := range errs {
		if err == nil {
			wins++
			continue
		}
		refused(t, err, state.Conflict, field)
	}
	if wins != 1 {
		t.Errorf("%d contenders won, want exactly 1", wins)
	}
}

func distinct[T comparable](t *testing.T, what string, values []T) {
	t.Helper()
	seen := map[T]bool{}
	for _, v := range values {
		if seen[v] {
			t.Errorf("%s %v was given out twice", what, v)
		}
		seen[v] = true
	}
}

const contenders = 16

func TestOneOfTwoEqualNamesWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	_, _, err := w.CreateOrg(ctx, "globex", "")
	must(t, err)
	oneWins(t, together(contenders, func(i int) error {
		_, _, err := w.contender(i).CreateOrg(ctx, "initech", "")
		return err
	}), "slug")
	oneWins(t, together(contenders, func(i int) error {
		_, _, err := w.contender(i/2).CreateApp(ctx, "shop", []string{"acme", "globex"}[i%2], "")
		return err
	}), "name")
	oneWins(t, together(contenders, func(i int) error {
		_, _, err := w.contender(i).CreateNetwork(ctx, "acme", "staging")
		return err
	}), "network")
	oneWins(t, together(contenders, func(i int) error {
		_, _, err := w.contender(i).CreateMachine(ctx, w.newMachine("web-1"))
		return err
	}), "name")
	oneWins(t, together(contenders, func(i int) error {
		_, _, err := w.contender(i).RegisterHost(ctx, "host-2", "fra", 0)
		return err
	}), "host")
}

func TestHostsRegisteringTogetherGetNumbersOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hosts := together(contenders, func(i int) sixpn.Host {
		h, _, err := w.contender(i).RegisterHost(within(t), fmt.Sprintf("other-%d", i), "fra", 0)
		if err != nil {
			t.Error(err)
		}
		return h.ID
	})
	distinct(t, "the host number", append(hosts, w.host.ID))
	if w.host.ID != sixpn.FirstHost {
		t.Errorf("the first number was %v, want %v", w.host.ID, sixpn.FirstHost)
	}
}

func TestMachinesCreatedTogetherGetNumbersOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	machines := together(contenders, func(i int) state.Machine {
		m, _, err := w.contender(i).CreateMachine(within(t), w.newMachine(""))
		if err != nil {
			t.Error(err)
		}
		return m
	})
	var ids []string
	var numbers []sixpn.Machine
	for _, m := range machines {
		ids, numbers = append(ids, m.ID), append(numbers, m.Number)
	}
	distinct(t, "the id", ids)
	distinct(t, "the number", numbers)
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	const updates = 10
	together(contenders, func(i int) struct{} {
		for range updates {
			if _, _, err := w.contender(i).UpdateMachine(within(t), m.ID, func(m *state.Machine) error {
				m.Restarts++
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		return struct{}{}
	})
	after, _, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil })
	must(t, err)
	if want := contenders * updates; after.Restarts != want {
		t.Errorf("%d updates are there, want %d", after.Restarts, want)
	}
}

// TestNumbersAreNeverReused deletes whatever was made last before the next is made,
// and restarts the store in between.
func TestNumbersAreNeverReused(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	var w world
	var machines []sixpn.Machine
	var vips []uint32
	for round := range 3 {
		e := start(t, dir)
		s := open(t, e)
		if round == 0 {
			w = populate(t, s)
		}
		w.Store = s
		for range 3 {
			m := w.machine(t, "web-1")
			machines = append(machines, m.Number)
			_, err := w.DestroyMachine(within(t), m.ID)
			must(t, err)
			v, _, err := w.AllocateVIP(within(t), "web", "", "")
			must(t, err)
			vips = append(vips, v.Number)
			_, err = w.ReleaseVIP(within(t), "web", v.Addr())
			must(t, err)
		}
		must(t, e.Close())
	}
	distinct(t, "the machine number", machines)
	distinct(t, "the address number", vips)
}

// TestLimitsHoldUnderConcurrency fills an app to its last address and lets many
// contend for it, from networks that share no counter.
func TestLimitsHoldUnderConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, err := w.CreateOrg(within(t), "globex", "")
	must(t, err)
	for range state.MaxAppVIPs - 1 {
		_, _, err := w.AllocateVIP(within(t), "web", "", "")
		must(t, err)
	}
	errs := together(contenders, func(i int) error {
		_, _, err := w.contender(i).AllocateVIP(within(t), "web", []string{"acme", "globex"}[i/len(w.stores)%2], "")
		return err
	})
	wins := 0
	for _, err := range errs {
		if err == nil {
			wins++
			continue
		}
		refused(t, err, state.Exhausted, "app")
	}
	if wins != 1 {
		t.Errorf("%d contenders got the last address, want 1", wins)
	}
}
