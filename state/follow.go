package state

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
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

// Run keeps the snapshot current until the context ends, and the file too, if there is
// one. While the store is away the last snapshot stays: only a complete read, or an
// event, of the store that was known changes it.
func (s *Store) Run(ctx context.Context) error {
	if s.file != "" {
		saving := make(chan struct{})
		go func() {
			defer close(saving)
			s.keepSaving(ctx)
		}()
		defer func() { <-saving }()
	}
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
		news := s.noteContact(err)
		switch {
		case errors.Is(err, errStranger) && news:
			s.log.Error("the store is refused", "error", err)
		case err != nil && !errors.Is(err, errStranger):
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

// watch applies events from the snapshot's revision on, until the stream breaks or the
// store is another one. A watch of a revision that is still to come would be silent, so
// the store is asked first, and again and again, for the client connects anew by itself.
func (s *Store) watch(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	s.noteContact(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.keepProbing(ctx, cancel)
	// A member cut off from its leader would be silent for ever otherwise.
	stream := s.client.Watch(clientv3.WithRequireLeader(ctx), root, clientv3.WithPrefix(),
		clientv3.WithRev(s.Snapshot().Revision+1), clientv3.WithProgressNotify())
	for response := range stream {
		if err := response.Err(); err != nil {
			return err
		}
		if err := s.recognise(response.Header, 0, ""); err != nil {
			return err
		}
		if s.doubtful(response.Header) {
			if err := s.probe(ctx); err != nil {
				return err
			}
		}
		s.apply(response.Events)
	}
	return context.Cause(ctx)
}

// keepProbing ends a watch when the store turns out to be another one.
func (s *Store) keepProbing(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(s.probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.probe(ctx)
		if errors.Is(err, errStranger) {
			end(err)
			return
		}
		if ctx.Err() == nil && s.noteContact(err) {
			if err != nil {
				s.log.Warn("the store does not answer: the last state stays in force", "error", err)
			} else {
				s.log.Info("the store answers again")
			}
		}
	}
}

// apply makes one snapshot of the events of one response. etcd never splits a
// revision over two responses, so no snapshot shows half a transaction.
func (s *Store) apply(events []*clientv3.Event) {
	d := newDraft(s.Snapshot())
	d.keepRaw = s.file != ""
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
		d := newWhole()
		d.keepRaw = s.file != ""
		if err = s.readPages(ctx, d); err == nil {
			if older := s.Snapshot(); older != nil {
				d.keep(older)
				d.next.held = older.held
			}
			return d, nil
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	if errors.Is(err, errStranger) {
		return nil, err
	}
	return nil, unavailable("read the whole state", err)
}

func (s *Store) readPages(ctx context.Context, d *draft) error {
	var known int64
	if older := s.Snapshot(); older != nil {
		known = older.Revision
	}
	from, end := root, clientv3.GetPrefixRangeEnd(root)
	for {
		// Revision 0 is the newest; the first page says which that is.
		response, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(readPage),
			clientv3.WithRev(d.next.Revision))
		if err != nil {
			return err
		}
		if d.next.Revision == 0 {
			if err := s.recognise(response.Header, known, ""); err != nil {
				return err
			}
			d.next.Revision = response.Header.Revision
		}
		for _, kv := range response.Kvs {
			s.put(d, kv)
		}
		if !response.More {
			return s.recognise(response.Header, known, cmp.Or(d.next.fleet, noFleet))
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}
