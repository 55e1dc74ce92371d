package state_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

func startListening(t *testing.T, dir string, l *state.Listen) *state.Embedded {
	t.Helper()
	e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: l})
	must(t, err)
	return e
}

func remote(t *testing.T, c state.RemoteConfig) *clientv3.Client {
	t.Helper()
	c.Log = logTo(t)
	client, err := state.OpenRemote(within(t), c)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// A store that was on one host only is found by others after a start, with all it held,
// and goes on when its host listens no more.
func TestListenAfterwards(t *testing.T) {
	t.Parallel()
	dir, a := directory(t), newAuthority(t)
	e := start(t, dir)
	populate(t, open(t, e))
	must(t, e.Close())

	l := a.listen(t)
	e = startListening(t, dir, l)
	from := remote(t, state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: a.admitted(t, e, "other")})
	s, err := state.Open(within(t), from, logTo(t))
	must(t, err)
	run(t, s)
	if _, ok := s.Snapshot().Apps["web"]; !ok {
		t.Error("the other host does not see what was there before")
	}
	_, revision, err := s.CreateOrg(within(t), "other", "")
	must(t, err)
	at(t, s, revision)
	members, err := from.MemberList(within(t))
	must(t, err)
	peer := fmt.Sprintf("https://127.0.0.1:%d", l.Underlay.Port()+2)
	if len(members.Members) != 1 || strings.Join(members.Members[0].PeerURLs, ",") != peer || strings.Join(members.Members[0].ClientURLs, ",") != state.StoreURL(l.Underlay) {
		t.Errorf("members %v, expected one at %s", members.Members, peer)
	}
	if endpoints, err := state.StoreEndpoints(within(t), from); err != nil || !slices.Equal(endpoints, []string{state.StoreURL(l.Underlay)}) {
		t.Errorf("the store is at %v, error %v", endpoints, err)
	}
	if h := state.RemoteHealth(within(t), from); !h.Serving || !h.Leader || h.Revision < revision || h.Bytes == 0 {
		t.Errorf("the store is %+v", h)
	}
	must(t, e.Close())

	after := open(t, startClosing(t, dir)).Snapshot()
	if _, ok := after.Orgs["other"]; !ok {
		t.Error("what the other host wrote is gone")
	}
}

func TestListenRefusesStrangers(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	l := a.listen(t)
	e := startListening(t, directory(t), l)
	defer func() { must(t, e.Close()) }()
	known := a.admitted(t, e, "other")
	anonymous := known.Clone()
	anonymous.Certificates = nil
	foreign := known.Clone()
	foreign.Certificates = stranger.client(t, "other").Certificates
	record(t, e, "foreign", foreign.Certificates[0].Leaf) // which is of no use to it
	remote(t, state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: known})
	for name, config := range map[string]*tls.Config{"no certificate": anonymous, "another authority's": foreign, "another authority for the store's": stranger.client(t, "other")} {
		_, err := state.OpenRemote(within(t), state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: config, Patience: 2 * time.Second})
		refused(t, err, state.Unavailable, "")
		if name == "another authority's" {
			// The port for members demands the same.
			conn, err := tls.Dial("tcp", netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+2).String(), config)
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("the port of members answers a stranger with %v", err)
			}
		}
	}
}

// A renewed certificate counts for the next connection, without a restart.
func TestListenTakesUpRenewedCertificate(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l := a.listen(t)
	e := startListening(t, directory(t), l)
	defer func() { must(t, e.Close()) }()
	serial := func() string {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(state.StoreURL(l.Underlay), "https://"), a.client(t, "other"))
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	must(t, os.Rename(a.issue(t, "renewed"), l.CertFile))
	if after := serial(); after == before {
		t.Error("the store still shows the certificate of before")
	}
}

func TestListenWhereItCannot(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for _, underlay := range []string{"[::]:51821", "127.0.0.1:0", "127.0.0.1:65534", "[fe80::1%eth0]:51821"} {
		l := a.listen(t)
		l.Underlay = netip.MustParseAddrPort(underlay)
		dir := directory(t)
		_, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: l})
		refused(t, err, state.Invalid, "underlay")
	}
	l, dir := a.listen(t), directory(t)
	taken, err := net.Listen("tcp", strings.TrimPrefix(state.StoreURL(l.Underlay), "https://"))
	must(t, err)
	if _, err = state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: l}); err == nil || !strings.Contains(err.Error(), "nobody else may use the ports") {
		t.Errorf("on a port that is taken: %v", err)
	}
	taken.Close()
	must(t, startListening(t, dir, l).Close())
}

// An endpoint that is silent, or that nobody is at, does not keep from the one that works.
func TestDeadEndpointsArePassedOver(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l := a.listen(t)
	e := startListening(t, directory(t), l)
	defer func() { must(t, e.Close()) }()
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	client := remote(t, state.RemoteConfig{
		Endpoints: []string{"https://" + silent.Addr().String(), "https://127.0.0.1:1", state.StoreURL(l.Underlay)}, TLS: a.admitted(t, e, "other"),
	})
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := client.Put(ctx, "/key", "value")
		cancel()
		must(t, err)
	}
}

func TestEndpointsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, endpoints := range [][]string{nil, {""}, {"192.0.2.1:2379"}, {"https://192.0.2.1:2379"}} {
		_, err := state.OpenRemote(within(t), state.RemoteConfig{Endpoints: endpoints})
		refused(t, err, state.Invalid, "store")
	}
}

// etcdServer runs Debian's etcd and returns where it is.
func etcdServer(t *testing.T, scheme string, flags ...string) string {
	t.Helper()
	port := freePorts(t)
	client := fmt.Sprintf("%s://%v", scheme, port)
	peer := fmt.Sprintf("http://127.0.0.1:%d", port.Port()+1)
	cmd := exec.Command("/usr/bin/etcd", append([]string{
		"--name", "one", "--data-dir", directory(t), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one=" + peer,
	}, flags...)...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("etcd said:\n%s", &output)
		}
	})
	return client
}

// An operator's own cluster holds all that the embedded store does.
func TestOperatorsCluster(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	certificate := a.issue(t, "server")
	at := etcdServer(t, "https", "--cert-file", certificate, "--key-file", certificate, "--trusted-ca-file", a.caFile(), "--client-cert-auth")
	config := state.RemoteConfig{Endpoints: []string{at}, TLS: a.client(t, "client"), Patience: deadline}
	s, err := state.Open(within(t), remote(t, config), logTo(t))
	must(t, err)
	run(t, s)
	w := populate(t, s)
	w.machine(t, "web-1")
	_, revision, err := w.AllocateVIP(within(t), "web", "", "")
	must(t, err)
	if snapshot, err := s.Wait(within(t), revision-1); err != nil || len(snapshot.Machines) != 1 || len(snapshot.VIPs) != 1 {
		t.Errorf("snapshot %+v, error %v, expected a Machine and an address", snapshot, err)
	}
	anonymous := config
	anonymous.TLS, anonymous.Patience = config.TLS.Clone(), 2*time.Second
	anonymous.TLS.Certificates = nil
	_, err = state.OpenRemote(within(t), anonymous)
	refused(t, err, state.Unavailable, "")
}

// Likewise one with users.
func TestOperatorsClusterWithUsers(t *testing.T) {
	t.Parallel()
	at := etcdServer(t, "http")
	root := remote(t, state.RemoteConfig{Endpoints: []string{at}, Patience: deadline})
	ctx := within(t)
	_, err := root.UserAdd(ctx, "root", "secret")
	must(t, err)
	_, err = root.UserGrantRole(ctx, "root", "root")
	must(t, err)
	_, err = root.AuthEnable(ctx)
	must(t, err)
	for _, row := range []struct {
		name, user, password string
		kind                 state.ErrorKind
	}{
		{"the right password", "root", "secret", 0}, {"a wrong password", "root", "guess", state.Invalid},
		{"an unknown user", "nobody", "secret", state.Invalid}, {"no user", "", "", state.Invalid},
	} {
		client, err := state.OpenRemote(ctx, state.RemoteConfig{Endpoints: []string{at}, User: row.user, Password: row.password})
		if state.KindOf(err) != row.kind {
			t.Errorf("%s: error %v, expected kind %v", row.name, err, row.kind)
		}
		if err == nil {
			must(t, client.Close())
		}
	}
}
