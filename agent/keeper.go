package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/state"
)

// keeper is the API's view of the store itself.
type keeper struct{ *agent }

var _ api.Keeper = keeper{}

// statusTimeout is for a store that may be away.
const statusTimeout = 5 * time.Second

// StoreStatus is api.Keeper.
func (k keeper) StoreStatus(ctx context.Context) (api.StoreStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var others *tls.Config
	if k.fleet != nil && k.fleet.Ready() {
		others = k.fleet.ClientTLS()
	}
	members, err := state.StoreStatus(ctx, k.client, others)
	if err != nil {
		return api.StoreStatus{}, err
	}
	status := api.StoreStatus{Kind: api.StoreStatusKindFleet, Majority: state.HasMajority(members)}
	switch {
	case len(k.config.Store) > 0:
		status.Kind = api.StoreStatusKindCluster
	case k.fleet == nil:
		status.Kind = api.StoreStatusKindHost
	}
	hosts := map[string]string{} // names by where their members would be
	for _, h := range k.store.Snapshot().Hosts {
		if at, err := netip.ParseAddrPort(h.Endpoint); err == nil {
			hosts[state.StoreURL(at)] = h.Name
		}
	}
	for _, m := range members {
		shown := api.StoreMember{
			ID: strconv.FormatUint(m.ID, 16), Host: hosts[m.Endpoint], Endpoint: m.Endpoint, Role: api.StoreMemberRoleVoter,
			Answers: m.Err == nil, AnswerMs: milliseconds(m.Took), Revision: m.Revision, Bytes: m.Bytes, Version: m.Version,
		}
		switch {
		case m.Learner:
			shown.Role = api.StoreMemberRoleLearner
		case m.Leader:
			shown.Role = api.StoreMemberRoleLeader
		}
		switch {
		case status.Kind == api.StoreStatusKindHost:
			shown.Host = k.host.Name
		case status.Kind == api.StoreStatusKindCluster:
			shown.Host = m.Name
		}
		if m.Err != nil {
			shown.Error = m.Err.Error()
		}
		status.Revision = max(status.Revision, m.Revision)
		status.Members = append(status.Members, shown)
	}
	return status, nil
}

// Export is api.Keeper.
func (k keeper) Export(ctx context.Context, w io.Writer) error {
	_, err := state.Export(ctx, k.client, w)
	return err
}

// ImportStore writes an export into an etcd cluster of the operator's, the one that the
// configuration names, and says how many records it has.
func ImportStore(ctx context.Context, c Config, r io.Reader) (records int, err error) {
	if err := c.complete(); err != nil {
		return 0, err
	}
	if len(c.Store) == 0 {
		return 0, &ConfigError{Key: "store", Message: "expected the endpoints of the cluster to import into"}
	}
	exported, err := state.ReadExport(r)
	if err != nil {
		return 0, err
	}
	remote := state.RemoteConfig{Endpoints: c.Store, Log: c.Log}
	remote.User, remote.Password, _ = strings.Cut(c.StoreUser, ":")
	if remote.TLS, err = c.storeTLS(); err != nil {
		return 0, err
	}
	client, err := state.OpenRemote(ctx, remote)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	return exported.Len(), exported.Import(ctx, client)
}

// Restored is what RestoreStore did.
type Restored struct {
	Records  int
	Revision int64     // of the export
	At       time.Time // when it was made
	Aside    string    // where the store of before is, "" if there was none
}

// RestoreStore makes a new store for this host out of an export, in place of the one it
// has; no agent may run. The host is the first of its fleet then, whoever was before.
// An export that is not whole changes nothing, and the old store is kept.
func RestoreStore(ctx context.Context, c Config, r io.Reader) (Restored, error) {
	if err := c.complete(); err != nil {
		return Restored{}, err
	}
	exported, err := state.ReadExport(r)
	if err != nil {
		return Restored{}, err
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return Restored{}, fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := loader.Lock(c.StateDir)
	if err != nil {
		return Restored{}, fmt.Errorf("agent %q: %w", c.Name, err)
	}
	defer lock.Close()
	done := Restored{Records: exported.Len(), Revision: exported.Revision, At: exported.At}
	unfinished := c.storeDir() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return Restored{}, err
	}
	if err := exported.Restore(ctx, state.EmbeddedConfig{Dir: unfinished, Log: c.Log}); err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(unfinished))
	}
	if done.Aside, err = c.setStoreAside(); err != nil {
		return Restored{}, err
	}
	// Where the old store was, and what another fleet's held. What this fleet's held is of
	// use: the agent brings what this host has that came after the export.
	outdated := []string{filepath.Join(c.fleetDir(), fleet.MemberFile)}
	if state.LastFleet(c.lastStatePath()) != exported.Fleet() {
		outdated = append(outdated, c.lastStatePath())
	}
	for _, old := range outdated {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return done, err
		}
	}
	return done, os.Rename(unfinished, c.storeDir())
}

// RestoreStore reads the sources and does what the function RestoreStore does.
func (s *Sources) RestoreStore(ctx context.Context, log io.Writer, r io.Reader) (Restored, error) {
	loaded, err := s.Load()
	if err != nil {
		return Restored{}, err
	}
	loaded.Config.Log, _ = loaded.Config.Logger(log)
	return RestoreStore(ctx, loaded.Config, r)
}
