package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

const defaultNetwork = "default"

func (o *operator) createApp(ctx context.Context) error {
	o.kinds["create app"]++
	name := fmt.Sprintf("app-%d-%d", o.number, o.given)
	what, err := o.judgeNew(ctx, o.world.CreateApp(ctx, name, o.org()))
	if err != nil || what == never {
		return err
	}
	app := &appFact{fact: fact{want: state.Started}, name: name, place: place{o.org(), defaultNetwork}}
	if what == unknown {
		app.doubt(state.Destroyed)
	}
	o.apps = append(o.apps, app)
	o.world.names.add(name)
	return nil
}

// destroyApp takes everything of an app with it, leases or not.
func (o *operator) destroyApp(ctx context.Context, app *appFact) error {
	o.kinds["destroy app"]++
	err := api.Check(o.world.Client.DestroyAppWithResponse(ctx, app.name, &api.DestroyAppParams{}))
	what, err := o.judge(ctx, err)
	switch {
	case err != nil || what == never:
		return err
	case what == unknown:
		app.doubt(state.Destroyed)
		o.each(app, func(f *fact, _ *machineFact) { f.doubt(state.Destroyed) })
		return nil
	case what != done:
		return fmt.Errorf("app %s cannot be destroyed, answer %d", app.name, what)
	}
	app.certain(state.Destroyed)
	o.each(app, func(f *fact, m *machineFact) {
		f.certain(state.Destroyed)
		if m != nil {
			o.world.quiet.add(m.addr)
		}
	})
	return nil
}

// each calls f for all that an app has.
func (o *operator) each(app *appFact, f func(*fact, *machineFact)) {
	for _, m := range o.machines {
		if m.app == app.name && m.want != state.Destroyed {
			f(&m.fact, m)
		}
	}
	for _, v := range o.vips {
		if v.app == app.name && v.want != state.Destroyed {
			f(&v.fact, nil)
		}
	}
}

// move takes an app to another network: of the other org, or of its own.
func (o *operator) move(ctx context.Context, app *appFact) error {
	o.kinds["move"]++
	places := []place{{orgs[0], defaultNetwork}, {orgs[1], defaultNetwork}}
	for _, n := range o.networks {
		if n.want == state.Started {
			places = append(places, place{o.org(), n.name})
		}
	}
	to := pick(o.random, places)
	err := api.Check(o.world.Client.MoveAppWithResponse(ctx, app.name, &api.MoveAppParams{}, api.MoveAppRequest{OrgSlug: to.org, Network: to.network}))
	what, failed := o.judge(ctx, err)
	switch {
	case failed != nil || what == never:
		return failed
	case what == conflict:
		for _, m := range o.machines {
			if m.app == app.name && m.mayBeLeased() {
				return nil
			}
		}
		return fmt.Errorf("app %s has no leased Machine and is not moved: %w", app.name, err)
	case what == done && app.place != to:
		app.toward = &to
		return o.arrived(ctx, app)
	case what == unknown && app.place != to:
		app.toward = &to // the comparison, which comes next, finds out
	case what == missing || what == refused:
		return fmt.Errorf("app %s, which is there, is not moved to %v: %w", app.name, to, err)
	}
	return nil
}

// arrived notes that an app has moved: everything of it has other addresses.
func (o *operator) arrived(ctx context.Context, app *appFact) error {
	from := app.place
	app.place, app.toward = *app.toward, nil
	app.moved = true
	replaced := 0
	for _, v := range o.vips {
		if v.app == app.name && v.place == from && v.want == state.Started {
			v.certain(state.Destroyed)
			replaced++
		}
	}
	for _, m := range o.machines {
		if m.app != app.name || m.gone {
			continue
		}
		// One that is being destroyed moves too, as long as it is there.
		o.world.quiet.add(m.addr) // for ever
		m.addr = netip.Addr{}
		if m.want == state.Suspended {
			m.want = state.Stopped
		}
		if m.perhaps[state.Suspended] {
			m.doubt(state.Stopped)
		}
	}
	o.stale = true
	// The new addresses of its Machines are learnt by the comparison.
	return o.retry(ctx, func() error {
		answer, err := o.world.Client.ListIPAssignmentsWithResponse(ctx, app.name)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		known := map[string]bool{}
		for _, v := range o.vips {
			known[v.addr.String()] = true
		}
		var fresh []api.IPAssignment
		for _, ip := range answer.JSON200.Ips {
			if !known[ip.IP] {
				fresh = append(fresh, ip)
			}
		}
		if len(fresh) != replaced {
			return broken("app %s moved from %v to %v with %d addresses and got %v instead", app.name, from, app.place, replaced, fresh)
		}
		for _, ip := range fresh {
			if err := o.noteVIP(app.name, ip); err != nil {
				return err
			}
		}
		return nil
	})
}

func (o *operator) noteVIP(app string, ip api.IPAssignment) error {
	addr, err := netip.ParseAddr(ip.IP)
	if err != nil {
		return err
	}
	o.vips = append(o.vips, &vipFact{fact{want: state.Started}, app, addr, place{ip.OrgSlug, ip.Network}})
	o.world.vips.add(addr)
	o.world.owners.put(addr, app)
	return nil
}

// allocate gives an app an address of its own network, or for one of the orgs. A
// request that is not answered is repeated: with its id, it is still one address.
func (o *operator) allocate(ctx context.Context, app *appFact) error {
	o.kinds["allocate"]++
	request := api.CreateIPAssignmentRequest{
		Type: "private_v6", ID: fmt.Sprintf("order-%d-%d", o.number, o.given), OrgSlug: pick(o.random, append([]string{""}, orgs...)),
	}
	var answer *api.CreateIPAssignmentResponse
	try := func() (err error) {
		answer, err = o.world.Client.CreateIPAssignmentWithResponse(ctx, app.name, &api.CreateIPAssignmentParams{}, request)
		return api.Check(answer, err)
	}
	what, err := o.judgeNew(ctx, try())
	if err != nil || what == never {
		return err
	}
	if what == unknown {
		o.kinds["repeated"]++
		err = o.retry(ctx, try)
	} else if first := answer.JSON200.IP; o.random.IntN(3) == 0 {
		o.kinds["repeated"]++
		if err = o.retry(ctx, try); err == nil && answer.JSON200.IP != first {
			err = fmt.Errorf("the same request got %s and then %s", first, answer.JSON200.IP)
		}
	}
	if err != nil {
		return fmt.Errorf("repeat the request for an address: %w", err)
	}
	return o.noteVIP(app.name, *answer.JSON200)
}

func (o *operator) release(ctx context.Context, v *vipFact) error {
	o.kinds["release"]++
	err := api.Check(o.world.Client.DeleteIPAssignmentWithResponse(ctx, v.app, v.addr.String(), &api.DeleteIPAssignmentParams{}))
	return o.conclude(ctx, &v.fact, state.Destroyed, err)
}

// changeNetworks makes a network, or deletes one, which is refused while something is
// in it.
func (o *operator) changeNetworks(ctx context.Context) error {
	o.kinds["networks"]++
	var there []*networkFact
	for _, n := range o.networks {
		if n.want == state.Started {
			there = append(there, n)
		}
	}
	client := o.world.Client
	if len(there) == 0 || len(there) < mostNetworks && o.random.IntN(2) == 0 {
		name := fmt.Sprintf("net-%d-%d", o.number, o.given)
		what, err := o.judgeNew(ctx, api.Check(client.CreateNetworkWithResponse(ctx, o.org(), &api.CreateNetworkParams{}, api.CreateNetworkRequest{Name: name})))
		if err != nil || what == never {
			return err
		}
		n := &networkFact{fact{want: state.Started}, name}
		if what == unknown {
			n.doubt(state.Destroyed)
		}
		o.networks = append(o.networks, n)
		return nil
	}
	n := pick(o.random, there)
	err := api.Check(client.DeleteNetworkWithResponse(ctx, o.org(), n.name, &api.DeleteNetworkParams{}))
	what, failed := o.judge(ctx, err)
	switch used := o.uses(place{o.org(), n.name}); {
	case failed != nil || what == never:
		return failed
	case what == conflict && used > 0:
		return nil
	case what == conflict:
		return fmt.Errorf("network %s, in which nothing is, is not deleted: %w", n.name, err)
	case used == certainly && (what == done || what == unknown):
		if what == done {
			return fmt.Errorf("network %s was deleted with an app in it", n.name)
		}
		return nil
	}
	return o.conclude(ctx, &n.fact, state.Destroyed, err)
}

const (
	maybe     = 1
	certainly = 2
)

// uses says whether something is in a network of this operator.
func (o *operator) uses(p place) (certainty int) {
	for _, app := range o.apps {
		switch {
		case app.place == p && app.want == state.Started && len(app.perhaps) == 0 && app.toward == nil:
			return certainly
		case app.place == p: // one that is destroyed is there until its last Machine is not
			certainty = maybe
		case app.toward != nil && *app.toward == p:
			certainty = maybe
		}
	}
	for _, v := range o.vips {
		if v.place == p && v.may(state.Started) {
			certainty = cmp.Or(certainty, maybe)
		}
	}
	return certainty
}
