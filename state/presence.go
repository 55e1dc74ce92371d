package state

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// presence is the record that a host's lease keeps.
type presence struct {
	// Session is random, of one run of the host's agent.
	Session string `json:"session"`
}

// mustBeAlone refuses a host that joins as one whose lease another agent keeps alive
// from elsewhere: AtWorkElsewhere. The same endpoint is the same host, whose agent began
// again.
func (t *transaction) mustBeAlone(record Host, h NewHost, session string) error {
	if h.Endpoint == "" || record.Endpoint == "" || h.Endpoint == record.Endpoint {
		return nil
	}
	alive, found, err := load[presence](t, keyAlive(record.ID))
	if err != nil || !found || alive.Value.Session == session {
		return err
	}
	return refuse(Conflict, fieldEndpoint, "host %v is at work at %s, and this host, at %s, says that it is the same one: if it is, and has moved, wait until the old lease is over and try again; else its state directory is a copy, and it must start with an empty one", record.ID, record.Endpoint, h.Endpoint)
}

const fieldEndpoint = "endpoint"

// AtWorkElsewhere says that a host was not registered because one with its number has a
// lease at another endpoint: be it that it has moved, until the lease is over, or that one
// of two is a copy, for as long as the other one works.
func AtWorkElsewhere(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Kind == Conflict && refused.Field == fieldEndpoint
}

// How a host's lease is kept, unless told otherwise.
const (
	DefaultPresenceTTL      = 10 * time.Second
	DefaultPresenceInterval = 2 * time.Second
)

// PresenceConfig says how a host's lease is kept.
type PresenceConfig struct {
	TTL      time.Duration // from the last heartbeat; whole seconds, rounded up. 0: DefaultPresenceTTL
	Interval time.Duration // between heartbeats, below TTL. 0: DefaultPresenceInterval
}

// KeepAlive keeps the lease of this host, and makes it anew whenever it is over, until
// the context ends. The lease is not given back then: an agent that begins again within
// the TTL was never away. It ends with an error of kind NotFound when the host was
// removed from the fleet, and of kind Conflict when another agent has said since that it
// is this host; nothing else ends it.
func (s *Store) KeepAlive(ctx context.Context, host sixpn.Host, p PresenceConfig) error {
	p.TTL, p.Interval = orDefault(p.TTL, DefaultPresenceTTL), orDefault(p.Interval, DefaultPresenceInterval)
	if p.Interval <= 0 || p.Interval >= p.TTL {
		return refuse(Invalid, "interval", "a heartbeat every %v does not keep a lease of %v alive: expected less, a fifth for example", p.Interval, p.TTL)
	}
	s.SetHost(host)
	k := keeper{store: s, host: host, ttl: p.TTL}
	ticker := time.NewTicker(p.Interval)
	defer ticker.Stop()
	failing := false
	for {
		err := k.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case KindOf(err) == NotFound, KindOf(err) == Conflict:
			return err
		case err != nil && !failing:
			s.log.Warn("the store does not take this host's heartbeats: without them the others leave it out", "error", err, "again_in", p.Interval)
		case err == nil && failing:
			s.log.Info("the store takes this host's heartbeats again")
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keeper is the state of KeepAlive.
type keeper struct {
	store    *Store
	host     sixpn.Host
	ttl      time.Duration
	lease    clientv3.LeaseID // 0: none
	revision int64            // of the last write of the key, 0 before the first
}

func (k *keeper) beat(ctx context.Context) error {
	// A request that hangs must not take the next ones' time.
	ctx, cancel := context.WithTimeout(ctx, k.ttl/2)
	defer cancel()
	if k.lease != 0 && !k.overruled() {
		_, err := k.store.client.KeepAliveOnce(ctx, k.lease)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
		k.store.log.Warn("the lease of this host was over: the others have left it out meanwhile", "host", k.host)
	}
	return k.establish(ctx)
}

// overruled is whether the key is not as this keeper wrote it, as far as the snapshot
// knows.
func (k *keeper) overruled() bool {
	s := k.store.Snapshot()
	return s.Revision >= k.revision && s.alive[k.host].Session != k.store.session
}

// establish writes the key with a new lease.
func (k *keeper) establish(ctx context.Context) error {
	lease, err := k.store.client.Grant(ctx, int64((k.ttl+time.Second-1)/time.Second))
	if err != nil {
		return unavailable("keep host "+k.host.String()+" alive", err)
	}
	revision, err := k.store.transact(ctx, "alive", "keep host "+k.host.String()+" alive", func(t *transaction) error {
		if err := t.mustBeKnown(); err != nil {
			return err
		}
		if _, found, err := load[Host](t, keyHost(k.host)); err != nil {
			return err
		} else if !found {
			return refuse(NotFound, "host", "this host, %v, was removed from the fleet: clear it with `sixpn agent reset`, and join again with an empty state directory", k.host)
		}
		old, found, err := load[presence](t, keyAlive(k.host))
		if err != nil {
			return err
		}
		if found && k.revision != 0 && old.Value.Session != k.store.session {
			return refuse(Conflict, "host", "another agent says that it is host %v too, and this one gives way: one of the two state directories is a copy; start that host with an empty one", k.host)
		}
		value, err := json.Marshal(presence{Session: k.store.session})
		if err == nil {
			t.writes = append(t.writes, clientv3.OpPut(keyAlive(k.host), string(value), clientv3.WithLease(lease.ID)))
		}
		return err
	})
	if err != nil {
		return err
	}
	k.lease, k.revision = lease.ID, revision
	return nil
}
