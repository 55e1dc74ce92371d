package state

import (
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Histories has the snapshot of everything at each revision that something was written
// at, made of the events of the store's first watch.
func Histories(t *testing.T, events []*clientv3.Event) map[int64]*Snapshot {
	t.Helper()
	all := map[int64]*Snapshot{}
	last := &newWhole().next
	for i, e := range events {
		d := newDraft(last)
		d.next.Revision = e.Kv.ModRevision
		if e.Type == mvccpb.Event_DELETE {
			d.remove(string(e.Kv.Key))
		} else if err := d.put(string(e.Kv.Key), e.Kv.Value, e.Kv.ModRevision); err != nil {
			t.Fatal(err)
		}
		last = &d.next
		if i+1 == len(events) || events[i+1].Kv.ModRevision != e.Kv.ModRevision {
			all[e.Kv.ModRevision] = last
		}
	}
	return all
}
