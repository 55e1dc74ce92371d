package state

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

const (
	// readPage is how many records one request of a full read asks for.
	readPage = 1000
	// readAttempts is how often a full read starts again when the revision it reads is
	// compacted meanwhile.
	readAttempts = 5
	// A failed watch or read is tried again after these, doubling from one to the other.
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
)

// Run keeps the snapshot current until the context ends. While the store is away
// the last snapshot stays: only a complete read, or an event, changes it.
func (s *Store) Run(ctx context.Context) error {
	retry := retryFirst
	for ctx.Err() == nil {
		before := s.Snapshot().Revision
		err := s.watch(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) {
			s.log.Info("the store has forgotten the revision that was read last: reading everything again", "revision", before)
			var next *draft
			if next, err = s.readAll(ctx); err == nil {
				s.publish(next)
			}
		}
		if ctx.Err() != nil {
			break
		}
		if s.Snapshot().Revision > before {
			retry = retryFirst
		}
		if err != nil {
			s.log.Warn("the store cannot be watched: the last state stays in force", "error", err, "again_in", retry)
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
		retry = min(2*retry, retryLast)
	}
	return ctx.Err()
}

// watch applies events from the snapshot's revision on, until the stream breaks.
func (s *Store) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A member cut off from its leader would be silent for ever otherwise.
	stream := s.client.Watch(clientv3.WithRequireLeader(ctx), root, clientv3.WithPrefix(),
		clientv3.WithRev(s.Snapshot().Revision+1), clientv3.WithProgressNotify())
	for response := range stream {
		if err := response.Err(); err != nil {
			return err
		}
		s.apply(response.Events)
	}
	return ctx.Err()
}

// apply makes one snapshot of the events of one response. etcd never splits a
// revision over two responses, so no snapshot shows half a transaction.
func (s *Store) apply(events []*clientv3.Event) {
	d := newDraft(s.Snapshot())
	for _, e := range events {
		d.next.Revision = max(d.next.Revision, e.Kv.ModRevision)
		if e.Type == mvccpb.Event_DELETE {
			d.remove(string(e.Kv.Key))
		} else {
			s.put(d, e.Kv)
		}
	}
	if len(events) > 0 {
		s.publish(d)
	}
}

func (s *Store) put(d *draft, kv *mvccpb.KeyValue) {
	if err := d.put(string(kv.Key), kv.Value, kv.ModRevision); err != nil {
		s.log.Error("a record cannot be read; its last readable version stays in force", "key", string(kv.Key), "error", err)
	}
}

// readAll reads every record as of one revision, or fails: a partial read is never
// taken for the whole. What is unreadable keeps the version of the last snapshot.
func (s *Store) readAll(ctx context.Context) (*draft, error) {
	var err error
	for range readAttempts {
		d := newDraft(&Snapshot{
			Orgs: map[string]Org{}, Networks: map[sixpn.Network]Network{}, Apps: map[string]App{},
			Machines: map[string]Machine{}, VIPs: map[netip.Addr]VIP{}, Hosts: map[sixpn.Host]Host{},
			alive: map[sixpn.Host]presence{},
		})
		d.whole = true
		if err = s.readPages(ctx, d); err == nil {
			if older := s.Snapshot(); older != nil {
				d.keep(older)
				d.next.held, d.next.alarm = older.held, older.alarm
			}
			return d, nil
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return nil, unavailable("read the whole state", err)
}

func (s *Store) readPages(ctx context.Context, d *draft) error {
	from, end := root, clientv3.GetPrefixRangeEnd(root)
	for {
		// Revision 0 is the newest; the first page says which that is.
		response, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(readPage),
			clientv3.WithRev(d.next.Revision))
		if err != nil {
			return err
		}
		if d.next.Revision == 0 {
			d.next.Revision = response.Header.Revision
		}
		for _, kv := range response.Kvs {
			s.put(d, kv)
		}
		if !response.More {
			return nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}
