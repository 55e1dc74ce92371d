package state

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// MemberStatus is how one server of a store does.
type MemberStatus struct {
	ID       uint64
	Name     string
	Endpoint string // where clients reach it, "" if that is nowhere yet
	Learner  bool
	// What follows is zero for one that did not answer, and Err says why.
	Leader   bool
	Took     time.Duration // until its answer was there
	Revision int64
	Bytes    int64 // size of its database
	Version  string
	Err      error
}

const (
	// memberPatience is for one member that may be gone.
	memberPatience = 2 * time.Second
	// listPatience is for a store that may have no majority.
	listPatience = 1500 * time.Millisecond
)

// StoreStatus asks every member of a store how it does, by the order of their endpoints.
// Who the members are is asked of a majority, or, while there is none, of whoever answers.
// With others, which is nil where there are none, each of the other members is called by
// that. The error is that of a store none of whose members answers.
func StoreStatus(ctx context.Context, client *clientv3.Client, others *tls.Config) ([]MemberStatus, error) {
	list, err := listMembers(ctx, client)
	if err != nil {
		list, err = listMembers(ctx, client, clientv3.WithSerializable())
	}
	if err != nil {
		return nil, unavailable("look for the members of the store", err)
	}
	own := uint64(0) // the member that answers on this host's socket
	if local(client) {
		own = list.Header.MemberId
	}
	all := make([]MemberStatus, len(list.Members))
	done := make(chan struct{})
	for i, m := range list.Members {
		all[i] = MemberStatus{ID: m.ID, Name: m.Name, Learner: m.IsLearner, Endpoint: endpointOf(m)}
		go func() {
			all[i].ask(ctx, client, own, others)
			done <- struct{}{}
		}()
	}
	for range list.Members {
		<-done
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return all, nil
}

func listMembers(ctx context.Context, client *clientv3.Client, options ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	return client.MemberList(ctx, options...)
}

// HasMajority is whether more than half of a store's voters answer, and one leads: what
// it needs to take writes.
func HasMajority(members []MemberStatus) bool {
	voters, answer, leader := 0, 0, false
	for _, m := range members {
		if m.Learner {
			continue
		}
		voters++
		if m.Err == nil {
			answer++
			leader = leader || m.Leader
		}
	}
	return leader && 2*answer > voters
}

func endpointOf(m *etcdserverpb.Member) string {
	if len(m.ClientURLs) == 0 {
		return ""
	}
	return m.ClientURLs[0]
}

// local is whether a client has this host's own member, by its socket, and no other.
func local(client *clientv3.Client) bool {
	return len(client.Endpoints()) == 1 && strings.HasPrefix(client.Endpoints()[0], "unix:")
}

func (m *MemberStatus) ask(ctx context.Context, client *clientv3.Client, own uint64, others *tls.Config) {
	endpoint := m.Endpoint
	switch {
	case m.ID == own:
		endpoint = client.Endpoints()[0] // which may be heard elsewhere too
	case m.Endpoint == "":
		m.Err = errors.New("it has not started yet")
		return
	case others != nil: // and so never the shared client, whose endpoints may change meanwhile
		other, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: others, Logger: zap.NewNop()})
		if err != nil {
			m.Err = err
			return
		}
		defer other.Close()
		client = other
	}
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	begin := time.Now()
	status, err := client.Status(ctx, endpoint)
	m.Took = time.Since(begin)
	if err != nil {
		m.Err = err
		return
	}
	m.Leader, m.Revision, m.Bytes, m.Version = status.Leader == m.ID, status.Header.Revision, status.DbSize, status.Version
}
