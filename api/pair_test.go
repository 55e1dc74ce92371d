package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// pair is a world with a second host, two: its agent answers hosts by mutual TLS and has
// a Machine that runs. All of it but the kernel and the Machines is real.
type pair struct {
	*world
	one, two *fleet.Fleet
	host     state.Host      // two
	there    *playedMachines // of two
	asked    *playedNames    // of two
	plane    playedPlane     // of two
	machine  state.Machine   // on two, of web
	at       string          // its path
	stopTwo  func()          // ends the service of two

	dial, silence time.Duration
	flood         api.Machines // instead of there, if it is not nil
	most          int          // requests of one host that two answers at once, 0: the default
}

// patience is how long the hosts of a pair wait for each other where it is not that which
// is tested.
const patience = time.Minute

func newPair(t *testing.T) *pair {
	t.Helper()
	return newPairThatWaits(t, patience, patience)
}

// newPairThatWaits makes hosts that wait so long for a connection and for a word.
func newPairThatWaits(t *testing.T, dial, silence time.Duration) *pair {
	t.Helper()
	p := &pair{there: newPlayedMachines(), asked: &playedNames{}, dial: dial, silence: silence}
	p.world = newWorld(t, func(w *world, c *api.Config) {
		p.one = member(t, w.store, "one", "127.0.0.1:1")
		_, revision, err := w.store.JoinHost(t.Context(), state.NewHost{Name: "one", Region: "ams", Known: w.host, CertificateKey: p.one.CertificateKey()})
		must(t, err)
		w.seen(revision)
		c.Carrier = p.transport(p.one, w.store)
	})
	p.seed()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	p.two = member(t, p.store, "two", listener.Addr().String())
	p.host = p.join("two", listener.Addr().String(), p.two)
	p.machine = p.createOn(p.host)
	p.at = "/v1/apps/web/machines/" + p.machine.ID
	p.serve(listener, p.store)
	return p
}

// serve answers as host two, which goes by what a store says.
func (p *pair) serve(l net.Listener, store api.Store) {
	server := api.NewServer(api.Config{
		Store: store, Machines: inside{p}, DataPlane: &p.plane,
		Resolver: p.asked, Pinger: p.asked, Keys: playedKeys{&world{store: p.store, host: p.host.ID}}, Keeper: playedKeeper{},
		// Whatever is carried a second time would end here.
		Carrier: roundTripper(func(r *http.Request) (*http.Response, error) {
			p.t.Errorf("host two asks another one: %s", r.URL)
			return nil, errors.New("carried twice")
		}),
		Host: p.host.ID, Region: "fra", Log: slog.New(slog.NewTextHandler(p.t.Output(), nil)), MaxBody: maxBody, MaxOutput: maxOutput, HostCalls: p.most,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- p.two.Serve(ctx, l, fleet.ServiceConfig{Store: p.store, Handler: server.ForHosts(fleet.Caller), Silence: p.silence})
	}()
	p.stopTwo = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the service of two ended with %v", err)
		}
	})
	p.t.Cleanup(p.stopTwo)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// member is a host with a certificate of the fleet whose authority a store has.
func member(t *testing.T, store fleet.Authorities, name, underlay string) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Open(fleet.Config{Dir: t.TempDir(), Name: name, Underlay: netip.MustParseAddrPort(underlay)})
	must(t, err)
	_, err = f.Found(t.Context(), store)
	must(t, err)
	return f
}

// transport calls as a host that knows the others by the records of a store.
func (p *pair) transport(f *fleet.Fleet, store *state.Store) *http.Transport {
	return f.Transport(fleet.CallConfig{Dial: p.dial, Silence: p.silence, Find: func(name string) (state.Host, error) {
		h, ok := store.Snapshot().HostNamed(name)
		if !ok {
			return state.Host{}, errors.New("there is no such host")
		}
		return h, nil
	}})
}

// join registers a host that is reached at an endpoint.
func (w *world) join(name, endpoint string, f *fleet.Fleet) state.Host {
	w.t.Helper()
	key := sha256.Sum256([]byte(name))
	h, revision, err := w.store.JoinHost(w.t.Context(), state.NewHost{
		Name: name, Region: "fra", Token: name, Endpoint: endpoint, PublicKey: base64.StdEncoding.EncodeToString(key[:]), Version: "v2", CertificateKey: f.CertificateKey(),
	})
	must(w.t, err)
	w.seen(revision)
	return h
}

// createOn makes a Machine of web on a host, and has it started.
func (w *world) createOn(host state.Host) state.Machine {
	w.t.Helper()
	m, revision, err := w.store.CreateMachine(w.t.Context(), state.NewMachine{
		App: "web", Host: host.ID, Config: state.MachineConfig{Init: state.Init{Exec: []string{"sleep", "60"}}},
	})
	must(w.t, err)
	w.seen(revision)
	return w.become(m.ID, state.Started, nil)
}

// askTwo sends a request to host two as another host would.
func (p *pair) askTwo(transport http.RoundTripper, method, path, body string) (answer, error) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, "https://two"+path, strings.NewReader(body))
	must(p.t, err)
	request.Header.Set("Content-Type", contentType(body))
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{code: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); a.code >= http.StatusBadRequest {
		a.into(p.t, &a.failure)
	}
	return a, err
}

// inside is the Machines of two.
type inside struct{ *pair }

func (i inside) Exec(ctx context.Context, id string, c api.Command) (int, error) {
	return i.there.Exec(ctx, id, c)
}

func (i inside) Signal(ctx context.Context, id string, s syscall.Signal) error {
	return i.there.Signal(ctx, id, s)
}

func (i inside) Logs(ctx context.Context, id string, q api.LogQuery, w io.Writer) error {
	if i.flood != nil {
		return i.flood.Logs(ctx, id, q, w)
	}
	return i.there.Logs(ctx, id, q, w)
}

// move has the record of host two say that it is reached elsewhere.
func (p *pair) move(endpoint string) {
	p.t.Helper()
	h, revision, err := p.store.JoinHost(p.t.Context(), state.NewHost{
		Name: p.host.Name, Region: p.host.Region, Known: p.host.ID, Token: p.host.Token, Endpoint: endpoint, PublicKey: p.host.PublicKey,
	})
	must(p.t, err)
	p.seen(revision)
	p.host = h
}

// lose ends a host's lease.
func (w *world) lose(h sixpn.Host) {
	w.t.Helper()
	gone, err := w.etcd.Delete(w.t.Context(), fmt.Sprintf("/sixpn/v1/hosts/%08x/alive", uint32(h)))
	must(w.t, err)
	w.seen(gone.Header.Revision)
}

// cable leads to an address until it is cut, when all that is sent is lost.
type cable struct {
	address string
	mu      sync.Mutex
	isCut   bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	c := &cable{address: listener.Addr().String()}
	var conns []net.Conn
	t.Cleanup(func() {
		listener.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, conn := range conns {
			conn.Close()
		}
	})
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp4", to)
			if err != nil {
				from.Close()
				return
			}
			c.mu.Lock()
			conns = append(conns, from, onward)
			c.mu.Unlock()
			go c.carry(from, onward)
			go c.carry(onward, from)
		}
	}()
	return c
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = true
}

func (c *cable) carry(from, to net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		isCut := c.isCut
		c.mu.Unlock()
		if isCut {
			if err != nil {
				return
			}
			continue
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			to.Close()
			return
		}
	}
}
