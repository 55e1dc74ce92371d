package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// openStore connects to the store, reads all of it, and finds out which host this is.
// The store is the operator's (--store), else that of the fleet which this host has
// joined, else its own.
func (a *agent) openStore(ctx context.Context) (err error) {
	a.closers = append(a.closers, a.closeStore)
	switch {
	case len(a.config.Store) > 0:
		err = a.openOperatorsStore(ctx)
	case a.fleet != nil && a.fleet.Joined():
		err = a.openJoinedStore(ctx)
	default:
		err = a.openOwnStore(ctx, a.fleet != nil && a.fleet.Ready())
	}
	if err != nil {
		return err
	}
	if err := a.foundFleet(ctx); err != nil {
		return err
	}
	if a.host, err = a.register(ctx); err != nil {
		return err
	}
	a.store.SetHost(a.host.ID)
	// The snapshot is older than the registration; whoever looks this host up needs it.
	a.log.Info("this host", "id", a.host.ID, "name", a.host.Name, "region", a.host.Region)
	return nil
}

// openOwnStore starts the embedded store; heard by other hosts once there is a
// certificate to be heard with.
func (a *agent) openOwnStore(ctx context.Context, heard bool) (err error) {
	c := state.EmbeddedConfig{Dir: a.config.storeDir(), Log: a.log}
	if heard {
		c.Listen = a.fleet.Listen(a.read.Load)
	}
	if a.embedded, err = state.StartEmbedded(ctx, c); err != nil {
		return err
	}
	a.client = a.embedded.Client()
	return a.readStore(ctx)
}

// readStore reads all of the store, or the last state on disk while it is away.
func (a *agent) readStore(ctx context.Context) (err error) {
	known, err := readIdentity(a.config.identityPath())
	if err != nil {
		return fmt.Errorf("read which host this is: %w", err)
	}
	a.store, err = state.OpenStore(ctx, state.StoreConfig{
		Client: a.client, Log: a.log, Host: known.Host, Window: a.config.Timeouts.HostExpiry,
		Grace: a.config.lossGrace(), File: a.config.lastStatePath(), Partial: true, Refused: a.refused,
	})
	if err != nil {
		return err
	}
	a.read.Store(a.store)
	// It has the client of the store, so it ends before that.
	a.whole = state.NewWhole(a.store, 0)
	a.closers = append(a.closers, func() error { a.whole.Close(); return nil })
	return nil
}

func (a *agent) openJoinedStore(ctx context.Context) (err error) {
	a.openMember(ctx)
	c := state.RemoteConfig{Fleet: true, Endpoints: a.fleet.Endpoints(), TLS: a.fleet.ClientTLS(), MayBeAway: true, Patience: awayPatience, Log: a.log}
	err = a.openRemoteStore(ctx, c)
	if _, lost := os.Stat(a.config.lastStatePath()); state.KindOf(err) == state.Conflict && a.client == nil && lost == nil {
		// It may be a mistake of a member that was away: what runs here goes on.
		a.log.Error("the store refuses this host, which goes on by the last state on disk", "error", err)
		c.Lazy = true
		err = a.openRemoteStore(ctx, c)
	}
	if err != nil {
		return err
	}
	return a.dropOldMember()
}

// refused says why the fleet's store does not take this host for one of the fleet, nil if it
// does, or cannot be asked.
func (a *agent) refused() error {
	if a.fleet == nil || !a.fleet.Joined() || len(a.config.Store) > 0 {
		return nil
	}
	return state.Refusal(state.RemoteConfig{Fleet: true, Endpoints: a.fleet.Endpoints(), TLS: a.fleet.ClientTLS()})
}

// awayPatience is how long a start waits for a store that it can do without.
const awayPatience = 3 * time.Second

func (a *agent) openOperatorsStore(ctx context.Context) error {
	c := state.RemoteConfig{Endpoints: a.config.Store, Log: a.log}
	c.User, c.Password, _ = strings.Cut(a.config.StoreUser, ":")
	var err error
	if c.TLS, err = a.config.storeTLS(); err != nil {
		return err
	}
	return a.openRemoteStore(ctx, c)
}

func (a *agent) openRemoteStore(ctx context.Context, c state.RemoteConfig) (err error) {
	if a.client, err = state.OpenRemote(ctx, c); err != nil {
		return err
	}
	return a.readStore(ctx)
}

// closeStore lets go of whichever store it is.
func (a *agent) closeStore() error {
	if a.embedded != nil {
		return a.embedded.Close()
	}
	var errs []error
	if a.client != nil {
		errs = append(errs, a.client.Close())
	}
	if a.member != nil {
		errs = append(errs, a.member.Close())
	}
	return errors.Join(errs...)
}

// storeTLS is how an operator's store is called. The files are read for each
// connection, so that a renewed certificate counts at once.
func (c *Config) storeTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.StoreCA != "" {
		content, err := os.ReadFile(c.StoreCA)
		if err != nil {
			return nil, &ConfigError{Key: "store_ca", Value: c.StoreCA, Message: fmt.Sprintf("it cannot be read: %v", err)}
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(content) {
			return nil, &ConfigError{Key: "store_ca", Value: c.StoreCA, Message: "expected certificates in PEM"}
		}
	}
	if c.StoreCert == "" {
		return config, nil
	}
	key := c.StoreKey
	setDefault(&key, c.StoreCert)
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.StoreCert, key)
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, &ConfigError{Key: "store_cert", Value: c.StoreCert, Message: fmt.Sprintf("expected a certificate and its key in PEM: %v", err)}
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return config, nil
}

// leaseSlack is how late the store may be in ending a lease: it looks every half second.
const leaseSlack = 500 * time.Millisecond

// lossGrace is within which leases end of hosts that lost the store at one moment: each
// had its last heartbeat at another one.
func (c *Config) lossGrace() time.Duration { return c.Timeouts.Heartbeat + leaseSlack }

// leaseTTL is what is left of the time after which a host counts as gone: the store is
// late, and the others wait for the grace. It holds two heartbeats at least, which for
// short times goes before the sum.
func (c *Config) leaseTTL() time.Duration {
	ttl := (c.Timeouts.HostExpiry - leaseSlack - c.lossGrace()).Truncate(time.Second)
	return max(ttl, min(c.Timeouts.HostExpiry, 2*c.Timeouts.Heartbeat))
}

// keepPresent has the other hosts know that this one is there. What the store did not
// take at the start, because it was away, it is told first.
func (a *agent) keepPresent(ctx context.Context) error {
	for a.unregistered {
		host, err := a.outlive(ctx, never)
		if err == nil {
			a.log.Info("this host is registered again", "id", host.ID)
			break
		}
		if state.KindOf(err) != state.Unavailable {
			return err
		}
		select {
		case <-time.After(a.config.Timeouts.Heartbeat):
		case <-ctx.Done():
			return nil
		}
	}
	return a.store.KeepAlive(ctx, a.host.ID, state.PresenceConfig{TTL: a.config.leaseTTL(), Interval: a.config.Timeouts.Heartbeat})
}

// waitStore is the life of the embedded store, if there is one.
func (a *agent) waitStore(ctx context.Context) error {
	if a.embedded != nil {
		err := a.embedded.Wait(ctx)
		if refusal := a.refused(); err != nil && ctx.Err() == nil && refusal != nil {
			return refusal
		}
		return err
	}
	<-ctx.Done()
	return nil
}

// healthTimeout is how long a scrape waits for a store that runs elsewhere.
const healthTimeout = time.Second

func (a *agent) storeHealth() state.Health {
	if a.embedded != nil {
		return a.embedded.Health()
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	return state.RemoteHealth(ctx, a.client)
}

// followStore remembers where the store of the fleet is, as its members come and go:
// the next start must find one that is there.
func (a *agent) followStore(ctx context.Context) error {
	if a.fleet == nil || len(a.config.Store) > 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(a.config.Timeouts.Members)
	defer ticker.Stop()
	for {
		if endpoints, err := storeEndpoints(ctx, a.client); err != nil {
			a.log.Debug("the members of the store cannot be read", "error", err)
		} else if a.fleet.Joined() || len(endpoints) > 1 {
			if a.embedded == nil && len(endpoints) > 0 && !slices.Equal(endpoints, a.client.Endpoints()) {
				a.client.SetEndpoints(slices.Clone(endpoints)...) // which keeps them
			}
			if err := a.fleet.SetEndpoints(endpoints); err != nil {
				a.log.Warn("the fleet's directory cannot be written", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// membersTimeout is for one look at the members of the store.
const membersTimeout = 5 * time.Second

func storeEndpoints(ctx context.Context, client *clientv3.Client) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, membersTimeout)
	defer cancel()
	return state.StoreEndpoints(ctx, client)
}
