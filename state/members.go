package state

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// StoreMember is one server of the fleet's own store, on one of its hosts.
type StoreMember struct {
	ID uint64
	// Underlay is where its host is between hosts; invalid for one that only its own
	// host hears.
	Underlay netip.AddrPort
	Learner  bool // it has no vote yet
}

// StoreMembers is all members of a store, read from a majority.
func StoreMembers(ctx context.Context, client *clientv3.Client) ([]StoreMember, error) {
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, unavailable("look for the members of the store", err)
	}
	var members []StoreMember
	for _, m := range list.Members {
		member := StoreMember{ID: m.ID, Learner: m.IsLearner}
		for _, peer := range m.PeerURLs {
			parsed, err := url.Parse(peer)
			if err != nil || parsed.Scheme != "https" {
				continue
			}
			if at, err := netip.ParseAddrPort(parsed.Host); err == nil && at.Port() > peerPortOffset {
				member.Underlay = netip.AddrPortFrom(at.Addr(), at.Port()-peerPortOffset)
			}
		}
		members = append(members, member)
	}
	return members, nil
}

// AddLearner announces a member, which is then to be started with EmbeddedConfig.Members.
func AddLearner(ctx context.Context, client *clientv3.Client, underlay netip.AddrPort) (id uint64, err error) {
	response, err := client.MemberAddAsLearner(ctx, []string{httpsURL(underlay, peerPortOffset).String()})
	if err != nil {
		return 0, unavailable("add a member to the store", err)
	}
	return response.Member.ID, nil
}

// PromoteLearner gives a member its vote. The error is of kind Conflict while it has not
// caught up with the others.
func PromoteLearner(ctx context.Context, client *clientv3.Client, id uint64) error {
	_, err := client.MemberPromote(ctx, id)
	if errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
		return refuse(Conflict, "member", "the new member of the store has not caught up yet: try again in a moment")
	}
	if err != nil {
		return unavailable("give a member of the store its vote", err)
	}
	return nil
}

// RemoveMember takes a member out of the store. One that is gone is no error. The store
// refuses what would leave it without a majority that works.
func RemoveMember(ctx context.Context, client *clientv3.Client, id uint64) error {
	_, err := client.MemberRemove(ctx, id)
	if err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return unavailable("remove a member of the store", err)
	}
	return nil
}

// MoveMember writes where the others find a member.
func MoveMember(ctx context.Context, client *clientv3.Client, id uint64, underlay netip.AddrPort) error {
	if _, err := client.MemberUpdate(ctx, id, []string{httpsURL(underlay, peerPortOffset).String()}); err != nil {
		return unavailable("say where a member of the store is", err)
	}
	return nil
}

// keyMembersLock is held by the host that changes the members.
const keyMembersLock = root + "fleet/members-lock"

// membersLockTTL is after how long a host that died with the lock gives way.
const membersLockTTL = 10 * time.Second

// ChangingMembers calls change while no other host changes the members of the store.
func ChangingMembers(ctx context.Context, client *clientv3.Client, change func(ctx context.Context) error) error {
	session, err := concurrency.NewSession(client, concurrency.WithContext(ctx), concurrency.WithTTL(int(membersLockTTL/time.Second)))
	if err != nil {
		return unavailable("take turns to change the members of the store", err)
	}
	defer session.Close()
	lock := concurrency.NewMutex(session, keyMembersLock)
	if err := lock.Lock(ctx); err != nil {
		return unavailable("take turns to change the members of the store", err)
	}
	return change(ctx)
}

// MemberID is that of an embedded store in the list of members.
func (e *Embedded) MemberID() uint64 { return uint64(e.server.Server.MemberID()) }
