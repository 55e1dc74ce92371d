package state

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A store that answers is not always the one that was known: it may have been wiped and
// made again, restored from a backup, or be another one at the same address. What such
// a store does not have is not gone, so nothing is taken from it: the last state stays.
// It is recognised by etcd's cluster id, by the revision, which never goes back, and by
// the name that the fleet gives itself when its first host registers, for the ids of
// clusters that were set up alike are equal. One that `sixpn store restore` made of the known
// one is its successor, see restore.go.

// noFleet is the name of a store that has none, which matters if there was one.
const noFleet = "-"

// errStranger is what everything is wrapped in that says so.
var errStranger = errors.New("this is not the store that was known")

// unfamiliar says why the store is not the one that was known, "" if it is. A fleet of
// "" is not known, on either side.
func unfamiliar(cluster, knownCluster uint64, revision, knownRevision int64, fleet, knownFleet string) string {
	switch {
	case knownCluster != 0 && cluster != knownCluster:
		return fmt.Sprintf("it is cluster %x, the known one was %x", cluster, knownCluster)
	case fleet != "" && knownFleet != "" && fleet != knownFleet:
		return fmt.Sprintf("it is of fleet %s, this host is of %s", fleet, knownFleet)
	case revision < knownRevision:
		return fmt.Sprintf("it is at revision %d, the known one was at %d already: it was made anew, or restored from a backup", revision, knownRevision)
	}
	return ""
}

// recognise checks what answered a request that was sent when revision was the latest
// known.
func (s *Store) recognise(header *pb.ResponseHeader, revision int64, fleet string) error {
	s.mu.Lock()
	why := unfamiliar(header.ClusterId, s.cluster, header.Revision, revision, fleet, s.knownFleet())
	if why == "" && s.cluster == 0 {
		s.cluster = header.ClusterId
	}
	if why == "" {
		s.term = max(s.term, header.RaftTerm)
	}
	s.mu.Unlock()
	if why == "" {
		return nil
	}
	remedy := "then start the agent again"
	if s.file != "" {
		remedy = "restore it from an export of the known one with `sixpn store restore`, which hosts take, or else stop the agent, remove " + s.file + ", and start it again"
	}
	return &Error{Kind: Unavailable, cause: errStranger, Message: fmt.Sprintf(
		"the store is not the one that this host knows (%s): the last state stays in force, and nothing is written. Bring the known store back; if this one is meant to be in its place, %s", why, remedy)}
}

// hasMoved is whether a store that is refused was made of the known one by an import
// that is complete, and has all that this host has seen. Revisions of one generation only
// can be compared.
func (s *Store) hasMoved(ctx context.Context) bool {
	response, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(keyImport), "=", 0)).
		Then(clientv3.OpGet(keyFleet), clientv3.OpGet(keyOrigin), clientv3.OpGet(keyGeneration)).Commit()
	if err != nil || !response.Succeeded {
		return false
	}
	values := valuesOf(response)
	known := s.Snapshot()
	var of generation
	if encoded := values[keyGeneration]; encoded != nil && json.Unmarshal(encoded, &of) != nil {
		return false
	}
	if known.fleet == "" || string(values[keyFleet]) != known.fleet || of.Number != known.generation.Number {
		return false
	}
	revision, err := strconv.ParseInt(string(values[keyOrigin]), 10, 64)
	return err == nil && revision >= known.Revision
}

// valuesOf is what the reads of a transaction found, by key.
func valuesOf(response *clientv3.TxnResponse) map[string][]byte {
	values := map[string][]byte{}
	for _, r := range response.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			values[string(kv.Key)] = kv.Value
		}
	}
	return values
}

// doubtful is whether something that is recognised may be another one's all the same: no
// election of a cluster goes back, though a member may be late to hear of one.
func (s *Store) doubtful(header *pb.ResponseHeader) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return header.RaftTerm < s.term
}

// knownFleet is for who holds the lock.
func (s *Store) knownFleet() string {
	if s.snapshot == nil {
		return ""
	}
	return s.snapshot.fleet
}

// probe asks the store who it is.
func (s *Store) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	revision := s.Reached()
	response, err := s.client.Get(ctx, keyFleet)
	if err != nil {
		return s.whyAway(err)
	}
	fleet := noFleet
	if len(response.Kvs) > 0 {
		fleet = string(response.Kvs[0].Value)
	}
	if err := s.recognise(response.Header, revision, fleet); err != nil {
		return err
	}
	if response.Header.Revision > revision {
		s.ask()
	}
	return nil
}

// whyAway is the error of a store that does not answer, or that it refuses this host.
func (s *Store) whyAway(err error) error {
	if s.refused != nil && !errors.Is(err, context.Canceled) {
		if refusal := s.refused(); refusal != nil {
			return refusal
		}
	}
	return err
}

// noteContact remembers how the latest exchange with the store went. It returns whether
// that is news.
func (s *Store) noteContact(err error) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && errors.Is(s.away, errRefused) && !errors.Is(err, errStranger) {
		return false // who refuses may be away, too: that is why as long as the store does not answer
	}
	news = (err == nil) != (s.away == nil) || errors.Is(err, errRefused) != errors.Is(s.away, errRefused)
	s.away = err
	if err == nil {
		s.contact = time.Now()
	}
	refusal := ""
	if errors.Is(err, errStranger) {
		refusal = err.Error()
	}
	if s.snapshot.refusal != refusal && (err == nil || refusal != "") {
		next := *s.snapshot
		next.refusal = refusal
		s.replace(&next)
		news = true
	}
	return news
}

// Cluster is etcd's id of the known store, 0 while none is known.
func (s *Store) Cluster() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster
}

// Contact is when the store answered last, and, if it did not since, why.
func (s *Store) Contact() (at time.Time, away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contact, s.away
}

// mustBeKnown refuses a store that has not the fleet's name. It is for what would take
// a missing record for one that was removed.
func (t *transaction) mustBeKnown() error {
	_, err := t.fleet()
	return err
}

func (t *transaction) fleet() (name string, err error) {
	value, _, err := t.get(keyFleet)
	if err != nil {
		return "", err
	}
	if known := t.store.Snapshot().fleet; known != "" && string(value) != known {
		return "", &Error{Kind: Unavailable, cause: errStranger, Message: "the store does not know this fleet: it is another one, or was made anew; nothing is written"}
	}
	return string(value), nil
}

// nameFleet gives the fleet its name if it has none.
func (t *transaction) nameFleet() error {
	name, err := t.fleet()
	if err == nil && name == "" {
		t.put(keyFleet, rand.Text())
	}
	return err
}
