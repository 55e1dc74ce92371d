package state_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// gated is a store of three members, each with a certificate of its own.
type gated struct {
	*authority
	listens []*state.Listen
	dirs    []string
	servers []*state.Embedded
	store   *state.Store // of the first
}

func newGated(t *testing.T) *gated {
	t.Helper()
	g := &gated{authority: newAuthority(t)}
	for i := range 3 {
		l := g.listen(t)
		l.CertFile = g.issue(t, fmt.Sprintf("member-%d", i))
		l.KeyFile = l.CertFile
		l.Known = func() *state.Store { return g.store }
		g.listens, g.dirs = append(g.listens, l), append(g.dirs, directory(t))
	}
	g.servers = []*state.Embedded{startListening(t, g.dirs[0], g.listens[0])}
	for i, l := range g.listens {
		record(t, g.servers[0], fmt.Sprintf("member-%d", i), shown(t, l))
	}
	g.store = open(t, g.servers[0])
	run(t, g.store)
	for i := 1; i < 3; i++ {
		g.servers = append(g.servers, join(t, g.servers[0].Client(), g.listens[i], g.dirs[i]))
	}
	t.Cleanup(func() {
		for _, e := range g.servers {
			must(t, e.Close())
		}
	})
	return g
}

// connect opens a connection to a port of a member, 1 for clients and 2 for members, and
// waits until it is let in. What is returned is closed when the other end closes it.
func connect(t *testing.T, l *state.Listen, offset uint16, config *tls.Config) (closed chan struct{}, err error) {
	t.Helper()
	conn, err := tls.Dial("tcp", netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+offset).String(), config)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	// Who is refused hears of it here.
	if _, err := fmt.Fprintf(conn, "GET /version HTTP/1.1\r\nHost: store\r\n\r\n"); err != nil {
		return nil, err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	closed = make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, conn)
	}()
	return closed, nil
}

// awaitClosed waits for the end of connections.
func awaitClosed(t *testing.T, what string, all ...chan struct{}) {
	t.Helper()
	began := time.Now()
	for _, closed := range all {
		select {
		case <-closed:
		case <-within(t).Done():
			t.Fatalf("%s: a connection stays open", what)
		}
	}
	t.Logf("%s: %d connections ended within %v", what, len(all), time.Since(began))
}

func TestRemovedHostIsCutOff(t *testing.T) {
	t.Parallel()
	g := newGated(t)
	path := g.issue(t, "removed")
	removed := g.clientWith(t, path)
	host := record(t, g.servers[0], "two", removed.Certificates[0].Leaf)
	renewed := g.clientWith(t, g.issueFor(t, "renewed", removed.Certificates[0].PrivateKey.(*ecdsa.PrivateKey)))
	other := g.admitted(t, g.servers[0], "other")
	var open, stay []chan struct{}
	var clients []*clientv3.Client
	var watches []clientv3.WatchChan
	for _, l := range g.listens {
		for offset := uint16(1); offset <= 2; offset++ {
			for _, config := range []*tls.Config{removed, renewed} {
				closed, err := connect(t, l, offset, config)
				must(t, err)
				open = append(open, closed)
			}
		}
		// At the port for clients, where no connection ends for being idle.
		closed, err := connect(t, l, 1, other)
		must(t, err)
		stay = append(stay, closed)
		client := remote(t, state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: removed})
		clients = append(clients, client)
		watches = append(watches, client.Watch(t.Context(), "/sixpn/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
	}
	for _, w := range watches {
		select {
		case first := <-w:
			must(t, first.Err())
		case <-within(t).Done():
			t.Fatal("no watch begins")
		}
	}
	_, err := g.store.RemoveHost(within(t), host.ID, false)
	must(t, err)
	awaitClosed(t, "after the removal", open...)
	refusedEverywhere := func() {
		t.Helper()
		for i, l := range g.listens {
			for offset := uint16(1); offset <= 2; offset++ {
				for _, config := range []*tls.Config{removed, renewed} {
					if _, err := connect(t, l, offset, config); err == nil || !strings.Contains(err.Error(), "bad certificate") {
						t.Errorf("port %d of member %d takes the removed host with %v", offset, i, err)
					}
				}
			}
		}
	}
	refusedEverywhere()
	_, _, err = g.store.CreateOrg(within(t), "secret", "")
	must(t, err)
	for i, client := range clients {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := client.Get(ctx, "/sixpn/"); err == nil {
			t.Errorf("the client of member %d still reads", i)
		}
		if _, err := state.AddLearner(ctx, client, freePorts(t)); err == nil {
			t.Errorf("the client of member %d adds a member", i)
		}
		cancel()
		must(t, client.Close())
		for response := range watches[i] {
			for _, e := range response.Events {
				if strings.Contains(string(e.Kv.Key), "secret") {
					t.Errorf("the watch at member %d goes on", i)
				}
			}
		}
	}
	_, err = state.OpenRemote(within(t), state.RemoteConfig{Fleet: true, Endpoints: []string{state.StoreURL(g.listens[0].Underlay)}, TLS: removed, Patience: time.Second})
	if refused(t, err, state.Conflict, "store"); !strings.Contains(err.Error(), "it was removed") {
		t.Errorf("the removed host is not told what to do: %v", err)
	}

	// Another host of the name gets in, and the old one does not with it.
	again := g.clientWith(t, g.issue(t, "two"))
	record(t, g.servers[0], "two", again.Certificates[0].Leaf)
	for _, l := range g.listens {
		remote(t, state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: again})
	}
	refusedEverywhere()
	for _, closed := range stay {
		select {
		case <-closed:
			t.Error("a connection of another host was closed too")
		default:
		}
	}
}

// Members that all stop start again by what is on their own disks, in any order: none
// answers before two have met.
func TestMembersStartTogether(t *testing.T) {
	t.Parallel()
	g := newGated(t)
	for _, e := range g.servers {
		must(t, e.Close())
	}
	g.servers = nil
	for i, dir := range g.dirs {
		g.listens[i].Known = nil
		g.servers = append(g.servers, startAsync(t, dir, g.listens[i]))
	}
	untilNot(t, state.Unavailable, func() error {
		s, err := state.Open(within(t), g.servers[2].Client(), logTo(t))
		if err != nil {
			return err
		}
		_, _, err = s.CreateOrg(within(t), "after", "")
		if state.KindOf(err) == state.Conflict { // an answer that was lost
			return nil
		}
		return err
	})
}

// A host that was let in has the time of its invitation to get its record, and no more.
func TestNewcomerIsAdmittedForAWhile(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l := a.listen(t)
	e := startListening(t, directory(t), l)
	defer func() { must(t, e.Close()) }()
	s := open(t, e)
	newcomer := a.client(t, "newcomer")
	key := sha256.Sum256(newcomer.Certificates[0].Leaf.RawSubjectPublicKeyInfo)
	if _, err := connect(t, l, 1, newcomer); err == nil {
		t.Fatal("a host that nobody let in is admitted")
	}
	_, _, err := s.CreateInvitation(within(t), state.NewInvitation{ID: "one", Secret: []byte("secret"), Lifetime: time.Hour})
	must(t, err)
	use := state.UseOfInvitation{ID: "one", Secret: []byte("secret"), Key: key, Name: "newcomer", Region: "fra"}
	_, err = s.UseInvitation(within(t), use)
	must(t, err)
	closed, err := eventuallyConnected(t, l, newcomer)
	must(t, err)
	host := record(t, e, "newcomer", newcomer.Certificates[0].Leaf)
	select {
	case <-closed:
		t.Error("who gets its record is cut off")
	default:
	}
	_, err = s.RemoveHost(within(t), host.ID, false)
	must(t, err)
	awaitClosed(t, "after the removal", closed)
	if _, err := s.UseInvitation(within(t), use); state.KindOf(err) != state.NotFound {
		t.Errorf("the removed host uses its invitation again: %v", err)
	}

	// The invitation of one that never came ends in two seconds.
	late := a.client(t, "late")
	key = sha256.Sum256(late.Certificates[0].Leaf.RawSubjectPublicKeyInfo)
	value, err := json.Marshal(state.Invitation{
		ID: "two", UsedAt: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(2 * time.Second), UsedName: "late", UsedBy: hex.EncodeToString(key[:]),
	})
	must(t, err)
	_, err = e.Client().Put(within(t), "/sixpn/v1/fleet/invitations/two", string(value))
	must(t, err)
	closed, err = eventuallyConnected(t, l, late)
	must(t, err)
	awaitClosed(t, "when the time is over", closed)
	if _, err := connect(t, l, 1, late); err == nil {
		t.Error("a host that never came is admitted for ever")
	}
}

// eventuallyConnected connects once the gate knows what was just written.
func eventuallyConnected(t *testing.T, l *state.Listen, config *tls.Config) (closed chan struct{}, err error) {
	t.Helper()
	eventually(t, "a host that was let in is admitted", func() bool {
		closed, err = connect(t, l, 1, config)
		return err == nil
	})
	return closed, err
}
