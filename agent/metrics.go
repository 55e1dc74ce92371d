package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/observe"
)

// metricsOff as MetricsListen serves no metrics.
const metricsOff = "off"

// listenMetrics comes before all else: an address that is taken ends the agent, for
// metrics that are missing in silence are missed only when they are needed, and nothing
// has changed by then.
func (a *agent) listenMetrics(ctx context.Context) (err error) {
	if a.config.MetricsListen == metricsOff {
		return nil
	}
	a.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", a.config.MetricsListen)
	if err != nil {
		return fmt.Errorf("%w: give each agent of this host an address of its own by --metrics-listen, or turn metrics off by --metrics-listen %s", err, metricsOff)
	}
	a.closers = append(a.closers, func() error {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

// openMetrics makes the collector of what the steps before it have opened.
func (a *agent) openMetrics(context.Context) (err error) {
	a.metrics, err = observe.New(observe.Config{
		Host: a.host.ID, Version: a.config.Version, Started: a.started,
		Tables: a.tables, Router: a.loader.Router(), Mesh: a.loader.Mesh(), Uplink: a.loader.Uplink(), Expire: a.loader.Expire(),
		Snapshot: a.store.Snapshot,
		Progress: func() observe.Progress {
			status := a.progress()
			return observe.Progress{Wanted: status.Wanted, Applied: status.Applied, Failures: status.Failures}
		},
		Store: a.storeHealth, RoundTrips: a.trips.Hosts, Divisions: a.divisions,
		UplinkXDP: a.uplinkXDP(), Handshakes: a.handshakes, Certificate: a.certificateTimes, Members: a.storeMembers, Clock: a.config.Clock,
		Log: a.log,
	})
	return err
}

func (a *agent) uplinkXDP() func() (device, mode string) {
	if a.native == nil {
		return nil
	}
	return func() (device, mode string) {
		seen, xdp := a.native.seen()
		return seen.name, xdp.String()
	}
}

// A scrape takes milliseconds; who takes longer to ask or to read is cut off.
const (
	metricsRead = 5 * time.Second
	metricsWait = 30 * time.Second
	metricsIdle = 5 * time.Minute
)

// serveMetrics answers scrapes until ctx ends.
func (a *agent) serveMetrics(ctx context.Context) error {
	if a.listener == nil {
		<-ctx.Done()
		return nil
	}
	a.log.Info("metrics", "address", a.listener.Addr().String())
	server := &http.Server{
		Handler:           a.metrics.Handler(),
		ReadHeaderTimeout: metricsRead, WriteTimeout: metricsWait, IdleTimeout: metricsIdle,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		if err := server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// What the tables and the loop tell the collector. It is made after them, but before
// they are put to work.

func (a *agent) portRemoved(last maps.PortCounts) {
	if a.metrics != nil {
		a.metrics.PortRemoved(last)
	}
}

func (a *agent) backendFreed(last maps.BackendLoad) {
	if a.metrics != nil {
		a.metrics.BackendFreed(last)
	}
}

func (a *agent) applied(took time.Duration) { a.metrics.Applied(took) }
