package state

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
)

// verify finds out which revision the store is at, and which of the ranges were changed up
// to that one after what was delivered of them. Unless it must be the latest, whichever
// member is asked first may say so, if it is as far as the events are: that spares the
// members an exchange among themselves.
func (w *watches) verify(latest bool) (revision int64, missing map[string]int64, err error) {
	newest := int64(0)
	for _, e := range w.pending {
		newest = max(newest, e.Kv.ModRevision)
	}
	known := w.store.Reached()
	if !latest {
		revision, missing, err = w.compare(0, clientv3.WithSerializable())
		if err != nil || revision >= max(newest, known) {
			return revision, missing, err
		}
	}
	return w.compare(known)
}

// compare is verify by one read of as many keys as a request may have, or by several, of
// which the earliest counts. No store that was known is at an earlier revision than known.
func (w *watches) compare(known int64, options ...clientv3.OpOption) (revision int64, missing map[string]int64, err error) {
	of := map[string]*rangeWatch{} // by the key that says when it was changed
	for _, r := range w.ranges {
		of[r.changed] = r
	}
	chunks := slices.Collect(slices.Chunk(slices.Sorted(maps.Keys(of)), readAtOnce))
	answers := make([]*clientv3.TxnResponse, len(chunks))
	timed, cancel := context.WithTimeout(w.ctx, w.store.patience)
	defer cancel()
	group, ctx := errgroup.WithContext(timed)
	group.SetLimit(comparesAtOnce)
	for i, keys := range chunks {
		var none []clientv3.Cmp
		var which []clientv3.Op
		for _, key := range keys {
			none = append(none, clientv3.Compare(clientv3.ModRevision(key), "<", of[key].has()+1))
			which = append(which, clientv3.OpGet(key, append([]clientv3.OpOption{clientv3.WithKeysOnly()}, options...)...))
		}
		// Without the read etcd would not ask the other members for the latest revision.
		request := w.store.client.Txn(ctx).If(none...).Then(clientv3.OpGet(keyFleet, options...)).Else(which...)
		group.Go(func() (err error) {
			answers[i], err = request.Commit()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, nil, err
	}
	revision, missing = math.MaxInt64, map[string]int64{}
	for _, answer := range answers {
		if err := w.store.recognise(answer.Header, known, ""); err != nil {
			return 0, nil, err
		}
		revision = min(revision, answer.Header.Revision)
		if answer.Succeeded {
			continue
		}
		for _, kv := range foundBy(answer) {
			if r := of[string(kv.Key)]; kv.ModRevision > r.has() {
				missing[r.from] = max(missing[r.from], kv.ModRevision)
			}
		}
	}
	return revision, missing, nil
}

// comparesAtOnce is how many requests one comparison has under way.
const comparesAtOnce = 8

// has is up to which revision all of the range was delivered.
func (r *rangeWatch) has() int64 { return max(r.delivered, r.complete) }

// foundBy is what the reads of a transaction found.
func foundBy(response *clientv3.TxnResponse) []*mvccpb.KeyValue {
	var all []*mvccpb.KeyValue
	for _, r := range response.Responses {
		all = append(all, r.GetResponseRange().Kvs...)
	}
	return all
}

// torn is whether an app has left a network by a transaction without keys below changed/,
// of a release that does not know them for one. Then nothing says that what the app has
// elsewhere is yet to come: its Machines would seem to have ended.
func (w *watches) torn(events []*clientv3.Event) (bool, error) {
	ctx, cancel := context.WithTimeout(w.ctx, w.store.patience)
	defer cancel()
	for _, e := range events {
		k := parseKey(string(e.Kv.Key))
		if k.kind != kindApp || e.Type != clientv3.EventTypeDelete {
			continue
		}
		told, err := w.store.client.Get(ctx, changedNetwork(sixpn.Network(k.number)), clientv3.WithRev(e.Kv.ModRevision), clientv3.WithKeysOnly())
		if errors.Is(err, rpctypes.ErrCompacted) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if len(told.Kvs) == 0 || told.Kvs[0].ModRevision != e.Kv.ModRevision {
			return true, nil
		}
	}
	return false, nil
}
