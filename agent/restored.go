package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sixpn/sixpn/state"
)

// followState is the life of the snapshot. When the store is restored from a backup the
// agent begins again, with those endpoints alone that the restored one answers at: what
// is left of the store of before may still answer at the others.
func (a *agent) followState(ctx context.Context) error {
	err := a.store.Run(ctx)
	var restored *state.RestoredError
	if a.fleet == nil || !errors.As(err, &restored) {
		return err
	}
	var endpoints []string
	for _, endpoint := range a.fleet.Endpoints() {
		if cluster, err := state.ClusterOf(ctx, a.client, endpoint); err == nil && cluster == restored.Cluster {
			endpoints = append(endpoints, endpoint)
		}
	}
	if keepErr := a.fleet.SetEndpoints(endpoints); keepErr != nil {
		a.log.Warn("the fleet's directory cannot be written", "error", keepErr)
	}
	return err
}

// dropOldMember puts this host's member of a store aside that another one has taken the
// place of: it could only wait for the others of that time.
func (a *agent) dropOldMember() error {
	known := a.store.Cluster()
	if a.member == nil || known == 0 || a.member.ClusterID() == known {
		return nil
	}
	member := a.member
	a.member = nil
	if err := member.Close(); err != nil {
		a.log.Debug("the member of the old store was closed", "error", err)
	}
	aside, err := a.config.setStoreAside()
	if err == nil {
		a.log.Warn("this host's member of the store of before is put aside: that was restored from a backup", "in", aside)
	}
	return err
}

// setStoreAside keeps the store of this host, if it has one, under another name.
func (c *Config) setStoreAside() (aside string, err error) {
	if _, err := os.Stat(c.storeDir()); err != nil {
		return "", nil
	}
	aside = fmt.Sprintf("%s.before-%s", c.storeDir(), time.Now().UTC().Format("20060102T150405Z"))
	return aside, os.Rename(c.storeDir(), aside)
}
