package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// RegisterHost is JoinHost without a token.
func (s *Store) RegisterHost(ctx context.Context, name, region string, known sixpn.Host) (Host, int64, error) {
	return s.JoinHost(ctx, NewHost{Name: name, Region: region, Known: known})
}

// NewHost is what a host says of itself when its agent starts.
type NewHost struct {
	Name   string
	Region string
	Known  sixpn.Host // the number it was given before, 0 if it knows of none
	// Token is random, made once and kept by the host before it first registers. It
	// finds the host's number again when the agent was killed between the registration
	// and keeping its answer.
	Token string
	// What follows may be empty: the record then keeps what it has.
	PublicKey string // see Host
	Endpoint  string
	Version   string
	// CertificateKey is the function of this name of the host's certificate.
	CertificateKey string
	// Mesh is how the host sends to the Endpoints of others. One that is native has no
	// key, so that nobody makes a peer of it.
	Mesh MeshMode
	// Gateway is whether the host's agent runs a gateway for WireGuard peers, now.
	Gateway bool
}

// JoinHost gives a host its number, for good. With a known number it asserts the
// record again: the rest may have changed meanwhile, the number never. It is refused
// while another agent, at another endpoint, keeps the lease of that number alive: the
// state directory of one of the two is a copy.
func (s *Store) JoinHost(ctx context.Context, h NewHost) (Host, int64, error) {
	if err := validateNewHost(h); err != nil {
		return Host{}, 0, err
	}
	var record Record[Host]
	created := now()
	revision, err := s.transact(ctx, creating, "register host "+h.Name, func(t *transaction) error {
		if err := t.nameFleet(); err != nil {
			return err
		}
		var found bool
		var err error
		if record, found, err = t.sameHost(h); err != nil {
			return err
		}
		if found {
			if err := t.mustBeAlone(record.Value, h, s.session); err != nil {
				return err
			}
		} else {
			record = Record[Host]{Value: Host{CreatedAt: created, Token: h.Token}}
			n, err := t.number(counterHosts, uint32(sixpn.FirstHost))
			if err != nil {
				return err
			}
			record.Value.ID = sixpn.Host(n)
		}
		before := record.Value
		after := &record.Value
		after.Name, after.Region = h.Name, h.Region
		after.PublicKey = cmp.Or(h.PublicKey, before.PublicKey)
		after.Endpoint = cmp.Or(h.Endpoint, before.Endpoint)
		after.Version = cmp.Or(h.Version, before.Version)
		after.CertificateKey = cmp.Or(h.CertificateKey, before.CertificateKey)
		if h.Endpoint != "" {
			after.Mesh = h.Mesh
		}
		after.Gateway = h.Gateway
		if after.Mesh == MeshNative {
			after.PublicKey = ""
		}
		if *after == before {
			return nil
		}
		if err := t.rename(after.ID, nameHost, before.Name, after.Name); err != nil {
			return err
		}
		if err := t.rename(after.ID, nameHostKey, before.PublicKey, after.PublicKey); err != nil {
			return err
		}
		return write(t, keyHost(after.ID), record)
	})
	if err != nil {
		return Host{}, 0, err
	}
	if revision == 0 { // nothing was new
		revision = record.ModRevision
	}
	return record.Value, revision, nil
}

// sameHost finds the record of a host that joins, if it has one.
func (t *transaction) sameHost(h NewHost) (record Record[Host], found bool, err error) {
	owner, err := t.owner(nameHost(h.Name))
	if err != nil {
		return record, false, err
	}
	number := cmp.Or(h.Known, sixpn.Host(owner))
	if number != 0 {
		if record, found, err = load[Host](t, keyHost(number)); err != nil {
			return record, false, err
		}
	}
	switch {
	case h.Known != 0 && !found:
		return record, false, refuse(NotFound, "host", "the store knows no host %v, which this host says it is: it was removed by `sixpn hosts remove`, its state directory belongs to another fleet, or the store was lost; start with an empty state directory to join as a new host", h.Known)
	case h.Known != 0 && h.Token != "" && record.Value.Token != "" && h.Token != record.Value.Token:
		return record, false, refuse(Conflict, "host", "host %v of this store is another one (%s) than this host: the state directory belongs to another fleet; start with an empty one to join as a new host", h.Known, record.Value.Name)
	case h.Known == 0 && found:
		found = h.Token != "" && record.Value.Token == h.Token
	}
	if owner != 0 && (!found || owner != uint32(record.Value.ID)) {
		return record, false, refuse(Conflict, "host", "the name %q is that of host %v: give this host another name, or, if that host is lost for good, take it out with `sixpn hosts remove %s`", h.Name, sixpn.Host(owner), h.Name)
	}
	return record, found, nil
}

// rename passes a unique name of a host on from its old value to its new one, "" for none.
func (t *transaction) rename(id sixpn.Host, key func(string) string, before, after string) error {
	switch {
	case before == after:
		return nil
	case after == "":
		t.remove(key(before))
		return nil
	}
	owner, err := t.owner(key(after))
	if err != nil {
		return err
	}
	if owner != 0 && sixpn.Host(owner) != id {
		return refuse(Conflict, "public_key", "the key of the mesh is that of host %v already: the state directory of one of the two is a copy; start this host with an empty one", sixpn.Host(owner))
	}
	if before != "" {
		t.remove(key(before))
	}
	t.put(key(after), hex8(id))
	return nil
}

// SetDraining says whether a host is kept from taking new Machines. Those that it has
// stay.
func (s *Store) SetDraining(ctx context.Context, id sixpn.Host, draining bool) (int64, error) {
	var record Record[Host]
	revision, err := s.transact(ctx, creating, "drain host "+id.String(), func(t *transaction) error {
		var err error
		if record, err = t.host(id); err != nil || record.Value.Draining == draining {
			return err
		}
		record.Value.Draining = draining
		return write(t, keyHost(id), record)
	})
	if err == nil && revision == 0 {
		revision = record.ModRevision
	}
	return revision, err
}

// RemoveHost takes a host out of the fleet. Its number is never given out again, and
// an agent that says it is that host is refused from then on; so is its certificate, by
// every member of the store and every host. While Machines are on the host it is refused, unless force is set and the host is lost, which is that its
// lease is over: then it is drained, and its Machines are removed with it, whatever
// they were doing and whoever has leases of them. What was removed stays so when that
// ends half-way; it can be asked for again.
func (s *Store) RemoveHost(ctx context.Context, id sixpn.Host, force bool) (int64, error) {
	if force {
		if err := s.abandon(ctx, id); err != nil {
			return 0, err
		}
	}
	return s.transact(ctx, creating, "remove host "+id.String(), func(t *transaction) error {
		record, err := t.emptyHost(id)
		if err != nil {
			return err
		}
		t.remove(keyHost(id))
		t.remove(keyAlive(id))
		t.remove(changedHostMachines(id))
		t.remove(nameHost(record.Value.Name))
		if record.Value.PublicKey != "" {
			t.remove(nameHostKey(record.Value.PublicKey))
		}
		return t.forgetInvitations(record.Value)
	})
}

// MayRemoveHost is why RemoveHost would refuse to, without force.
func (s *Store) MayRemoveHost(ctx context.Context, id sixpn.Host) error {
	_, err := s.transact(ctx, "", "look at host "+id.String(), func(t *transaction) error {
		_, err := t.emptyHost(id)
		return err
	})
	return err
}

// emptyHost is a host that no Machine is on.
func (t *transaction) emptyHost(id sixpn.Host) (Record[Host], error) {
	record, err := t.host(id)
	if err != nil {
		return record, err
	}
	machines, err := t.count(indexHostMachines(id))
	if err == nil && machines > 0 {
		err = refuse(Conflict, "host", "the host %s has Machines (%d): destroy or migrate them first, or, if it is lost for good, remove it with `sixpn hosts remove --force %s`", record.Value.Name, machines, record.Value.Name)
	}
	return record, err
}

// abandon removes the Machines of a lost host, one by one: together they may be more
// writes than a transaction takes. First the host is drained, so that none comes.
func (s *Store) abandon(ctx context.Context, id sixpn.Host) error {
	if _, err := s.transact(ctx, creating, "remove host "+id.String(), func(t *transaction) error {
		record, err := t.lostHost(id)
		if err != nil || record.Value.Draining {
			return err
		}
		record.Value.Draining = true
		return write(t, keyHost(id), record)
	}); err != nil {
		return err
	}
	machines, err := s.client.Get(ctx, indexHostMachines(id), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return unavailable("remove host "+id.String(), err)
	}
	for _, kv := range machines.Kvs {
		machine := string(kv.Key[len(indexHostMachines(id)):])
		if err := s.abandonMachine(ctx, id, machine); err != nil {
			return fmt.Errorf("machine %s of host %v: %w", machine, id, err)
		}
	}
	return nil
}

// abandonMachine removes a Machine while its host is lost. One that is gone, or on
// another host by now, is no error.
func (s *Store) abandonMachine(ctx context.Context, host sixpn.Host, id string) error {
	_, err := s.removeMachine(ctx, id, true, func(t *transaction, m Machine) error {
		if m.Host != host {
			return errElsewhere
		}
		_, err := t.lostHost(host)
		return err
	})
	if errors.Is(err, errElsewhere) || KindOf(err) == NotFound {
		return nil
	}
	return err
}

var errElsewhere = errors.New("the Machine is on another host")

// host reads the record of a host that there must be.
func (t *transaction) host(id sixpn.Host) (Record[Host], error) {
	record, found, err := load[Host](t, keyHost(id))
	if err == nil && !found {
		err = refuse(NotFound, "host", "there is no host %v: `sixpn hosts list` shows them", id)
	}
	return record, err
}

// lostHost is host for one whose lease must be over.
func (t *transaction) lostHost(id sixpn.Host) (Record[Host], error) {
	record, err := t.host(id)
	if err != nil {
		return record, err
	}
	alive, _, err := t.get(keyAlive(id))
	if err == nil && alive != nil {
		err = refuse(Conflict, "host", "the host %s is not lost, its agent answers: destroy or migrate its Machines, then remove it without force", record.Value.Name)
	}
	return record, err
}
