package api_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// playedMachines is the Machines of a host: their logs are what tests append.
type playedMachines struct {
	exec   func(ctx context.Context, id string, c api.Command) (int, error)
	signal func(id string, s syscall.Signal) error

	mu      sync.Mutex
	log     []byte
	changed chan struct{}
	failure error
}

func newPlayedMachines() *playedMachines {
	return &playedMachines{changed: make(chan struct{})}
}

func (p *playedMachines) Exec(ctx context.Context, id string, c api.Command) (int, error) {
	return p.exec(ctx, id, c)
}

func (p *playedMachines) Signal(_ context.Context, id string, s syscall.Signal) error {
	return p.signal(id, s)
}

func (p *playedMachines) append(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, text...)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *playedMachines) Logs(ctx context.Context, _ string, q api.LogQuery, w io.Writer) error {
	written := 0
	if q.Stamped {
		if _, err := io.WriteString(w, "2026-01-02T03:04:05.000000006Z "); err != nil {
			return err
		}
	}
	for ended := !q.Follow; ; {
		p.mu.Lock()
		more, changed, failure := p.log[written:], p.changed, p.failure
		p.mu.Unlock()
		if failure != nil {
			return failure
		}
		n, err := w.Write(more)
		written += n
		if err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			ended = true
		case <-changed:
		}
	}
}

// playedPlane is a data plane that has what release says.
type playedPlane struct {
	status  api.Status
	live    api.Live
	failure error

	mu      sync.Mutex
	asked   []int64
	release chan struct{} // nil: at once
}

func (p *playedPlane) Status(context.Context) (api.Status, error) { return p.status, p.failure }

func (p *playedPlane) Live(context.Context, state.Machine) (api.Live, error) {
	return p.live, p.failure
}

func (p *playedPlane) Applied(ctx context.Context, revision int64) error {
	p.mu.Lock()
	p.asked = append(p.asked, revision)
	release := p.release
	p.mu.Unlock()
	if release == nil {
		return p.failure
	}
	select {
	case <-release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// playedInviter is a fleet that keeps its invitations in the store.
type playedInviter struct{ store *state.Store }

func (p playedInviter) Invite(ctx context.Context, region string, life time.Duration) (api.Invitation, int64, error) {
	i, revision, err := p.store.CreateInvitation(ctx, state.NewInvitation{ID: "invitation", Secret: []byte("secret"), Region: region, Lifetime: life})
	return api.Invitation{ID: i.ID, Token: "sixpn1.token", Region: i.Region, ExpiresAt: i.ExpiresAt}, revision, err
}

// playedKeys is a host that has a key in its record, and no mesh.
type playedKeys struct{ world *world }

func (p playedKeys) RotateKey(ctx context.Context) (int64, error) {
	return rotateKey(ctx, p.world.store, p.world.host)
}

// rotateKey gives a host some key.
func rotateKey(ctx context.Context, store *state.Store, id sixpn.Host) (int64, error) {
	h := store.Snapshot().Hosts[id]
	key := make([]byte, 32)
	_, _ = rand.Read(key) // which never fails
	_, revision, err := store.JoinHost(ctx, state.NewHost{
		Name: h.Name, Region: h.Region, Known: h.ID, Token: h.Token, PublicKey: base64.StdEncoding.EncodeToString(key),
	})
	return revision, err
}

// playedKeeper is a store of one member and one line.
type playedKeeper struct{}

func (playedKeeper) StoreStatus(context.Context) (api.StoreStatus, error) {
	return api.StoreStatus{Kind: api.StoreStatusKindHost, Revision: 1}, nil
}

func (playedKeeper) Export(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "{}\n")
	return err
}

// playedNames is a resolver and a pinger that tell what they were asked.
type playedNames struct {
	failure error
	after   int // lines before the failure

	network sixpn.Network
	name    string
	kind    string
	echo    api.Echo
}

func (p *playedNames) Resolve(_ context.Context, network sixpn.Network, name, kind string) (api.DigResult, error) {
	p.network, p.name, p.kind = network, name, kind
	return api.DigResult{
		Rcode: "NOERROR", Name: name, Type: kind,
		Answers: []api.DNSRecord{{Name: name, Type: kind, TTL: 5, Data: "fdaa::3"}},
	}, p.failure
}

func (p *playedNames) Ping(_ context.Context, network sixpn.Network, e api.Echo, report func(api.PingLine) error) error {
	p.network, p.echo = network, e
	for i := range e.Count {
		if p.failure != nil && i == p.after {
			return p.failure
		}
		if err := report(api.PingLine{Type: "reply", Target: e.Target, Address: "fdaa::3", Sequence: i + 1, Bytes: e.Size, RoundTripUs: 50}); err != nil {
			return err
		}
	}
	return report(api.PingLine{Type: "summary", Target: e.Target, Address: "fdaa::3", Sent: e.Count, Received: e.Count})
}
