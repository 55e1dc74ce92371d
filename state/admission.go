package state

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// CertificateKey is what the fleet knows a host by, when it shows its certificate: the
// SHA-256 of the public key in it, in hex. It stays when the certificate is renewed, no
// other host can have it, and it does not help to be able to sign certificates.
func CertificateKey(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// HostOf finds the host that a certificate is of, by its key. It does not look at who
// signed it.
func (s *Snapshot) HostOf(c *x509.Certificate) (Host, bool) { return s.hostWithKey(CertificateKey(c)) }

func (s *Snapshot) hostWithKey(key string) (Host, bool) {
	for _, h := range s.Hosts {
		if h.CertificateKey == key {
			return h, true
		}
	}
	return Host{}, false
}

// JoinAgain is what to do on a host whose certificate is refused.
const JoinAgain = "it was removed, or never came while its invitation was good, or the store was restored from a backup that does not know it; if it is to be of the fleet, stop its agent, remove the directory \"fleet\" in its state directory, and start it with --join and a new token"

var errNotAdmitted = errors.New("the key of this certificate is that of no host of the fleet")

// admission is who may talk to this host's member of the store, by what the member itself
// holds: the hosts that have a record, and those on their way to one. It reads from its
// own disk and asks nobody, so that members which start together hear each other before
// one of them is elected.
type admission struct {
	client  *clientv3.Client // of this member alone, without a socket
	member  *mortal
	known   func() *Store // what the agent has read, see newer
	cluster uint64
	log     *slog.Logger
	changed func() // called when somebody may be admitted no more

	mu       sync.Mutex
	revision int64                 // of what follows
	hosts    map[string]recorded   // by the key of the host's record
	invited  map[string]Invitation // that were used, by their keys
}

// recorded is what the record of a host says.
type recorded struct {
	key string     // of its certificate
	at  netip.Addr // invalid: it does not say
}

func recordedOf(h Host) recorded { return recorded{h.CertificateKey, h.addr()} }

// addr is where a host is between hosts; invalid: its record does not say.
func (h Host) addr() netip.Addr {
	at, _ := netip.ParseAddrPort(h.Endpoint)
	return at.Addr()
}

// HostAt says whether a host is at this address between hosts.
func (s *Snapshot) HostAt(a netip.Addr) bool {
	for _, h := range s.Hosts {
		if h.addr() == a {
			return true
		}
	}
	return false
}

// admits says whether the host of this key may talk to the member now.
func (a *admission) admits(key string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hasRecord(key) || !a.invitedUntil(key).IsZero() {
		return nil
	}
	return errNotAdmitted
}

// newer is what the agent has read, if it knows more than this member: one that was away, or
// is new, may hold a state of long ago, in which the others are not yet hosts, or no host was
// removed yet. nil: it does not.
func (a *admission) newer() *Snapshot {
	if a.known == nil {
		return nil
	}
	store := a.known()
	if store == nil || store.Cluster() != a.cluster {
		return nil
	}
	if snapshot := store.Snapshot(); snapshot.Revision > a.revision {
		return snapshot
	}
	return nil
}

func (a *admission) hasRecord(key string) bool {
	if snapshot := a.newer(); snapshot != nil {
		_, found := snapshot.hostWithKey(key)
		return found
	}
	for _, h := range a.hosts {
		if h.key == key {
			return true
		}
	}
	return false
}

// spares says whether a host of the fleet is at this address.
func (a *admission) spares(at netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if snapshot := a.newer(); snapshot != nil {
		return snapshot.HostAt(at)
	}
	for _, h := range a.hosts {
		if h.at == at {
			return true
		}
	}
	return false
}

// invitedUntil is until when a host counts as on its way in, zero for one that is not.
func (a *admission) invitedUntil(key string) (until time.Time) {
	for _, i := range a.invited {
		if end := i.admitsUntil(); i.UsedBy == key && end.After(now()) && end.After(until) {
			until = end
		}
	}
	return until
}

// next is when somebody's time is over who is on the way in, zero if nobody is.
func (a *admission) next() (next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range a.invited {
		if end := i.admitsUntil(); end.After(now()) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// admissionPause is before the member's own state is read again after an error.
const admissionPause = 100 * time.Millisecond

// follow keeps up with the member until the context ends.
func (a *admission) follow(ctx context.Context) {
	for {
		if err := a.watch(ctx); ctx.Err() == nil {
			a.log.Debug("who is in the fleet is read again", "because", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(admissionPause):
		}
		if err := a.read(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("who is in the fleet cannot be read: nobody new is let into the store", "error", err)
		}
		a.changed()
	}
}

// read begins anew with all that the member holds. Its answer needs no other member.
func (a *admission) read(ctx context.Context) (err error) {
	if a.member.ended() {
		return errEndedMember
	}
	defer a.member.survive(&err)
	got, err := a.client.Get(ctx, admissionFrom, admissionRange, clientv3.WithSerializable())
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision, a.hosts, a.invited = got.Header.Revision, map[string]recorded{}, map[string]Invitation{}
	for _, kv := range got.Kvs {
		a.put(kv)
	}
	return nil
}

// Invitations and hosts are read and watched as one range, so that neither is ever newer
// than the other. The few keys between them are passed over.
const admissionFrom = keyInvitations

var admissionRange = clientv3.WithRange(clientv3.GetPrefixRangeEnd(keyHosts()))

// put takes a record. Of one that cannot be read nobody is admitted.
func (a *admission) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	delete(a.hosts, key)
	delete(a.invited, key)
	if strings.HasPrefix(key, keyInvitations) {
		if i, err := readable[Invitation](key, kv.Value, kv.ModRevision); err == nil && i.Value.UsedBy != "" {
			a.invited[key] = i.Value
		}
	} else if parseKey(key).kind == kindHost {
		if h, err := readable[Host](key, kv.Value, kv.ModRevision); err == nil && h.Value.CertificateKey != "" {
			a.hosts[key] = recordedOf(h.Value)
		}
	}
}

// watch takes what changes, and ends when it is to be read anew.
func (a *admission) watch(ctx context.Context) (err error) {
	defer a.member.survive(&err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := a.client.Watch(ctx, admissionFrom, admissionRange, clientv3.WithRev(a.revision+1))
	for {
		var over <-chan time.Time
		if next := a.next(); !next.IsZero() {
			over = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			a.changed()
		case response := <-events:
			if err := response.Err(); err != nil || len(response.Events) == 0 {
				return errors.Join(err, errors.New("the watch has ended"))
			}
			if a.take(response) {
				a.changed()
			}
		}
	}
}

// take says whether somebody may be admitted no more.
func (a *admission) take(response clientv3.WatchResponse) (fewer bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range response.Events {
		key := string(e.Kv.Key)
		host, invited := a.hosts[key].key, a.invited[key].UsedBy
		if e.Type == clientv3.EventTypeDelete {
			delete(a.hosts, key)
			delete(a.invited, key)
		} else {
			a.put(e.Kv)
		}
		fewer = fewer || host != a.hosts[key].key && host != "" || invited != a.invited[key].UsedBy && invited != ""
	}
	a.revision = response.Header.Revision
	return fewer
}
