package fleet_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// certificateOf reads what a host shows.
func certificateOf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	path := filepath.Join(dir, "host.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	must(t, err)
	return pair.Leaf
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	dir := t.TempDir()
	config := fleet.Config{Dir: dir, Name: "host-2", Underlay: netip.MustParseAddrPort("192.0.2.7:51821"), Log: logTo(t)}
	open := func() *fleet.Fleet {
		f, err := fleet.Open(config)
		must(t, err)
		return f
	}
	f := open()
	changed, err := f.Found(within(t), h.store)
	must(t, err)
	first := certificateOf(t, dir)
	if !changed || first.Subject.CommonName != "host-2" || !slices.Equal(first.DNSNames, []string{"host-2"}) ||
		!slices.Equal(first.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) || first.IsCA {
		t.Errorf("authority changed %t, certificate of %v for %v", changed, first.Subject, first.DNSNames)
	}
	for _, address := range []string{"192.0.2.7", "127.0.0.1", "::1"} {
		must(t, first.VerifyHostname(address))
	}
	if life := time.Until(first.NotAfter); life > 30*24*time.Hour || life < 30*24*time.Hour-time.Minute {
		t.Errorf("it lives for %v, expected 30 days", life)
	}
	for _, row := range []struct {
		name   string
		change func()
		same   bool
	}{
		{"nothing", func() {}, true},
		{"the port", func() { config.Underlay = netip.MustParseAddrPort("192.0.2.7:4000") }, true},
		{"the address", func() { config.Underlay = netip.MustParseAddrPort("192.0.2.8:4000") }, false},
		{"the name", func() { config.Name = "host-3" }, false},
		{"a shorter life", func() { config.Life = time.Hour }, false},
		{"a longer life", func() { config.Life = 2 * time.Hour }, true},
		{"a damaged file", func() { must(t, os.WriteFile(filepath.Join(dir, "host.pem"), []byte("damage"), 0o600)) }, false},
		{"a lost file", func() { must(t, os.Remove(filepath.Join(dir, "ca.pem"))) }, false},
	} {
		before := certificateOf(t, dir)
		row.change()
		f := open()
		_, err := f.Found(within(t), h.store)
		must(t, err)
		after := certificateOf(t, dir)
		if after.Equal(before) != row.same || f.Expired() != (time.Time{}) {
			t.Errorf("after a change of %s: the same certificate %t, expected %t", row.name, after.Equal(before), row.same)
		}
	}
}

// While it works, a host gets certificate after certificate, and shows the newest to
// whoever connects.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	f := h.member("host-2", 4*time.Second)
	h.task("renewal", func(ctx context.Context) error { return f.KeepCertificate(ctx, h.store) })
	second := serve(t, h, f)
	seen := map[string]bool{}
	end := time.Now().Add(deadline)
	for len(seen) < 3 {
		if time.Now().After(end) {
			t.Fatalf("%d certificates in %v", len(seen), deadline)
		}
		conn, err := tls.Dial("tcp", second, h.fleet.ClientTLS())
		if err != nil {
			t.Fatalf("no connection in between: %v", err)
		}
		seen[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
		conn.Close()
	}
}

// A store that was replaced has another authority, and its host takes it up.
func TestAnotherAuthority(t *testing.T) {
	t.Parallel()
	h, other := newHome(t, nil), newHome(t, nil)
	f := h.member("host-2", 0)
	for i, want := range []bool{true, false} {
		changed, err := f.Found(within(t), other.store)
		must(t, err)
		if changed != want {
			t.Errorf("time %d: changed %t, expected %t", i, changed, want)
		}
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	f := h.member("host-2", time.Second)
	end := time.After(deadline)
	for f.Expired().IsZero() {
		select {
		case <-end:
			t.Fatal("a certificate of a second is still good")
		case <-time.After(time.Millisecond):
		}
	}
	_, err := f.Found(within(t), h.store)
	must(t, err)
}

func TestMemberThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"damage": "damage", "no endpoint": "{}", "no certificate": `{"endpoints":["https://192.0.2.1:51822"]}`} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "fleet.json"), []byte(content), 0o600))
		if _, err := fleet.Open(fleet.Config{Dir: dir, Name: "host-2"}); err == nil || !strings.Contains(err.Error(), "join again") {
			t.Errorf("%s: %v, expected what to do", name, err)
		}
	}
}

func TestEndpointsAreRemembered(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	if h.fleet.Joined() || h.fleet.Endpoints() != nil {
		t.Error("a host with a store of its own thinks that it has joined another")
	}
	f := h.newcomer()
	must(t, f.Join(within(t), h.invite("fra", time.Hour), anywhere))
	want := []string{state.StoreURL(h.service), "https://192.0.2.1:51822"}
	must(t, f.SetEndpoints(want))
	must(t, f.SetEndpoints(nil))
	if got := h.newcomer().Endpoints(); !slices.Equal(got, want) {
		t.Errorf("endpoints %v, expected %v", got, want)
	}
}

// serve has another host of this fleet listen too.
func serve(t *testing.T, h *home, f *fleet.Fleet) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	h.task("service of another host", func(ctx context.Context) error {
		return f.Serve(ctx, listener, fleet.ServiceConfig{Store: h.store})
	})
	return listener.Addr().String()
}
