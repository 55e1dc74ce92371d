package bench

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// feed answers those who read a store as etcd would that holds a simulated fleet. It
// keeps the keys and makes a record when it is asked for, so the fleet can be larger than
// etcd should be. What a host asks, and all that it does with the answer, is the same.
type feed struct {
	pb.UnimplementedKVServer

	fleet  *simulation
	header *pb.ResponseHeader // of the store that has the models
	keys   []byte             // all of them, one after the other
	places []place            // in the order of the keys

	server *grpc.Server
	client *clientv3.Client
}

// place says where a key is, and what makes its record: the i-th of a model, for the
// number-th copy of it. Without pointers: the collector would follow millions.
type place struct {
	from, number uint32
	length       uint16
	kind, i      uint8
}

// What a record is a copy of.
const (
	ofNothing = iota // it is there once
	ofHost
	ofTenant
	ofMachine
)

// newFeed serves a fleet of so many hosts on a socket in dir. It is to be closed.
func newFeed(ctx context.Context, s *simulation, hosts int, dir string) (*feed, error) {
	now, err := s.embedded.Client().Get(ctx, "/", clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	f := &feed{fleet: s, header: now.Header}
	for i, kv := range s.rest {
		f.add(ofNothing, i, 0, string(kv.Key))
	}
	for kind, count := range map[uint8]int{ofHost: hosts, ofTenant: tenantsAmong(hosts), ofMachine: hosts * machinesOfHost} {
		for number := range count {
			c, err := f.copy(kind, number)
			if err != nil {
				return nil, err
			}
			for i := range c.model {
				f.add(kind, i, number, c.key(i))
			}
		}
	}
	slices.SortFunc(f.places, func(a, b place) int { return bytes.Compare(f.key(a), f.key(b)) })
	path := filepath.Join(dir, "feed")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	f.server = grpc.NewServer()
	pb.RegisterKVServer(f.server, f)
	go func() { _ = f.server.Serve(listener) }() // ends with close
	if f.client, err = clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + path}, Logger: zap.NewNop()}); err != nil {
		f.server.Stop()
		return nil, err
	}
	return f, nil
}

func (f *feed) add(kind uint8, i, number int, key string) {
	f.places = append(f.places, place{from: uint32(len(f.keys)), length: uint16(len(key)), kind: kind, i: uint8(i), number: uint32(number)})
	f.keys = append(f.keys, key...)
}

func (f *feed) key(p place) []byte { return f.keys[p.from : p.from+uint32(p.length)] }

func (f *feed) copy(kind uint8, number int) (copied, error) {
	switch kind {
	case ofHost:
		return f.fleet.host(number)
	case ofTenant:
		return f.fleet.tenant(number), nil
	}
	return f.fleet.machineAt(number), nil
}

func (f *feed) value(p place) ([]byte, error) {
	if p.kind == ofNothing {
		return f.fleet.rest[p.i].Value, nil
	}
	c, err := f.copy(p.kind, int(p.number))
	if err != nil {
		return nil, err
	}
	return []byte(c.value(int(p.i))), nil
}

// at is where a key is among all, or would be.
func (f *feed) at(key []byte) (int, bool) {
	return slices.BinarySearchFunc(f.places, key, func(p place, key []byte) int { return bytes.Compare(f.key(p), key) })
}

// Range answers as etcd does: all records are of the same revision and in order.
func (f *feed) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if r.SortOrder != pb.RangeRequest_NONE || r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0 {
		return nil, status.Error(codes.Unimplemented, "a feed answers in the order of keys, and has one revision")
	}
	from, found := f.at(r.Key)
	until := from
	switch {
	case len(r.RangeEnd) > 0:
		if until, _ = f.at(r.RangeEnd); bytes.Equal(r.RangeEnd, []byte{0}) {
			until = len(f.places)
		}
	case found:
		until++
	}
	until = max(from, until)
	answer := &pb.RangeResponse{Header: f.header, Count: int64(until - from)}
	if r.CountOnly {
		return answer, nil
	}
	if r.Limit > 0 && answer.Count > r.Limit {
		until, answer.More = from+int(r.Limit), true
	}
	for _, p := range f.places[from:until] {
		kv := &mvccpb.KeyValue{Key: f.key(p), CreateRevision: 1, ModRevision: 1, Version: 1}
		if !r.KeysOnly {
			var err error
			if kv.Value, err = f.value(p); err != nil {
				return nil, err
			}
		}
		answer.Kvs = append(answer.Kvs, kv)
	}
	return answer, nil
}

// Txn reads several ranges at once, and does nothing else.
func (f *feed) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	answer := &pb.TxnResponse{Header: f.header, Succeeded: true}
	for _, op := range r.Success {
		read := op.GetRequestRange()
		if read == nil || len(r.Compare) > 0 {
			return nil, status.Error(codes.Unimplemented, "a feed can only be read")
		}
		one, err := f.Range(ctx, read)
		if err != nil {
			return nil, err
		}
		answer.Responses = append(answer.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: one}})
	}
	return answer, nil
}

func (f *feed) close() error {
	err := f.client.Close()
	f.server.Stop()
	if errors.Is(err, context.Canceled) { // so ends a client that was in order
		return nil
	}
	return err
}
