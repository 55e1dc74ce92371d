package state

import (
	"context"
	"errors"
	"strings"
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
// event, of the store that was known changes it. It ends with a *RestoredError when that
// was restored from a backup, and by nothing else.
func (s *Store) Run(ctx context.Context) error {
	for _, task := range []struct {
		needed bool
		run    func(context.Context)
	}{{s.file != "", s.keepSaving}, {s.grace > 0, s.keepJudging}} {
		if task.needed {
			defer beside(ctx, task.run)()
		}
	}
	retry := retryFirst
	for ctx.Err() == nil {
		before := s.Reached()
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
		if errors.Is(err, errSurvey) {
			continue
		}
		if s.Reached() > before {
			retry = retryFirst
		}
		news := s.noteContact(err)
		if errors.Is(err, errStranger) {
			if _, cluster, is, _ := s.restored(ctx); is { // if it cannot be asked, the next time
				return &RestoredError{Cluster: cluster}
			}
		}
		switch {
		case errors.Is(err, errStranger):
			if news {
				s.log.Error("the store is refused", "error", err)
			}
		case errors.Is(err, errRefused):
			s.sayAway(err, news)
		case err != nil:
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

// errSurvey ends a watch that goes on with another scope.
var errSurvey = errors.New("this store is on another host than before")

// watch applies events from the snapshot's revision on, until the stream breaks or the
// store is another one. A watch of a revision that is still to come would be silent, so
// the store is asked first, and again and again, for the client connects anew by itself.
func (s *Store) watch(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	if s.surveyDue() { // it has another host than before, or was read from disk
		d, err := s.readAll(ctx)
		if err != nil {
			return err
		}
		s.publish(d)
	}
	s.noteContact(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.keepProbing(ctx, cancel)
	if s.partial {
		return s.watchRanges(ctx)
	}
	// A member cut off from its leader would be silent for ever otherwise.
	stream := s.client.Watch(clientv3.WithRequireLeader(ctx), root, clientv3.WithPrefix(),
		clientv3.WithRev(s.Reached()+1), clientv3.WithProgressNotify())
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
		// Etcd never splits a revision over two responses, so no snapshot shows half a
		// transaction.
		if n := len(response.Events); n > 0 {
			if err := s.apply(ctx, response.Events, response.Events[n-1].Kv.ModRevision); err != nil {
				return err
			}
		}
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
		if ctx.Err() == nil {
			s.sayAway(err, s.noteContact(err))
		}
	}
}

// sayAway has the log say that the store does not answer, or does again, when that is news.
func (s *Store) sayAway(err error, news bool) {
	switch {
	case !news:
	case err == nil:
		s.log.Info("the store answers again")
	case errors.Is(err, errRefused):
		s.log.Error("this host is of the fleet no more: what runs here goes on by the last state, and nothing changes", "error", err)
	default:
		s.log.Warn("the store does not answer: the last state stays in force", "error", err)
	}
}

// apply makes one snapshot of the events that there are up to a revision. A partial Store
// makes one only of what concerns its host. On an error nothing has changed.
func (s *Store) apply(ctx context.Context, events []*clientv3.Event, revision int64) error {
	d := newDraft(s.Snapshot())
	d.keepRaw = s.file != ""
	if s.surveyDue() {
		return errSurvey
	}
	c, moved, again := s.scope, false, map[string]bool{}
	concerns := !s.partial
	for _, e := range events {
		key := string(e.Kv.Key)
		if s.partial {
			k := parseKey(key)
			if c.movedBy(key, k, e.Type == mvccpb.Event_DELETE) {
				moved, concerns = true, true
				if rest, ok := strings.CutPrefix(key, root+"index/app-vips/"); ok {
					app, _, _ := strings.Cut(rest, "/")
					again[app] = true
				}
			}
			if !c.has(k) {
				continue
			}
			concerns = true
		}
		if e.Type == mvccpb.Event_DELETE {
			d.remove(key)
		} else {
			s.put(d, key, e.Kv.Value, e.Kv.ModRevision)
		}
	}
	d.next.Revision = max(d.next.Revision, revision)
	if moved {
		next, err := s.survey(ctx, d, c, again)
		if err != nil {
			return err
		}
		s.scope = next
	}
	if concerns {
		s.publish(d)
	} else {
		s.advance(revision)
	}
	return nil
}

func (s *Store) put(d *draft, key string, value []byte, revision int64) {
	if err := d.put(key, value, revision); err != nil {
		s.log.Error("a record cannot be read; its last readable version stays in force", "key", key, "error", err)
	}
}

// readAll reads every record as of one revision, or fails: a partial read is never
// taken for the whole. What is unreadable keeps the version of the last snapshot.
func (s *Store) readAll(ctx context.Context) (*draft, error) {
	var err error
	for range readAttempts {
		d := newWhole()
		d.keepRaw = s.file != ""
		if err = s.readWhole(ctx, d); err == nil {
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

// readWhole fills a draft with all there is, or all that concerns the host of a partial
// Store, as of the newest revision.
func (s *Store) readWhole(ctx context.Context, d *draft) error {
	known := s.Reached()
	first, err := s.client.Get(ctx, keyFleet)
	if err != nil {
		return err
	}
	fleet := noFleet
	for _, kv := range first.Kvs {
		fleet = string(kv.Value)
		s.put(d, keyFleet, kv.Value, kv.ModRevision)
	}
	if err := s.recognise(first.Header, known, fleet); err != nil {
		return err
	}
	d.next.Revision = first.Header.Revision
	if !s.partial {
		return s.readInto(ctx, d, root)
	}
	for _, prefix := range []string{keyHosts(), keyGeneration} {
		if err := s.readInto(ctx, d, prefix); err != nil {
			return err
		}
	}
	c, err := s.survey(ctx, d, newScope(s.Host()), nil)
	if err == nil {
		s.scope, s.delivered = c, map[string]int64{}
	}
	return err
}

// readRange reads all that begins with a prefix, page by page, as of one revision.
func (s *Store) readRange(ctx context.Context, prefix string, revision int64, take func(key string, value []byte, revision int64), options ...clientv3.OpOption) error {
	from := prefix
	options = append([]clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(readPage), clientv3.WithRev(revision)}, options...)
	for {
		response, err := s.client.Get(ctx, from, options...)
		if err != nil {
			return err
		}
		for _, kv := range response.Kvs {
			take(string(kv.Key), kv.Value, kv.ModRevision)
		}
		if !response.More {
			return nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}
