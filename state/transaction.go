package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// transaction collects reads and writes. All its reads are of one revision, and it
// is committed only if nothing that it read has changed since: a rule that held
// when it was checked holds when it is written.
type transaction struct {
	ctx      context.Context
	store    *Store
	client   *clientv3.Client
	known    int64            // revision of the snapshot when it began
	revision int64            // of all reads, 0 before the first
	keys     map[string]int64 // revision of each key that was read, 0 for an absent one
	prefixes map[string]int64 // revision at which the keys of each were counted or listed
	writes   []clientv3.Op
}

// A transaction that loses is tried again after a random part of these.
const (
	conflictFirst = time.Millisecond
	conflictLast  = 64 * time.Millisecond
)

// transact calls fn, as often as it takes, until what it wrote is committed. It
// returns the revision of the commit, durable by then; 0 if fn wrote nothing. An
// error of fn is returned as it is and nothing is written. Transactions of one queue
// take turns in this process.
func (s *Store) transact(ctx context.Context, queue, doing string, fn func(*transaction) error) (int64, error) {
	leave, err := s.queues.enter(ctx, queue)
	if err != nil {
		return 0, unavailable(doing, err)
	}
	defer leave()
	for limit := conflictFirst; ; limit = min(2*limit, conflictLast) {
		t := &transaction{ctx: ctx, store: s, client: s.client, known: s.Reached(), keys: map[string]int64{}, prefixes: map[string]int64{}}
		err := fn(t)
		var read *readError
		switch {
		case errors.As(err, &read) && errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, errAgain):
		case errors.As(err, &read):
			return 0, unavailable(doing, read.cause)
		case err != nil:
			return 0, err
		case len(t.writes) == 0:
			return 0, nil
		default:
			response, err := t.commit()
			if errors.Is(err, rpctypes.ErrNoSpace) {
				return 0, &Error{Kind: Exhausted, cause: err, Message: fmt.Sprintf(
					"%s: the store has reached its quota: destroy what is not needed, wait for a compaction, then `etcdctl --endpoints %s alarm disarm`",
					doing, strings.Join(s.client.Endpoints(), ","))}
			}
			if errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge) || status.Code(err) == codes.ResourceExhausted {
				return 0, &Error{Kind: Exhausted, cause: err, Message: fmt.Sprintf(
					"%s: %d writes at once are more than the store takes (%v), and nothing was written: destroy some of the app's Machines first", doing, len(t.writes), err)}
			}
			if err != nil {
				return 0, unavailable(doing, err)
			}
			if response.Succeeded {
				return response.Header.Revision, nil
			}
		}
		select {
		case <-time.After(rand.N(limit)):
		case <-ctx.Done():
			return 0, unavailable(doing, ctx.Err())
		}
	}
}

// creating is the queue of everything that takes a number or a name; what belongs
// to one Machine has its id for a queue.
const creating = "create"

// transactHolding is transact for what changes many Machines: meanwhile no other
// writer of this process has its turn at one of them, so that they do not keep it from
// ever being committed. Only one that holds nothing yet may call it.
func (s *Store) transactHolding(ctx context.Context, machines []Machine, doing string, fn func(*transaction) error) (int64, error) {
	for _, m := range machines { // by id, so that two of these do not wait for each other
		leave, err := s.queues.enter(ctx, m.ID)
		if err != nil {
			return 0, unavailable(doing, err)
		}
		defer leave()
	}
	return s.transact(ctx, creating, doing, fn)
}

// errAgain is for fn to return when its reads do not fit together.
var errAgain = errors.New("another write came in between")

// readError marks a failed read, so that fn can just return it.
type readError struct{ cause error }

func (e *readError) Error() string { return e.cause.Error() }
func (e *readError) Unwrap() error { return e.cause }

func (t *transaction) guards() []clientv3.Cmp {
	var guards []clientv3.Cmp
	for key, revision := range t.keys {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	}
	for prefix, revision := range t.prefixes {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(prefix), "<", revision+1).WithPrefix())
	}
	return guards
}

func (t *transaction) read(key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	response, err := t.client.Get(t.ctx, key, append(options, clientv3.WithRev(t.revision))...)
	if err != nil {
		return nil, &readError{err}
	}
	if t.revision == 0 {
		// No read of the same store is older than a snapshot of it.
		if err := t.store.recognise(response.Header, t.known, ""); err != nil {
			return nil, err
		}
		t.revision = response.Header.Revision
	}
	return response, nil
}

// get reads one key; nil when it is absent.
func (t *transaction) get(key string) (value []byte, revision int64, err error) {
	response, err := t.read(key)
	if err != nil {
		return nil, 0, err
	}
	if len(response.Kvs) == 0 {
		t.keys[key] = 0
		return nil, 0, nil
	}
	kv := response.Kvs[0]
	t.keys[key] = kv.ModRevision
	return kv.Value, kv.ModRevision, nil
}

// listLatest is list for what latest reads.
func (t *transaction) listLatest(prefix string) ([]*mvccpb.KeyValue, error) {
	response, err := t.client.Get(t.ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, &readError{err}
	}
	t.prefixes[prefix] = response.Header.Revision
	return response.Kvs, nil
}

// latest reads keys as they are now, not of the revision of all other reads, which is
// as good: each is guarded, so at the commit they all were as they were read. What
// changes often is thus read as late as can be. An absent key is errAgain.
func (t *transaction) latest(keys []string) ([]*mvccpb.KeyValue, error) {
	var all []*mvccpb.KeyValue
	for some := range slices.Chunk(keys, readAtOnce) {
		var gets []clientv3.Op
		for _, key := range some {
			gets = append(gets, clientv3.OpGet(key))
		}
		response, err := t.client.Txn(t.ctx).Then(gets...).Commit()
		if err != nil {
			return nil, &readError{err}
		}
		for _, r := range response.Responses {
			kvs := r.GetResponseRange().Kvs
			if len(kvs) == 0 {
				return nil, errAgain
			}
			t.keys[string(kvs[0].Key)] = kvs[0].ModRevision
			all = append(all, kvs[0])
		}
	}
	return all, nil
}

// readAtOnce is how many keys one request of latest asks for.
const readAtOnce = 100

// count is how many keys begin with prefix.
func (t *transaction) count(prefix string) (int64, error) {
	response, err := t.read(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	t.prefixes[prefix] = t.revision
	return response.Count, nil
}

// list is all keys that begin with prefix, in order. The guard is against new ones
// and changed ones; whoever must know that none has gone reads each of them.
func (t *transaction) list(prefix string) ([]*mvccpb.KeyValue, error) {
	response, err := t.read(prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	t.prefixes[prefix] = t.revision
	return response.Kvs, nil
}

func (t *transaction) put(key, value string) { t.writes = append(t.writes, clientv3.OpPut(key, value)) }
func (t *transaction) remove(key string)     { t.writes = append(t.writes, clientv3.OpDelete(key)) }

// removeAll removes every key that begins with prefix.
func (t *transaction) removeAll(prefix string) {
	t.writes = append(t.writes, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
}

// create writes a new record.
func (t *transaction) create(key string, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	t.put(key, string(encoded))
	return nil
}

// number takes the next number of a counter, the first of which is first.
func (t *transaction) number(counter string, first uint32) (uint32, error) {
	return t.numbers(counter, first, 1)
}

// numbers takes that many numbers of a counter, which it may be asked once a
// transaction, and returns the first of them. Numbers are never given out twice,
// whatever is deleted.
func (t *transaction) numbers(counter string, first uint32, count int) (uint32, error) {
	if count == 0 {
		return 0, nil
	}
	value, _, err := t.get(counter)
	if err != nil {
		return 0, err
	}
	next := first
	if value != nil {
		last, err := strconv.ParseUint(string(value), 10, 32)
		if err != nil {
			return 0, refuse(Unavailable, "", "the counter %s holds %q, expected a number below 2^32: restore the store from a backup", counter, value)
		}
		if uint64(count) > math.MaxUint32-last {
			return 0, refuse(Exhausted, "", "all numbers of %s are used: numbers are never reused, so create another network", counter)
		}
		next = max(first, uint32(last)+1)
	}
	t.put(counter, strconv.FormatUint(uint64(next)+uint64(count)-1, 10))
	return next, nil
}

// load reads a record into r; found is false when there is none.
func load[T any](t *transaction, key string) (r Record[T], found bool, err error) {
	value, revision, err := t.get(key)
	if err != nil || value == nil {
		return Record[T]{}, false, err
	}
	r, err = readable[T](key, value, revision)
	return r, err == nil, err
}

// readable is Decode with what to do about a record that it cannot read.
func readable[T any](key string, value []byte, revision int64) (Record[T], error) {
	r, err := Decode[T](value, revision)
	if err != nil {
		return Record[T]{}, refuse(Unavailable, "", "the record %s cannot be read (%v): it is damaged, or of a newer release: update this agent", key, err)
	}
	return r, nil
}

// write writes a record that was loaded, with the fields it had that are unknown here.
func write[T any](t *transaction, key string, r Record[T]) error {
	encoded, err := r.Encode()
	if err != nil {
		return err
	}
	t.put(key, string(encoded))
	return nil
}
