package agent

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/flycast"
)

// task is one thing that an agent does for all its life.
type task struct {
	name string
	run  func(ctx context.Context) error
}

// errEnded is a task that stopped although nobody had told it to.
var errEnded = errors.New("it ended by itself")

// work runs all tasks until ctx ends or one of them fails, which ends the others.
func (a *agent) work(ctx context.Context) error {
	resets := &flycast.Resets{Source: a.tables, Sender: a.raw, Log: a.log}
	tasks := []task{
		{"embedded store", a.waitStore},
		{"store", a.followState},
		{"presence", a.keepPresent},
		{"members of the store", a.followStore},
		{"voters", a.keepVoters},
		{"health of the store", a.watchMembers},
		{"certificate", a.keepCertificate},
		{"other hosts", a.serveFleet},
		{"tables", a.loop.Run},
		{"machines", a.manager.Run},
		{"flow expiry", a.pacer.Run},
		{"flow resets", resets.Run},
		{"drop events", a.watchDrops},
		{"pins", a.repairPins},
		{"names", a.serveNames},
		{"metrics", a.serveMetrics},
		{"health checks", a.checkHealth},
		{"cordons", func(ctx context.Context) error { return a.store.EndCordons(ctx, a.host.ID, 0) }},
		{"round trips", a.measureRoundTrips},
		{"api", a.serveAPI},
	}
	if a.mesh != nil {
		tasks = append(tasks, task{"mesh engine", a.mesh.Run}, task{"mesh port", a.keepMeshPort}, task{"mesh peers", a.keepPeers})
	}
	if a.native != nil {
		tasks = append(tasks, task{"native mesh", a.keepNative}, task{"frames of XDP", a.keepXDP})
	}
	if a.exchange != nil {
		tasks = append(tasks, task{"load of other hosts", a.exchangeLoad})
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() error {
			err := t.run(ctx)
			if ctx.Err() != nil {
				err = withoutCancel(err)
			} else if err == nil {
				err = errEnded
			}
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// withoutCancel leaves out the error that only says that the context ended.
func withoutCancel(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
