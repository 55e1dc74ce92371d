package state

import (
	"context"
	"fmt"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// gates is both ways into a member of the store, and who keeps them. nil, they do nothing:
// the member is heard on its own host only.
type gates struct {
	admission
	clients, peers *gate
	end            func()
}

// openGates takes the ports, so that it is known before etcd starts that they are free.
func openGates(c EmbeddedConfig) (*gates, error) {
	l := c.Listen
	if l == nil {
		return nil, nil
	}
	g := &gates{admission: admission{known: l.Known, log: c.Log}, end: func() {}}
	g.changed = func() {
		g.clients.expel()
		g.peers.expel()
	}
	// gRPC is HTTP/2. Members talk by HTTP/1.1, several times within the time that etcd
	// gives their connections.
	client, err := l.gateTLS("h2", "http/1.1")
	if err != nil {
		return nil, err
	}
	peer, err := l.gateTLS("http/1.1")
	if err != nil {
		return nil, err
	}
	if g.clients, err = openGate(l.client(), filepath.Join(c.Dir, socketName), client, 0, l.Strangers, &g.admission); err != nil {
		return nil, err
	}
	if g.peers, err = openGate(l.peer(), filepath.Join(c.Dir, peersName), peer, rafthttp.ConnReadTimeout, l.Strangers, &g.admission); err != nil {
		g.clients.close()
		return nil, err
	}
	return g, nil
}

// serve lets in who is admitted by the state of this server, and goes on to look at it.
func (g *gates) serve(ctx context.Context, server *etcdserver.EtcdServer, m *mortal) error {
	if g == nil {
		return nil
	}
	g.member = m
	g.cluster = uint64(server.Cluster().ID())
	g.client = v3client.New(server)
	if err := g.read(ctx); err != nil {
		return fmt.Errorf("read who is in the fleet: %w", err)
	}
	g.clients.serve()
	g.peers.serve()
	g.end = beside(context.Background(), g.follow)
	return nil
}

// closeClients goes before etcd is closed, which would wait for them.
func (g *gates) closeClients() {
	if g != nil {
		g.end()
		g.clients.close()
	}
}

// close goes after: the other members are told that this one ends.
func (g *gates) close() {
	if g == nil {
		return
	}
	g.end()
	if g.client != nil {
		g.client.Close()
	}
	g.clients.close()
	g.peers.close()
}
