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
	mostApps, mostMachines, mostVIPs = 3, 4, 3
)

// fact is what was ordered about one thing, and acknowledged, or perhaps done
// although no answer came.
type fact struct {
	want    state.MachineState // of a VIP: Started while it is allocated
	perhaps map[state.MachineState]bool
}

// may says whether the thing can be so.
func (f *fact) may(s state.MachineState) bool { return f.want == s || f.perhaps[s] }

// machineFact is a Machine that was acknowledged.
type machineFact struct {
	fact
	app, id string
}

type vipFact struct {
	fact
	app  string
	addr netip.Addr
}

// operator gives orders about apps of its own, one after the other.
type operator struct {
	world  *world
	number int
	random *rand.Rand

	apps     []string
	machines []*machineFact
	vips     []*vipFact

	given, lost int // orders, and those whose answer never came
}

func newOperator(w *world, number int, random *rand.Rand) *operator {
	return &operator{world: w, number: number, random: random}
}

// work gives orders until ending; each is brought to its end.
func (o *operator) work(ctx, ending context.Context) error {
	for ending.Err() == nil {
		pass(ending, moment(o.random, 150*time.Millisecond))
		o.given++
		if err := o.order(ctx); err != nil {
			return fmt.Errorf("operator %d, order %d: %w", o.number, o.given, err)
		}
	}
	return nil
}

func (o *operator) order(ctx context.Context) error {
	if len(o.apps) == 0 {
		return o.createApp(ctx)
	}
	switch n := o.random.IntN(20); {
	case n < 1 && len(o.apps) < mostApps:
		return o.createApp(ctx)
	case n < 6 && o.alive() < mostMachines:
		return o.runMachine(ctx)
	case n < 8 && o.allocated() < mostVIPs:
		return o.allocate(ctx)
	case n < 9 && len(o.vips) > 0:
		return o.release(ctx, pick(o.random, o.vips))
	case len(o.machines) > 0:
		return o.command(ctx, pick(o.random, o.machines))
	}
	return o.runMachine(ctx)
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
	done    answer = iota
	never          // it did not reach an agent
	unknown        // no answer came: it may be done
	missing        // there is no such thing
	refused        // it is impossible now
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
		return unknown, o.await(ctx)
	case answered.Code == http.StatusNotFound:
		return missing, nil
	case answered.Code == http.StatusPreconditionFailed:
		return refused, nil
	}
	return refused, fmt.Errorf("refused with %d: %w", answered.Code, err)
}

// judgeNew is judge for an order that nothing may stand in the way of.
func (o *operator) judgeNew(ctx context.Context, err error) (answer, error) {
	what, failed := o.judge(ctx, err)
	if failed == nil && (what == missing || what == refused) {
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
	case missing, refused:
		if !f.may(state.Destroyed) {
			return fmt.Errorf("what was acknowledged is not there any more: %w", err)
		}
		f.want, f.perhaps = state.Destroyed, nil
	}
	return nil
}

func (o *operator) createApp(ctx context.Context) error {
	name := fmt.Sprintf("app-%d-%d", o.number, o.given)
	what, err := o.judgeNew(ctx, o.world.CreateApp(ctx, name, orgs[o.number%len(orgs)]))
	if what == done && err == nil {
		o.apps = append(o.apps, name)
	}
	return err
}

// runMachine makes a server, or a command that ends by itself.
func (o *operator) runMachine(ctx context.Context) error {
	app, command := pick(o.random, o.apps), serve
	if o.random.IntN(4) == 0 {
		command = []string{"environment"}
	}
	id, err := o.world.create(ctx, app, fmt.Sprintf("m-%d", o.given), command)
	what, err := o.judgeNew(ctx, err)
	if err == nil && what == done {
		o.machines = append(o.machines, &machineFact{fact: fact{want: state.Started}, app: app, id: id})
	}
	return err
}

// create is Host.Run that waits for nothing.
func (w *world) create(ctx context.Context, app, name string, command []string) (id string, err error) {
	answer, err := w.Client.CreateMachineWithResponse(ctx, app, &api.CreateMachineParams{}, api.CreateMachineRequest{
		Name: name,
		Config: api.MachineConfig{
			Init: api.Init{Exec: w.Payload(command...)},
			Services: []api.Service{
				{Protocol: "tcp", InternalPort: tcpPort, Ports: []api.ServicePort{{Port: vipPort}}},
				{Protocol: "udp", InternalPort: udpPort, Ports: []api.ServicePort{{StartPort: udpPort, EndPort: udpPort + 1}}},
			},
		},
	})
	if err := api.Check(answer, err); err != nil {
		return "", err
	}
	return answer.JSON200.ID, nil
}

func (o *operator) allocate(ctx context.Context) error {
	app := pick(o.random, o.apps)
	answer, err := o.world.Client.CreateIPAssignmentWithResponse(ctx, app, &api.CreateIPAssignmentParams{},
		api.CreateIPAssignmentRequest{Type: "private_v6", OrgSlug: pick(o.random, orgs)})
	what, err := o.judgeNew(ctx, api.Check(answer, err))
	if err != nil || what != done {
		return err
	}
	addr, err := netip.ParseAddr(answer.JSON200.IP)
	if err != nil {
		return err
	}
	o.vips = append(o.vips, &vipFact{fact{want: state.Started}, app, addr})
	o.world.vips.add(addr)
	return nil
}

func (o *operator) release(ctx context.Context, v *vipFact) error {
	err := api.Check(o.world.Client.DeleteIPAssignmentWithResponse(ctx, v.app, v.addr.String(), &api.DeleteIPAssignmentParams{}))
	return o.conclude(ctx, &v.fact, state.Destroyed, err)
}

// command gives a random order to a Machine.
func (o *operator) command(ctx context.Context, m *machineFact) error {
	client := o.world.Client
	switch o.random.IntN(6) {
	case 0, 1:
		err := api.Check(client.StopMachineWithResponse(ctx, m.app, m.id, &api.StopMachineParams{}, api.StopRequest{}))
		return o.conclude(ctx, &m.fact, state.Stopped, err)
	case 2, 3:
		err := api.Check(client.StartMachineWithResponse(ctx, m.app, m.id, &api.StartMachineParams{}))
		return o.conclude(ctx, &m.fact, state.Started, err)
	case 4:
		err := api.Check(client.RestartMachineWithResponse(ctx, m.app, m.id, &api.RestartMachineParams{}))
		return o.conclude(ctx, &m.fact, state.Started, err)
	default:
		err := api.Check(client.DestroyMachineWithResponse(ctx, m.app, m.id, &api.DestroyMachineParams{Force: true}))
		return o.conclude(ctx, &m.fact, state.Destroyed, err)
	}
}
