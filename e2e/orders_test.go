package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/state"
)

var (
	orgs      = []string{"acme", "partner"}
	published = []string{"80:8080/tcp", "9000-9001:9000/udp"}
	serve     = []string{"serve", "-tcp", "8080", "-udp", "9000", "-sockets", "8"}
)

const (
	mostApps, mostMachines, mostVIPs, mostNetworks = 3, 5, 3, 2
)

// fact is what was ordered about one thing, and acknowledged, or perhaps done
// although no answer came.
type fact struct {
	want    state.MachineState // of a VIP: Started while it is allocated
	perhaps map[state.MachineState]bool
}

// may says whether the thing can be so.
func (f *fact) may(s state.MachineState) bool { return f.want == s || f.perhaps[s] }

// certain and doubt note how the thing is, or may be.
func (f *fact) certain(s state.MachineState) { f.want, f.perhaps = s, nil }

func (f *fact) doubt(s state.MachineState) {
	if f.perhaps == nil {
		f.perhaps = map[state.MachineState]bool{}
	}
	f.perhaps[s] = true
}

// machineFact is a Machine that was acknowledged.
type machineFact struct {
	fact
	app, id string
	addr    netip.Addr
	command []string
	kind    kind
	gone    bool
	step    int // number of the order whose configuration it has
	lease   *leaseFact
	leased  time.Time // until then somebody may hold a lease whose nonce nobody was told
	cordon  bool
	events  []api.MachineEvent // as last seen, newest first
	unsure  map[int]bool       // steps whose order was never answered
	either  bool               // whether it is cordoned is not known
}

// kind is what there is of a Machine on the host.
type kind int

const (
	process kind = iota
	inNamespace
	onTap
)

// leaseFact is a lease that was acknowledged: in force before the first instant, over
// after the other.
type leaseFact struct {
	nonce       string
	until, over time.Time
}

type vipFact struct {
	fact
	app   string
	addr  netip.Addr
	place place
}

// place is a network by its names.
type place struct{ org, network string }

type appFact struct {
	fact
	name   string
	place  place
	toward *place // of a move that was never answered
	gone   bool   // with its last Machine
	moved  bool   // ever
}

type networkFact struct {
	fact
	name string
}

// operator gives orders about apps of its own, one after the other.
type operator struct {
	world  *world
	number int
	random *rand.Rand

	guests   guests
	apps     []*appFact
	machines []*machineFact
	vips     []*vipFact
	networks []*networkFact

	seen        int64 // kills when the facts were last compared
	stale       bool  // an order was not answered since
	given, lost int   // orders, and those whose answer never came
	kinds       map[string]int
}

func newOperator(w *world, number int, random *rand.Rand) *operator {
	return &operator{world: w, number: number, random: random, kinds: map[string]int{}}
}

func (o *operator) org() string { return orgs[o.number%len(orgs)] }

// work gives orders until ending; each is brought to its end. After each kill, and
// each order without an answer, all that was acknowledged must be there.
func (o *operator) work(ctx, ending context.Context) error {
	for ending.Err() == nil {
		pass(ending, moment(o.random, 100*time.Millisecond))
		if kills := o.world.kills.Load(); o.stale || kills != o.seen {
			if err := o.verify(ctx); err != nil {
				return fmt.Errorf("operator %d, after order %d: %w", o.number, o.given, err)
			}
			o.seen, o.stale = kills, false
		}
		o.given++
		if err := o.order(ctx); err != nil {
			return fmt.Errorf("operator %d, order %d: %w", o.number, o.given, err)
		}
	}
	return o.verify(ctx)
}

func (o *operator) order(ctx context.Context) error {
	apps := o.present()
	if len(apps) == 0 {
		return o.createApp(ctx)
	}
	switch n := o.random.IntN(60); {
	case n < 3 && len(apps) < mostApps:
		return o.createApp(ctx)
	case n < 15 && o.alive() < mostMachines:
		return o.runMachine(ctx, pick(o.random, apps))
	case n < 17:
		return o.attach(ctx, pick(o.random, apps))
	case n < 22 && o.allocated() < mostVIPs:
		return o.allocate(ctx, pick(o.random, apps))
	case n < 25 && len(o.vips) > 0:
		return o.release(ctx, pick(o.random, o.vips))
	case n < 28:
		return o.changeNetworks(ctx)
	case n < 32:
		return o.move(ctx, pick(o.random, apps))
	case n < 33:
		return o.destroyApp(ctx, pick(o.random, apps))
	}
	if m := o.someMachine(); m != nil {
		return o.command(ctx, m)
	}
	return o.runMachine(ctx, pick(o.random, apps))
}

// present are the apps that are not being destroyed.
func (o *operator) present() (apps []*appFact) {
	for _, app := range o.apps {
		if app.want != state.Destroyed {
			apps = append(apps, app)
		}
	}
	return apps
}

// someMachine is mostly one that is not destroyed.
func (o *operator) someMachine() *machineFact {
	if len(o.machines) == 0 {
		return nil
	}
	for range 4 {
		if m := pick(o.random, o.machines); m.want != state.Destroyed {
			return m
		}
	}
	return pick(o.random, o.machines)
}

func pick[T any](random *rand.Rand, list []T) T { return list[random.IntN(len(list))] }

func (o *operator) alive() (n int) {
	for _, m := range o.machines {
		if m.want != state.Destroyed {
			n++
		}
	}
	return n
}

func (o *operator) allocated() (n int) {
	for _, v := range o.vips {
		if v.want != state.Destroyed {
			n++
		}
	}
	return n
}

// answer is what became of an order.
type answer int

const (
	done     answer = iota
	never           // it did not reach an agent
	unknown         // no answer came: it may be done
	missing         // there is no such thing
	refused         // it is impossible now
	conflict        // with a lease, or with what there is
)

// judge says which answer an error is. Any other is a failure of the agent.
func (o *operator) judge(ctx context.Context, err error) (answer, error) {
	var answered *api.Error
	switch {
	case err == nil:
		return done, nil
	case ctx.Err() != nil:
		return never, ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		o.lost++
		return never, o.await(ctx)
	case !errors.As(err, &answered):
		o.lost++
		o.stale = true
		return unknown, o.await(ctx)
	case answered.Code == http.StatusNotFound:
		return missing, nil
	case answered.Code == http.StatusPreconditionFailed:
		return refused, nil
	case answered.Code == http.StatusConflict:
		return conflict, nil
	}
	return refused, fmt.Errorf("refused with %d: %w", answered.Code, err)
}

// judgeNew is judge for an order that nothing may stand in the way of.
func (o *operator) judgeNew(ctx context.Context, err error) (answer, error) {
	what, failed := o.judge(ctx, err)
	if failed == nil && (what == missing || what == refused || what == conflict) {
		failed = fmt.Errorf("what was acknowledged is not there any more: %w", err)
	}
	return what, failed
}

// await waits until there is an agent again.
func (o *operator) await(ctx context.Context) error {
	return nettest.Eventually(ctx, "there is an agent again", func(ctx context.Context) error {
		_, err := o.world.Status(ctx)
		return err
	})
}

// conclude notes what an order of a thing to be so has come to.
func (o *operator) conclude(ctx context.Context, f *fact, want state.MachineState, err error) error {
	what, failed := o.judge(ctx, err)
	if failed != nil {
		return failed
	}
	return o.note(f, want, what, err)
}

// note is conclude for an answer that is judged.
func (o *operator) note(f *fact, want state.MachineState, what answer, err error) error {
	switch what {
	case done:
		if want == state.Stopped && f.may(state.Destroyed) {
			// What is being destroyed is stopped too.
			f.perhaps = map[state.MachineState]bool{state.Destroyed: true}
			if f.want != state.Destroyed {
				f.want = want
			}
			return nil
		}
		f.want, f.perhaps = want, nil
	case unknown:
		if f.perhaps == nil {
			f.perhaps = map[state.MachineState]bool{}
		}
		f.perhaps[want] = true
	case conflict:
		return fmt.Errorf("in conflict with nothing that was acknowledged: %w", err)
	case missing, refused:
		if !f.may(state.Destroyed) {
			return fmt.Errorf("what was acknowledged is not there any more: %w", err)
		}
		f.want, f.perhaps = state.Destroyed, nil
	}
	return nil
}
