package state_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// breakable is a client whose connections can be broken, and that notes what it is told.
type breakable struct {
	*clientv3.Client
	mu     sync.Mutex
	conns  []net.Conn
	events []string // keys, in the order of their arrival
}

func newBreakable(t *testing.T, endpoint string) *breakable {
	t.Helper()
	b := &breakable{}
	network, address, found := "unix", "", false
	if address, found = strings.CutPrefix(endpoint, "unix://"); !found {
		network, address = "tcp", strings.TrimPrefix(endpoint, "http://")
	}
	var err error
	b.Client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Logger: zap.NewNop(), BackoffWaitBetween: time.Millisecond,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				b.mu.Lock()
				b.conns = append(b.conns, conn)
				b.mu.Unlock()
			}
			return conn, err
		}), grpc.WithChainStreamInterceptor(b.listen)},
	})
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func (b *breakable) listen(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, cc, method, opts...)
	return listened{stream, b}, err
}

type listened struct {
	grpc.ClientStream
	b *breakable
}

func (l listened) RecvMsg(m any) error {
	err := l.ClientStream.RecvMsg(m)
	if r, ok := m.(*pb.WatchResponse); ok && err == nil {
		l.b.mu.Lock()
		defer l.b.mu.Unlock()
		for _, e := range r.Events {
			l.b.events = append(l.b.events, string(e.Kv.Key))
		}
	}
	return err
}

// heard is the keys of which events have come since it was asked last.
func (b *breakable) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

func (b *breakable) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, conn := range b.conns {
		_ = conn.Close()
	}
	b.conns = nil
}

// follower is a partial Store of a host, and every snapshot of it that was seen.
type follower struct {
	*state.Store
	host   sixpn.Host
	client *breakable
	stop   func()
	seen   []*state.Snapshot
	done   chan struct{}
}

func follow(ctx context.Context, t *testing.T, endpoint string, h sixpn.Host) *follower {
	t.Helper()
	f := &follower{host: h, client: newBreakable(t, endpoint), done: make(chan struct{})}
	f.Store = openWith(t, state.StoreConfig{Client: f.client.Client, Log: logTo(t), Host: h, Partial: true, ProbeInterval: 50 * time.Millisecond})
	f.seen = []*state.Snapshot{f.Snapshot()}
	f.stop = runUntil(t, f.Store)
	go func() {
		defer close(f.done)
		for {
			s, err := f.Next(ctx, f.seen[len(f.seen)-1])
			if err != nil {
				return
			}
			f.seen = append(f.seen, s)
		}
	}()
	return f
}

// isOfOneRevision demands what a read of everything at the snapshot's revision says.
func (f *follower) isOfOneRevision(t *testing.T, s *state.Snapshot, whole map[int64]*state.Snapshot) {
	t.Helper()
	want := concerning(whole[revisionBefore(whole, s.Revision)], f.host)
	if !reflect.DeepEqual(want, state.Snapshot{Networks: s.Networks, Apps: s.Apps, Machines: s.Machines, VIPs: s.VIPs, Hosts: s.Hosts}) {
		sameConcerns(t, fmt.Sprintf("host %v at revision %d", f.host, s.Revision), s, want)
	}
}

// missesNone demands that a Machine that is not the host's any more, after it was, was
// not so at some time.
func (f *follower) missesNone(t *testing.T, before, after *state.Snapshot, whole map[int64]*state.Snapshot) {
	t.Helper()
	for _, m := range before.HostMachines(f.host) {
		if after.Machines[m.ID].Host == f.host {
			continue
		}
		existed, gone := false, false
		for _, r := range slices.Sorted(maps.Keys(whole)) {
			here := whole[r].Machines[m.ID].Host == f.host
			existed = existed || here
			gone = gone || existed && !here && r <= after.Revision
		}
		if !gone {
			t.Errorf("host %v misses its Machine %s at revision %d, after %d", f.host, m.ID, after.Revision, before.Revision)
		}
	}
}

// await waits until a follower has all of that.
func (f *follower) await(t *testing.T, want state.Snapshot) {
	t.Helper()
	for ctx := within(t); ; {
		s := f.Snapshot()
		if reflect.DeepEqual(want, state.Snapshot{Networks: s.Networks, Apps: s.Apps, Machines: s.Machines, VIPs: s.VIPs, Hosts: s.Hosts}) {
			return
		}
		if _, err := f.Next(ctx, s); err != nil {
			sameConcerns(t, fmt.Sprintf("host %v at last", f.host), s, want)
			return
		}
	}
}
