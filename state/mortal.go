package state

import (
	"context"
	"sync/atomic"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// mortal is a server of etcd that may end by itself, because its member was taken out of the
// store. It goes on to take requests then until it is closed, and panics at some: it cannot
// find itself among the members, or has closed its database. The agent is to go on, so they
// are refused, and of one that was begun before a panic is no more than an error.
type mortal struct {
	server atomic.Pointer[etcdserver.EtcdServer] // nil until it has started
}

var errEndedMember = status.Error(codes.Unavailable, "this member of the store has ended")

// ended is whether the server cannot be what it was.
func (m *mortal) ended() bool {
	s := m.server.Load()
	if s == nil {
		return false
	}
	select {
	case <-s.StoppingNotify():
		return true
	default:
		return s.Cluster().Member(s.MemberID()) == nil
	}
}

// survive is to be deferred around what asks the server. It makes a panic of one that has
// ended an error; of one that works it is what it was.
func (m *mortal) survive(err *error) {
	if p := recover(); p != nil {
		if !m.ended() {
			panic(p)
		}
		*err = errEndedMember
	}
}

// options go around all that etcd does with a request.
func (m *mortal) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
			if m.ended() {
				return nil, errEndedMember
			}
			defer m.survive(&err)
			return handle(ctx, request)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
			if m.ended() {
				return errEndedMember
			}
			defer m.survive(&err)
			return handle(server, stream)
		}),
	}
}
