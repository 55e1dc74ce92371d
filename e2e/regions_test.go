package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/netns"
)

// regions is a fleet of two regions with a server in each, and clients in both.
type regions struct {
	fleet   *nettest.Fleet
	servers [2]*nettest.Machine // of web, by host
	clients [2]*nettest.Machine
	inside  [2]*netns.Namespace // of the clients
	vip     netip.AddrPort
}

const softLimit, hardLimit = 4, 8

func newRegions(ctx context.Context, t *testing.T) *regions {
	t.Helper()
	r := &regions{fleet: nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra"}, Host: nettest.Config{AgentFlags: []string{"--round-trip-interval", "100ms"}},
	})}
	first := r.fleet.Hosts[0]
	nettest.Must(t, first.CreateOrg(ctx, "acme"))
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, first.CreateApp(ctx, "clients", "acme"))
	for i, h := range r.fleet.Hosts {
		// Asked of the first host, for a region that is the other's.
		r.servers[i] = r.create(ctx, t, "web", h, api.MachineConfig{
			Init: api.Init{Exec: h.Payload("serve", "-tcp", "8080")},
			Services: []api.Service{{
				Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}},
				Concurrency: &api.Concurrency{Type: "connections", SoftLimit: softLimit, HardLimit: hardLimit},
			}},
		})
		r.clients[i] = nettest.Get[*nettest.Machine](t)(h.Run(ctx, "clients", nettest.Options{}, h.Payload("idle")...))
		r.inside[i] = nettest.Get[*netns.Namespace](t)(r.clients[i].Namespace())
		t.Cleanup(func() { r.inside[i].Close() })
	}
	r.vip = netip.AddrPortFrom(nettest.Get[netip.Addr](t)(first.AllocateVIP(ctx, "web", "acme")), 80)
	return r
}

// create makes a Machine of a host's region through the API of the first host.
func (r *regions) create(ctx context.Context, t *testing.T, app string, on *nettest.Host, config api.MachineConfig) *nettest.Machine {
	t.Helper()
	region := nettest.Get[api.Status](t)(on.Status(ctx)).Agent.Region
	answer, err := r.fleet.Hosts[0].Client.CreateMachineWithResponse(ctx, app, &api.CreateMachineParams{}, api.CreateMachineRequest{Region: region, Config: config})
	nettest.Must(t, api.Check(answer, err))
	made := answer.JSON200
	if made.HostName != on.Name || made.Region != region {
		t.Fatalf("a Machine of %s is on %s in %s, expected on %s", region, made.HostName, made.Region, on.Name)
	}
	// The other host may not have heard of it yet.
	m := &nettest.Machine{Host: r.fleet.Hosts[0], App: app, Name: made.Name, ID: made.ID, Addr: netip.MustParseAddr(made.PrivateIP)}
	nettest.Must(t, m.Wait(ctx, "started"))
	m.Host = on
	return m
}

// connect opens a connection from a client and returns it with who greeted.
func (r *regions) connect(ctx context.Context, client int) (net.Conn, string, error) {
	return r.connectWithin(ctx, client, 10*time.Second)
}

func (r *regions) connectWithin(ctx context.Context, client int, limit time.Duration) (net.Conn, string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := r.inside[client].Dial(ctx, "tcp6", nil, r.vip.String())
	if err != nil {
		return nil, "", err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	greeting := make([]byte, 64)
	n, err := conn.Read(greeting)
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	who, _, _ := strings.Cut(string(greeting[:n]), " ")
	return conn, who, nil
}

// reach waits until a client's connections reach a server, closing each.
func (r *regions) reach(ctx context.Context, t *testing.T, client int, server *nettest.Machine) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "a connection reaches Machine "+server.ID, func(ctx context.Context) error {
		conn, who, err := r.connect(ctx, client)
		if err != nil {
			return err
		}
		conn.Close()
		if who != server.ID {
			return fmt.Errorf("Machine %s answered", who)
		}
		return nil
	}))
}

// idle waits until no connection counts any more: they do until both ends have closed.
func (r *regions) idle(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, h := range r.fleet.Hosts {
		nettest.Must(t, nettest.Eventually(ctx, "no connection counts", func(ctx context.Context) error {
			status, err := h.Status(ctx)
			for _, service := range status.Services {
				for _, backend := range service.Backends {
					if backend.Flows > 0 {
						err = errors.Join(err, fmt.Errorf("%d at %s", backend.Flows, backend.MachineID))
					}
				}
			}
			return err
		}))
	}
}

// TestRegions has two hosts in two regions. Each client's flows go to its own region
// while that has room, names say what is nearest, and a Machine changes its host.
func TestRegions(t *testing.T) {
	ctx := nettest.Context(t)
	r := newRegions(ctx, t)
	t.Run("nearest first", func(t *testing.T) { r.nearestFirst(ctx, t) })
	t.Run("round trips", func(t *testing.T) { r.roundTrips(ctx, t) })
	t.Run("migrate in vain", func(t *testing.T) { r.migrateInVain(ctx, t) })
	t.Run("migrate", func(t *testing.T) { r.migrate(ctx, t) })
	t.Run("migrate through kills", func(t *testing.T) { r.migrateThroughKills(ctx, t) })
	t.Run("a host is lost", func(t *testing.T) { r.lost(ctx, t) })
}

// A host whose agent alone is away keeps its flows; one that is cut off loses them by a
// reset, instead of hanging, and new ones go elsewhere.
func (r *regions) lost(ctx context.Context, t *testing.T) {
	lost := r.fleet.Hosts[1]
	present := func(want string) {
		nettest.Must(t, nettest.Eventually(ctx, "the other host is "+want, func(ctx context.Context) error {
			answer, err := r.fleet.Hosts[0].Client.GetHostWithResponse(ctx, lost.Name, nil)
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if got := string(answer.JSON200.State); got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		}))
	}
	// By now both servers are in fra; the client is in iad.
	conn, who, err := r.connect(ctx, 0)
	nettest.Must(t, err)
	for who != r.servers[1].ID {
		defer conn.Close()
		conn, who, err = r.connect(ctx, 0)
		nettest.Must(t, err)
	}
	defer conn.Close()
	echo := func() error {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 64))
		return err
	}
	for range 2 { // the rest of the greeting comes first
		nettest.Must(t, echo())
	}

	nettest.Must(t, lost.KillAgent())
	present("lost")
	for range 3 {
		nettest.Must(t, echo())
	}
	nettest.Must(t, lost.StartAgent(ctx))
	present("present")
	nettest.Must(t, echo())

	nettest.Must(t, lost.Uplink.Cut())
	began := time.Now()
	_ = conn.SetDeadline(began.Add(time.Minute))
	if _, err := conn.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %v of a cut the connection ends with %v, expected a reset", time.Since(began), err)
	}
	nettest.Must(t, lost.Uplink.Heal())
	present("present")
	r.reach(ctx, t, 0, r.servers[1])
}

// The far server gets nothing while the near one is below its soft limit, and what that
// has no room for after it.
func (r *regions) nearestFirst(ctx context.Context, t *testing.T) {
	for client := range r.clients {
		near, far := r.servers[client], r.servers[1-client]
		r.reach(ctx, t, client, near) // both are in the tables of both hosts
		r.idle(ctx, t)
		var held []net.Conn
		open := func() string {
			conn, who, err := r.connect(ctx, client)
			nettest.Must(t, err)
			held = append(held, conn)
			return who
		}
		// The other client's connections of before count until its host has said that they ended.
		nettest.Must(t, nettest.Eventually(ctx, "each server takes what is below its soft limit, the near one first", func(context.Context) error {
			for i := range 2 * softLimit {
				want := near
				if i >= softLimit {
					want = far
				}
				if who := open(); who != want.ID {
					for _, conn := range held {
						conn.Close()
					}
					held = nil
					return fmt.Errorf("connection %d went to Machine %s, expected %s, which has room", i, who, want.ID)
				}
			}
			return nil
		}))
		for _, conn := range held {
			conn.Close()
		}
		r.reach(ctx, t, client, near)

		names := nettest.Get[payload.Lookup](t)(nettest.Probe[payload.Lookup](ctx, r.clients[client], "lookup", "AAAA", "top1.nearest.of.web.internal"))
		if fmt.Sprint(names.Answers) != fmt.Sprint([]string{near.Addr.String()}) {
			t.Errorf("client %d: the nearest of web is %v, expected %s", client, names.Answers, near.Addr)
		}
	}
}

// What is measured follows the underlay.
func (r *regions) roundTrips(ctx context.Context, t *testing.T) {
	const each = 100 * time.Millisecond // more than a busy machine adds
	measured := func(ctx context.Context) (*float64, error) {
		answer, err := r.fleet.Hosts[0].Client.ListRegionsWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return nil, err
		}
		for _, region := range answer.JSON200.Regions {
			if region.Code == "fra" {
				return region.RoundTripMs, nil
			}
		}
		return nil, errors.New("there is no region fra")
	}
	within := func(what string, least, most float64) {
		nettest.Must(t, nettest.Eventually(ctx, what, func(ctx context.Context) error {
			took, err := measured(ctx)
			switch {
			case err != nil:
				return err
			case took == nil:
				return errors.New("it is not measured")
			case *took < least || *took > most:
				return fmt.Errorf("it is %v ms", *took)
			}
			return nil
		}))
	}
	within("the round trip to fra is measured", 0, 120)
	nettest.Must(t, r.fleet.Hosts[1].Uplink.Delay(each))
	within("the round trip to fra is longer", 150, 2000)
	nettest.Must(t, r.fleet.Hosts[1].Uplink.Delay(0))
}
