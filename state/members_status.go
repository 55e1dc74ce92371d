package state

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// MemberStatus is how one server of a store does.
type MemberStatus struct {
	ID       uint64
	Name     string
	Endpoint string // where clients reach it, "" if that is nowhere yet
	Learner  bool
	// What follows is zero for one that did not answer, and Err says why.
	Leader   bool
	Revision int64
	Bytes    int64 // size of its database
	Version  string
	Err      error
}

// memberPatience is for one member that may be gone.
const memberPatience = 3 * time.Second

// StoreStatus asks every member of a store how it does, by the order of their endpoints.
// The error is that of a store without a majority.
func StoreStatus(ctx context.Context, client *clientv3.Client) ([]MemberStatus, error) {
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, unavailable("look for the members of the store", err)
	}
	all := make([]MemberStatus, len(list.Members))
	done := make(chan struct{})
	for i, m := range list.Members {
		all[i] = MemberStatus{ID: m.ID, Name: m.Name, Learner: m.IsLearner, Endpoint: endpointOf(m)}
		go func() {
			all[i].ask(ctx, client)
			done <- struct{}{}
		}()
	}
	for range list.Members {
		<-done
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return all, nil
}

func endpointOf(m *etcdserverpb.Member) string {
	if len(m.ClientURLs) == 0 {
		return ""
	}
	return m.ClientURLs[0]
}

func (m *MemberStatus) ask(ctx context.Context, client *clientv3.Client) {
	if m.Endpoint == "" {
		m.Err = errors.New("it has not started yet")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	endpoint := m.Endpoint
	if len(client.Endpoints()) == 1 && strings.HasPrefix(client.Endpoints()[0], "unix:") {
		endpoint = client.Endpoints()[0] // of this host's own store, which may be heard elsewhere too
	}
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		m.Err = err
		return
	}
	m.Leader, m.Revision, m.Bytes, m.Version = status.Leader == m.ID, status.Header.Revision, status.DbSize, status.Version
}
