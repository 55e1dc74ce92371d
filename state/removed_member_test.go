package state_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// A member that is taken out of the store ends by itself, while it is asked for all kinds of
// things. What it cannot answer any more it refuses: it is part of an agent, which goes on.
func TestRemovedMemberIsAsked(t *testing.T) {
	t.Parallel()
	g := newGated(t)
	removed := g.servers[2]
	asking, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	var asked atomic.Int64
	client := removed.Client()
	endpoint := client.Endpoints()[0]
	for _, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.Status(ctx, endpoint); return err },
		func(ctx context.Context) error {
			_, err := client.Get(ctx, "/sixpn/", clientv3.WithPrefix(), clientv3.WithSerializable())
			return err
		},
		func(ctx context.Context) error {
			_, err := client.Get(ctx, "/sixpn/", clientv3.WithPrefix())
			return err
		},
		func(ctx context.Context) error {
			_, err := client.MemberList(ctx, clientv3.WithSerializable())
			return err
		},
		func(ctx context.Context) error { _, err := client.Leases(ctx); return err },
		func(ctx context.Context) error { _, err := client.Put(ctx, "/other", ""); return err },
	} {
		group.Go(func() {
			for asking.Err() == nil {
				limited, cancel := context.WithTimeout(asking, 50*time.Millisecond)
				_ = ask(limited) // as long as it is an answer
				cancel()
				asked.Add(1)
			}
		})
	}
	untilNot(t, state.Unavailable, func() error { return state.RemoveMember(within(t), g.servers[0].Client(), removed.MemberID()) })
	if err := removed.Wait(within(t)); state.KindOf(err) != state.Unavailable {
		t.Errorf("the member that was removed ends with %v", err)
	}
	// It is closed a while later, as by an agent that has other things to do.
	before := asked.Load()
	eventually(t, "it is asked after its end", func() bool { return asked.Load() > before+500 })
	must(t, removed.Close())
	g.servers = g.servers[:2]
	stop()
	group.Wait()
}
