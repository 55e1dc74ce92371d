package nettest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/internal/nettest"
)

// TestEtcd: a cluster outlives the loss of each member, in turn and all at once, and
// knows nothing once it was wiped.
func TestEtcd(t *testing.T) {
	for name, plain := range map[string]bool{"TLS": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := nettest.Context(t)
			u := nettest.Get[*nettest.Underlay](t)(nettest.NewUnderlay(0))
			defer func() { nettest.Must(t, u.Close()) }()
			e := nettest.Get[*nettest.Etcd](t)(nettest.StartEtcd(ctx, nettest.EtcdConfig{Underlay: u, Plain: plain}))
			defer func() { nettest.Must(t, e.Close()) }()
			client := nettest.Get[*clientv3.Client](t)(e.Client())
			defer client.Close()

			const all = 3
			written := 0
			write := func() {
				t.Helper()
				put(ctx, t, client, fmt.Sprint("key-", written))
				written++
			}
			write()
			for _, m := range e.Members {
				nettest.Must(t, m.Kill())
				write()
				nettest.Must(t, m.Start(ctx))
			}
			nettest.Must(t, e.Kill())
			refused(ctx, t, client)
			nettest.Must(t, e.Start(ctx))
			if got := count(ctx, t, client); got != written {
				t.Errorf("after the loss of each member %d keys are there, expected %d", got, written)
			}
			// Two members that nobody reaches are no majority, one is none either.
			nettest.Must(t, e.Members[0].Uplink.Cut())
			write()
			nettest.Must(t, e.Members[1].Uplink.Cut())
			refused(ctx, t, client)
			nettest.Must(t, e.Members[0].Uplink.Heal())
			nettest.Must(t, e.Members[1].Uplink.Heal())
			write()
			if got := count(ctx, t, client); got != written || len(e.Members) != all {
				t.Errorf("after cuts %d keys are there, expected %d", got, written)
			}
			nettest.Must(t, e.Wipe())
			nettest.Must(t, e.Start(ctx))
			if got := count(ctx, t, client); got != 0 {
				t.Errorf("a cluster that was wiped has %d keys", got)
			}
		})
	}
}

// put writes a key, however often that takes.
func put(ctx context.Context, t *testing.T, client *clientv3.Client, key string) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "a write is acknowledged", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := client.Put(ctx, key, "value")
		return err
	}))
}

// refused demands that no write is acknowledged.
func refused(ctx context.Context, t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := client.Put(ctx, "refused", "value"); err == nil {
		t.Error("without a majority a write is acknowledged")
	}
}

func count(ctx context.Context, t *testing.T, client *clientv3.Client) int {
	t.Helper()
	var found *clientv3.GetResponse
	nettest.Must(t, nettest.Eventually(ctx, "a read is answered", func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		found, err = client.Get(ctx, "key-", clientv3.WithPrefix())
		return err
	}))
	return len(found.Kvs)
}
