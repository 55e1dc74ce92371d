package fleet_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

const deadline = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func logTo(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// home is a fleet of one host, whose store is real and whose service listens.
type home struct {
	t       *testing.T
	store   *state.Store
	etcd    *clientv3.Client
	fleet   *fleet.Fleet
	service netip.AddrPort
	dir     string // of the host that joins
}

// newHome serves on 127.0.0.1; change alters the service.
func newHome(t *testing.T, change func(*fleet.ServiceConfig)) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // short: a unix socket must fit in
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	embedded, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t)})
	must(t, err)
	t.Cleanup(func() { must(t, embedded.Close()) })
	h := &home{t: t, etcd: embedded.Client(), dir: t.TempDir()}
	h.store, err = state.Open(within(t), embedded.Client(), logTo(t))
	must(t, err)
	h.task("store", h.store.Run)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	h.service = listener.Addr().(*net.TCPAddr).AddrPort()
	h.fleet = h.member("host-1", 0)
	config := fleet.ServiceConfig{Store: h.store, Endpoints: func(context.Context) ([]string, error) { return []string{state.StoreURL(h.service)}, nil }}
	if change != nil {
		change(&config)
	}
	h.task("service", func(ctx context.Context) error { return h.fleet.Serve(ctx, listener, config) })
	return h
}

// task runs until the test ends.
func (h *home) task(name string, run func(context.Context) error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			h.t.Errorf("%s ended with %v", name, err)
		}
	})
}

// member is a host that has the store, and a certificate.
func (h *home) member(name string, life time.Duration) *fleet.Fleet {
	h.t.Helper()
	f, err := fleet.Open(fleet.Config{Dir: h.t.TempDir(), Name: name, Underlay: h.service, Life: life, Log: logTo(h.t)})
	must(h.t, err)
	changed, err := f.Found(within(h.t), h.store)
	must(h.t, err)
	if !changed || !f.Ready() || f.Joined() {
		h.t.Fatalf("a new member: authority changed %t, ready %t, joined %t", changed, f.Ready(), f.Joined())
	}
	return f
}

// newcomer is a host that wants in, the same one each time.
func (h *home) newcomer() *fleet.Fleet {
	h.t.Helper()
	f, err := fleet.Open(fleet.Config{Dir: h.dir, Name: "host-2", Underlay: netip.MustParseAddrPort("127.0.0.2:51821"), Log: logTo(h.t)})
	must(h.t, err)
	return f
}

// register gives a host its record, and waits until the service knows it.
func (h *home) register(f *fleet.Fleet, name string) state.Host {
	h.t.Helper()
	host, revision, err := h.store.JoinHost(within(h.t), state.NewHost{Name: name, Region: "fra", Token: f.CertificateKey(), CertificateKey: f.CertificateKey()})
	must(h.t, err)
	h.seen(revision)
	return host
}

func (h *home) remove(id sixpn.Host) {
	h.t.Helper()
	revision, err := h.store.RemoveHost(within(h.t), id, false)
	must(h.t, err)
	h.seen(revision)
}

func (h *home) seen(revision int64) {
	h.t.Helper()
	_, err := h.store.Wait(within(h.t), revision-1)
	must(h.t, err)
}

func (h *home) invite(region string, life time.Duration) string {
	h.t.Helper()
	i, revision, err := fleet.Invite(within(h.t), h.store, []netip.AddrPort{h.service}, region, life)
	must(h.t, err)
	if revision == 0 || i.Region != region || time.Until(i.ExpiresAt) > life {
		h.t.Fatalf("invitation %+v of revision %d", i, revision)
	}
	return i.Token
}

// clientOf asks hosts by their addresses as this host does.
func clientOf(f *fleet.Fleet) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: f.ClientTLS(), ForceAttemptHTTP2: true}}
}

// get asks the service as a host with these credentials.
func (h *home) get(client *http.Client) (int, error) {
	response, err := client.Get("https://" + h.service.String() + "/v1/whatever")
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
