package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// generation is the record of the latest restore of a fleet's store. Who knew the store
// of before takes one of a later generation for its successor: only `sixpn store restore`
// makes it, so somebody wanted it. One that is older by chance, because an old disk or an
// old copy of a machine came back, has none that is later.
type generation struct {
	// Number grows with each restore, also of the same export: it is the time, in
	// milliseconds since 1970, and at least one more than that of the export's store.
	Number     int64     `json:"number"`
	RestoredAt time.Time `json:"restored_at"`
	Export     int64     `json:"export"` // its revision
}

const keyGeneration = root + "generation"

// counterGap is how many numbers of each counter a restore passes over: they may have
// been given out after the export, and what has one is still there.
const counterGap = 1 << 16

// Restore makes a store in a directory that has none, for the host that starts it, as
// Import does, and marks it as the successor of the one that was exported.
func (e *Exported) Restore(ctx context.Context, c EmbeddedConfig) error {
	restored, err := e.successor(now())
	if err != nil {
		return err
	}
	store, err := StartEmbedded(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(restored.Import(ctx, store.Client()), store.Close())
}

// successor is what a restored store begins with.
func (e *Exported) successor(at time.Time) (*Exported, error) {
	next := *e
	next.records = nil
	of := generation{Number: at.UnixMilli(), RestoredAt: at, Export: e.Revision}
	for _, r := range e.records {
		switch {
		case root+r.Key == keyGeneration:
			var before generation
			if err := json.Unmarshal(r.Value, &before); err != nil {
				return nil, refuse(Invalid, "file", "the export's generation cannot be read (%v): it is of a newer release; update this one", err)
			}
			of.Number = max(of.Number, before.Number+1)
			continue
		case strings.HasPrefix(root+r.Key, root+"counters/"):
			last, err := strconv.ParseUint(string(r.Value), 10, 32)
			if err != nil {
				return nil, refuse(Invalid, "file", "the export's counter %s holds %q, expected a number below 2^32", r.Key, r.Value)
			}
			r.Value = strconv.AppendUint(nil, min(last+counterGap, math.MaxUint32), 10)
		}
		next.records = append(next.records, r)
	}
	value, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	next.records = append(next.records, exportRecord{strings.TrimPrefix(keyGeneration, root), value})
	return &next, nil
}

// Fleet is the name of the fleet that was exported, "" if it had none.
func (e *Exported) Fleet() string {
	i := slices.IndexFunc(e.records, func(r exportRecord) bool { return root+r.Key == keyFleet })
	if i < 0 {
		return ""
	}
	return string(e.records[i].Value)
}

// LastFleet is the name of the fleet of which a file keeps the last state, "" if there is
// no file that can be read.
func LastFleet(file string) string {
	l, _ := readLast(file)
	return l.fleet
}

// RestoredError is that the known store was restored: revisions begin anew, so whoever
// goes on with what it made of the store of before must begin again too, by OpenStore.
type RestoredError struct {
	Cluster uint64 // etcd's id of the restored one
}

func (e *RestoredError) Error() string { return "the store was restored from a backup" }

// restored finds out whether a store that is refused is the known one, restored. Its
// error is that of the store.
func (s *Store) restored(ctx context.Context) (found generation, cluster uint64, is bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	response, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(keyImport), "=", 0)).
		Then(clientv3.OpGet(keyFleet), clientv3.OpGet(keyGeneration)).Commit()
	if err != nil || !response.Succeeded {
		return generation{}, 0, false, err
	}
	values := valuesOf(response)
	if err := json.Unmarshal(values[keyGeneration], &found); err != nil {
		return generation{}, 0, false, nil // it has none, or one of a newer release
	}
	known := s.Snapshot()
	is = known.fleet != "" && string(values[keyFleet]) == known.fleet && found.Number > known.generation.Number
	return found, response.Header.ClusterId, is, nil
}

// takeUp makes a Store of the successor of the store that this one knew, with what this
// host still has and the successor does not know.
func (s *Store) takeUp(ctx context.Context, c StoreConfig, of generation) (*Store, *draft, error) {
	next := newStore(c)
	d, err := next.readAll(ctx)
	if err != nil {
		return nil, nil, err
	}
	if d.next.generation != of {
		return nil, nil, unavailable("read the restored store", fmt.Errorf("its generation is %d, expected %d", d.next.generation.Number, of.Number))
	}
	next.publish(d)
	s.log.Warn("the store was restored from a backup, and is taken up: what was written after that is lost, but for what this host has",
		"restored_at", of.RestoredAt, "revision_of_export", of.Export, "revision_before", s.Snapshot().Revision)
	if err := next.reclaim(ctx, s.Snapshot()); err != nil {
		return nil, nil, err
	}
	d, err = next.readAll(ctx)
	return next, d, err
}

// ClusterOf is the id that a store says it has, asked at one endpoint.
func ClusterOf(ctx context.Context, client *clientv3.Client, endpoint string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		return 0, err
	}
	return status.Header.ClusterId, nil
}
