package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// What Machines run.
var (
	serveIPv4 = []string{"serve", "-tcp4", strconv.Itoa(tcpPort), "-udp", strconv.Itoa(udpPort)}
	ends      = []string{"environment"}
	// flaps serves, and listens now and then only where its check looks.
	flaps = []string{"flaps"}
)

const checkPort = 8081

// config is the configuration that an order asks for.
func (o *operator) config(command []string, step int) api.MachineConfig {
	c := api.MachineConfig{
		Init:     api.Init{Exec: o.world.Payload(command...)},
		Metadata: api.StringMap{"step": strconv.Itoa(step)},
		Services: []api.Service{
			{Protocol: "tcp", InternalPort: tcpPort, Ports: []api.ServicePort{{Port: vipPort}}},
			{Protocol: "udp", InternalPort: udpPort, Ports: []api.ServicePort{{StartPort: udpPort, EndPort: udpPort + 1}}},
		},
	}
	if command[0] == flaps[0] {
		once := o.world.Payload("serve", "-tcp", strconv.Itoa(checkPort))
		c.Init.Exec = append([]string{"sh", "-c", `while ! test -e "$1"; do timeout 1.3 "$0" "$2" "$3" "$4" "$5"; sleep 1.2; done & shift 5; exec "$@"`, once[0], o.world.calm()}, once[1:]...)
		c.Init.Exec = append(c.Init.Exec, o.world.Payload(serve...)...)
		c.Services[0].Checks = []api.HealthCheck{{
			Type: "tcp", Port: checkPort, Interval: api.Duration(time.Second), Timeout: api.Duration(500 * time.Millisecond),
		}}
	}
	return c
}

// configOf is the configuration of a Machine, as an order replaces it.
func (o *operator) configOf(m *machineFact, step int) api.MachineConfig {
	if m.kind == process {
		return o.config(m.command, step)
	}
	return api.MachineConfig{Attach: o.guests.of(m.kind), Metadata: api.StringMap{"step": strconv.Itoa(step)}}
}

// runMachine makes a server of some kind, or a command that ends by itself; some are
// to be started later. A request that is not answered is repeated: with the id that
// this side chose, it is still one Machine.
func (o *operator) runMachine(ctx context.Context, app *appFact) error {
	o.kinds["run"]++
	command := pick(o.random, [][]string{serve, serve, serve, serveIPv4, flaps, ends})
	m := &machineFact{
		fact: fact{want: state.Started}, app: app.name, id: fmt.Sprintf("%014x", o.random.Uint64()>>8), command: command, step: o.given,
	}
	request := api.CreateMachineRequest{ID: m.id, Name: fmt.Sprintf("m-%d", o.given), Config: o.config(command, o.given)}
	if o.random.IntN(5) == 0 {
		request.SkipLaunch, m.want = true, state.Stopped
	}
	return o.create(ctx, m, request)
}

func (o *operator) create(ctx context.Context, m *machineFact, request api.CreateMachineRequest) error {
	try := func() (*api.CreateMachineResponse, error) {
		answer, err := o.world.Client.CreateMachineWithResponse(ctx, m.app, &api.CreateMachineParams{}, request)
		return answer, api.Check(answer, err)
	}
	answer, err := try()
	what, err := o.judgeNew(ctx, err)
	if err != nil || what == never {
		return err
	}
	if what == unknown || o.random.IntN(4) == 0 {
		o.kinds["repeated"]++
		if err := o.retry(ctx, func() (err error) { answer, err = try(); return err }); err != nil {
			return fmt.Errorf("repeat the creation of machine %s: %w", m.id, err)
		}
	}
	if answer.JSON200.ID != m.id {
		return fmt.Errorf("machine %s was asked for and %s made", m.id, answer.JSON200.ID)
	}
	if m.addr, err = netip.ParseAddr(answer.JSON200.PrivateIP); err != nil {
		return err
	}
	if m.want != state.Started {
		o.world.quiet.add(m.addr)
	}
	o.machines = append(o.machines, m)
	o.world.know(m)
	return nil
}

// command gives a random order to a Machine.
func (o *operator) command(ctx context.Context, m *machineFact) error {
	client := o.world.Client
	switch n := o.random.IntN(24); {
	case n < 3:
		return o.give(ctx, m, "stop", state.Stopped, func(nonce string) error {
			return api.Check(client.StopMachineWithResponse(ctx, m.app, m.id, &api.StopMachineParams{FlyMachineLeaseNonce: nonce}, api.StopRequest{}))
		})
	case n < 8:
		return o.give(ctx, m, "start", state.Started, func(nonce string) error {
			return api.Check(client.StartMachineWithResponse(ctx, m.app, m.id, &api.StartMachineParams{FlyMachineLeaseNonce: nonce}))
		})
	case n < 9:
		return o.give(ctx, m, "restart", state.Started, func(nonce string) error {
			return api.Check(client.RestartMachineWithResponse(ctx, m.app, m.id, &api.RestartMachineParams{FlyMachineLeaseNonce: nonce}))
		})
	case n < 14 && m.kind == process:
		return o.give(ctx, m, "suspend", state.Suspended, func(nonce string) error {
			return api.Check(client.SuspendMachineWithResponse(ctx, m.app, m.id, &api.SuspendMachineParams{FlyMachineLeaseNonce: nonce}))
		})
	case n < 16:
		return o.update(ctx, m)
	case n < 18:
		return o.cordon(ctx, m)
	case n < 19:
		return o.give(ctx, m, "signal", "", func(nonce string) error { // one that is of no consequence
			return api.Check(client.SignalMachineWithResponse(ctx, m.app, m.id, &api.SignalMachineParams{FlyMachineLeaseNonce: nonce}, api.SignalRequest{Signal: "SIGURG"}))
		})
	case n < 22:
		return o.lease(ctx, m)
	default:
		return o.give(ctx, m, "destroy", state.Destroyed, func(nonce string) error {
			return api.Check(client.DestroyMachineWithResponse(ctx, m.app, m.id, &api.DestroyMachineParams{Force: true, FlyMachineLeaseNonce: nonce}))
		})
	}
}

// give brings an order for a Machine to its end; one that wants no state changes none.
func (o *operator) give(ctx context.Context, m *machineFact, name string, want state.MachineState, order func(nonce string) error) error {
	if !m.leaseIsClear() {
		return nil
	}
	o.kinds[name]++
	nonce := ""
	if m.lease != nil {
		nonce = m.lease.nonce
		if o.random.IntN(4) == 0 {
			if err := o.shutOut(ctx, m, name, order); err != nil {
				return err
			}
		}
	}
	if want == state.Started || want == "" {
		o.world.quiet.remove(m.addr)
	}
	err := order(nonce)
	switch what, failed := o.judge(ctx, err); {
	case failed != nil && want == "" && isRefused(err):
		return nil // such as: not adopted yet
	case failed != nil:
		return failed
	case what == conflict && m.lease != nil && !m.lease.holds():
		return nil // it was over in between
	case what == conflict:
		return fmt.Errorf("%s of machine %s is in conflict with no lease: %w", name, m.id, err)
	case what == refused && (want == state.Suspended || want == ""):
		return nil // it does not run
	case want == "":
		return nil
	default:
		if err := o.note(&m.fact, want, what, err); err != nil {
			return fmt.Errorf("%s of machine %s: %w", name, m.id, err)
		}
		if what == done && want != state.Started {
			o.world.quiet.add(m.addr)
		}
		return nil
	}
}

// shutOut demands that an order without the nonce of a lease in force is refused.
func (o *operator) shutOut(ctx context.Context, m *machineFact, name string, order func(nonce string) error) error {
	err := order("")
	what, failed := o.judge(ctx, err)
	if failed == nil && (what == done || what == refused && name != "signal" && name != "suspend") && m.lease.holds() && !m.may(state.Destroyed) {
		return errors.Join(fmt.Errorf("%s of machine %s, which is leased, was let through", name, m.id), err)
	}
	return failed
}

// update replaces the configuration; the command stays, but the step says which.
func (o *operator) update(ctx context.Context, m *machineFact) error {
	if !m.leaseIsClear() {
		return nil
	}
	step, want := o.given, state.Started
	request := api.UpdateMachineRequest{Config: o.configOf(m, step)}
	if o.random.IntN(4) == 0 {
		request.SkipLaunch, want = true, state.Stopped
	}
	o.world.quiet.remove(m.addr)
	return o.give(ctx, m, "update", want, func(nonce string) error {
		err := api.Check(o.world.Client.UpdateMachineWithResponse(ctx, m.app, m.id, &api.UpdateMachineParams{FlyMachineLeaseNonce: nonce}, request))
		if err == nil {
			m.step = step
		} else if !isRefused(err) {
			m.unsure = map[int]bool{step: true}
		}
		return err
	})
}

func (o *operator) cordon(ctx context.Context, m *machineFact) error {
	cordon := !m.cordon
	return o.give(ctx, m, "cordon", "", func(nonce string) (err error) {
		if cordon {
			err = api.Check(o.world.Client.CordonMachineWithResponse(ctx, m.app, m.id, &api.CordonMachineParams{FlyMachineLeaseNonce: nonce}))
		} else {
			err = api.Check(o.world.Client.UncordonMachineWithResponse(ctx, m.app, m.id, &api.UncordonMachineParams{FlyMachineLeaseNonce: nonce}))
		}
		if err == nil {
			m.cordon = cordon
		} else if !isRefused(err) {
			m.either = true // until the comparison
		}
		return err
	})
}
