package fleet_test

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// A host that was removed asks nothing more, what it had asked ends, and it does not come
// back by what it has: neither by the token it joined with, nor once another host has its
// name.
func TestRemoved(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	h := newHome(t, func(c *fleet.ServiceConfig) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/long" {
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			close(begun)
			<-r.Context().Done() // which ends with the connection
			close(ended)
		})
	})
	removed, token := h.newcomer(), h.invite("", time.Hour)
	must(t, removed.Join(within(t), token, anywhere))
	host := h.register(removed, "host-2")
	client := clientOf(removed)
	response, err := client.Get("https://" + h.service.String() + "/long")
	must(t, err)
	defer response.Body.Close()
	<-begun
	h.remove(host.ID)
	select {
	case <-ended:
	case <-within(t).Done():
		t.Error("what the host had asked goes on after it was removed")
	}
	is := func(what string, f *fleet.Fleet, want int) {
		t.Helper()
		if code, err := h.get(clientOf(f)); err != nil || code != want {
			t.Errorf("%s is answered %d, %v, expected %d", what, code, err, want)
		}
	}
	is("a host that was removed", removed, http.StatusForbidden)
	if err := removed.Join(within(t), token, anywhere); err == nil || !strings.Contains(err.Error(), "removed since") {
		t.Errorf("joining again by the old token: %v", err)
	}

	second := h.member("host-2", 0)
	h.register(second, "host-2")
	is("another host of the name", second, http.StatusOK)
	is("the old host, now that another one has its name", removed, http.StatusForbidden)
}

// The name in a certificate does not make a host of who shows it.
func TestCallsGoToTheHostThatIsMeant(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	before, now := h.member("host-2", 0), h.member("host-2", 0)
	h.register(h.fleet, "host-1")
	h.register(now, "host-2")
	answers := map[string]error{}
	for who, f := range map[string]*fleet.Fleet{"before": before, "now": now} {
		at := serve(t, h, f)
		calls := &http.Client{Transport: h.fleet.Transport(fleet.CallConfig{Find: func(name string) (state.Host, error) {
			host, _ := h.store.Snapshot().HostNamed(name)
			host.Endpoint = at
			return host, nil
		}})}
		response, err := calls.Get("https://host-2/v1/whatever")
		if err == nil {
			response.Body.Close()
		}
		answers[who] = err
	}
	if err := answers["before"]; err == nil || !strings.Contains(err.Error(), "certificate of another host") {
		t.Errorf("a call to the host that had the name before: %v", err)
	}
	must(t, answers["now"])
}

// Renewed, a host is who it was; without what it had, it is another one.
func TestRenewalKeepsTheKey(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	config := fleet.Config{Dir: t.TempDir(), Name: "host-2", Underlay: netip.MustParseAddrPort("192.0.2.7:51821"), Log: logTo(t)}
	open := func() *fleet.Fleet {
		f, err := fleet.Open(config)
		must(t, err)
		_, err = f.Found(within(t), h.store)
		must(t, err)
		return f
	}
	first := open()
	before := certificateOf(t, config.Dir)
	config.Life = time.Hour
	renewed := open()
	if after := certificateOf(t, config.Dir); after.Equal(before) || state.CertificateKey(after) != state.CertificateKey(before) || renewed.CertificateKey() != first.CertificateKey() {
		t.Error("a renewed certificate has another key, or is the same one")
	}
	config.Dir = t.TempDir()
	if other := open(); other.CertificateKey() == first.CertificateKey() {
		t.Error("two hosts have one key")
	}
}

// A certificate that is renewed while the host is connected works for what is connected and
// for what connects next.
func TestRenewedWhileConnected(t *testing.T) {
	t.Parallel()
	h := newHome(t, func(c *fleet.ServiceConfig) {
		c.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	})
	f := h.member("host-2", 4*time.Second)
	h.register(f, "host-2")
	h.task("renewal", func(ctx context.Context) error { return f.KeepCertificate(ctx, h.store) })
	stays := clientOf(f)
	_, first := f.Validity()
	for ctx := within(t); ; {
		for what, client := range map[string]*http.Client{"who is connected": stays, "who connects": clientOf(f)} {
			if code, err := h.get(client); err != nil || code != http.StatusOK {
				t.Fatalf("%s is answered %d, %v", what, code, err)
			}
		}
		if _, until := f.Validity(); until.Sub(first) > 4*time.Second { // a second renewal
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("it is not renewed")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
