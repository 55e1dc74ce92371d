package fleet_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

var anywhere = fleet.Newcomer{Region: "fra"}

func TestJoin(t *testing.T) {
	t.Parallel()
	var caller string
	h := newHome(t, func(c *fleet.ServiceConfig) {
		c.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { caller = fleet.Caller(r.Context()) })
	})
	f := h.newcomer()
	if f.Joined() || f.Ready() {
		t.Fatal("a host is a member before it joined")
	}
	must(t, f.Join(within(t), h.invite("", time.Hour), anywhere))
	if got := strings.Join(f.Endpoints(), ","); !f.Joined() || got != state.StoreURL(h.service) {
		t.Errorf("joined %t, the store is at %s", f.Joined(), got)
	}
	again := h.newcomer() // after a restart
	if !again.Joined() || !again.Ready() {
		t.Fatal("the host has forgotten that it joined")
	}
	if code, err := h.get(clientOf(again)); err != nil || code != http.StatusForbidden {
		t.Errorf("a host that is not in the store yet is answered %d, %v", code, err)
	}
	h.register(again, "host-2")
	if code, err := h.get(clientOf(again)); err != nil || code != http.StatusOK || caller != "host-2" {
		t.Errorf("a member is answered %d, %v, as host %q", code, err, caller)
	}
	var private []string
	for _, name := range []string{"host.pem", "ca.pem", "fleet.json"} {
		info, err := os.Stat(filepath.Join(h.dir, name))
		must(t, err)
		if info.Mode() != 0o600 {
			private = append(private, name+" "+info.Mode().String())
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "join.pem")); len(private) > 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files that others can read: %v; the key to join with: %v", private, err)
	}
}

// A host that was away for longer than its certificate lives comes back by another
// token, and is who it was.
func TestJoinAfterTheCertificateExpired(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	must(t, h.newcomer().Join(within(t), h.invite("", time.Hour), anywhere))
	host := h.register(h.newcomer(), "host-2")
	f, err := fleet.Open(fleet.Config{Dir: h.dir, Name: "host-2", Underlay: netip.MustParseAddrPort("127.0.0.2:51821"), Life: 2 * time.Second, Log: logTo(t)})
	must(t, err)
	_, err = f.Found(within(t), h.store)
	must(t, err)
	for end := time.After(deadline); f.Expired().IsZero(); {
		select {
		case <-end:
			t.Fatal("a certificate of two seconds is still good")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if _, err := h.get(clientOf(f)); err == nil {
		t.Error("a host with an expired certificate is answered")
	}
	if err := f.Join(within(t), h.invite("", time.Hour), anywhere); err == nil || !strings.Contains(err.Error(), "--host-name") {
		t.Errorf("as another host of the same name: %v", err)
	}
	must(t, f.Join(within(t), h.invite("", time.Hour), fleet.Newcomer{Region: "fra", Known: host.ID}))
	if code, err := h.get(clientOf(h.newcomer())); err != nil || code != http.StatusNotFound {
		t.Errorf("after it joined again: %d, %v", code, err)
	}
}

// forge changes what a token says.
func forge(t *testing.T, token string, change func(map[string]any)) string {
	t.Helper()
	content, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "sixpn1."))
	must(t, err)
	says := map[string]any{}
	must(t, json.Unmarshal(content[:len(content)-4], &says))
	change(says)
	content, err = json.Marshal(says)
	must(t, err)
	content = binary.BigEndian.AppendUint32(content, crc32.ChecksumIEEE(content))
	return "sixpn1." + base64.RawURLEncoding.EncodeToString(content)
}

// Each is refused with what is wrong, and the good token works afterwards.
func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	h, other := newHome(t, nil), newHome(t, nil)
	good, used := h.invite("", time.Hour), h.invite("", time.Hour)
	expired, elsewhere := h.invite("", time.Nanosecond), h.invite("ams", time.Hour)
	third, err := fleet.Open(fleet.Config{Dir: t.TempDir(), Name: "host-3", Underlay: h.service, Log: logTo(t)})
	must(t, err)
	must(t, third.Join(within(t), used, anywhere))
	_, revision, err := h.store.RegisterHost(within(t), "taken", "fra", 0)
	must(t, err)
	_, err = h.store.Wait(within(t), revision-1)
	must(t, err)
	foreign := other.invite("", time.Hour)
	set := func(member string, value any) string {
		return forge(t, good, func(says map[string]any) { says[member] = value })
	}
	f := h.newcomer()
	for _, row := range []struct{ name, token, says string }{
		{"empty", "", `begin with "sixpn1."`}, {"garbage", "sixpn1.@@@@", "damaged or cut off"}, {"no prefix", good[7:], `begin with "sixpn1."`},
		{"cut", good[:len(good)-1], "damaged or cut off"}, {"cut in half", good[:len(good)/2], "damaged or cut off"}, {"prefix only", "sixpn1.", "damaged or cut off"},
		{"one letter wrong", good[:20] + string(good[20]^1) + good[21:], "damaged or cut off"}, {"twice", good + good[7:], "damaged or cut off"},
		{"huge", "sixpn1." + strings.Repeat("a", 1<<20), "more than any token"},
		{"no address", set("a", []string{}), "missing"}, {"no secret", set("s", ""), "missing"}, {"a number for an address", set("a", 1), "cannot be read"},
		{"used", used, `was used at`}, {"expired", expired, "expired at"}, {"another region", elsewhere, "--region ams"},
		{"wrong secret", set("s", base64.StdEncoding.EncodeToString([]byte("guess"))), "forged or damaged"},
		{"unknown", set("i", "nothing"), `knows no invitation "nothing"`},
		{"another fleet's authority", forge(t, foreign, func(says map[string]any) { says["a"] = []string{h.service.String()} }), "another certificate authority"},
		{"another fleet's address", set("a", []string{other.service.String()}), "another certificate authority"},
		{"nobody there", set("a", []string{"127.0.0.1:1"}), "connection refused"},
	} {
		err := f.Join(within(t), row.token, anywhere)
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, expected %q", row.name, err, row.says)
		}
		if err != nil && len(row.token) > 20 && strings.Contains(err.Error(), row.token[8:]) {
			t.Errorf("%s: the error repeats the token", row.name)
		}
		if f.Joined() {
			t.Fatalf("%s: the host has joined", row.name)
		}
	}
	named, err := fleet.Open(fleet.Config{Dir: t.TempDir(), Name: "taken", Underlay: h.service, Log: logTo(t)})
	must(t, err)
	if err := named.Join(within(t), good, anywhere); err == nil || !strings.Contains(err.Error(), "--host-name") {
		t.Errorf("a name that another host has: %v", err)
	}
	must(t, f.Join(within(t), good, anywhere))
}

// The first address is dead, the second is that of something else.
func TestJoinAtAnotherHostOfTheToken(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	token := forge(t, h.invite("", time.Hour), func(says map[string]any) {
		says["a"] = []string{"127.0.0.1:1", silent.Addr().String(), h.service.String()}
	})
	must(t, h.newcomer().Join(within(t), token, anywhere))
}

// A host that lost the answer asks again with the same token, even after a restart.
func TestJoinIsRepeatedWhenItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	// A relay that swallows the first answer.
	relay, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer relay.Close()
	lost := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			from, err := relay.Accept()
			if err != nil {
				return
			}
			go h.relay(from, i == 0, lost)
		}
	}()
	token := forge(t, h.invite("", time.Hour), func(says map[string]any) { says["a"] = []string{relay.Addr().String()} })
	if err := h.newcomer().Join(within(t), token, anywhere); err == nil {
		t.Fatal("joined without an answer")
	}
	<-lost
	f := h.newcomer()
	must(t, f.Join(within(t), token, anywhere))
	if !f.Joined() {
		t.Error("the host has not joined")
	}
}

// relay passes bytes both ways; with cut it closes the connection once the service has
// used the invitation.
func (h *home) relay(from net.Conn, cut bool, lost chan struct{}) {
	defer from.Close()
	to, err := net.Dial("tcp", h.service.String())
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(to, from) }() // ends with the connections
	buffer := make([]byte, 1<<16)
	for {
		n, err := to.Read(buffer)
		if err != nil {
			return
		}
		// The store is written before the answer comes.
		if cut && h.invitationUsed() {
			close(lost)
			return
		}
		if _, err := from.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (h *home) invitationUsed() bool {
	got, err := h.etcd.Get(context.Background(), "/sixpn/v1/fleet/invitations/", clientv3.WithPrefix())
	return err == nil && len(got.Kvs) == 1 && strings.Contains(string(got.Kvs[0].Value), "used_by")
}

// Requests that no host makes are refused, and use nothing.
func TestJoinRequestsThatNoHostMakes(t *testing.T) {
	t.Parallel()
	h := newHome(t, func(c *fleet.ServiceConfig) { c.MaxBody = 4 << 10 })
	stranger := &http.Client{Timeout: deadline, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	request := func(key any, name string, addresses ...net.IP) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, IPAddresses: addresses}, key)
		must(t, err)
		return der
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	good := request(key, "host-9", net.IPv4(192, 0, 2, 9))
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	body := func(csr []byte, region string) string {
		content, err := json.Marshal(map[string]any{"id": "none", "secret": []byte("none"), "csr": csr, "region": region})
		must(t, err)
		return string(content)
	}
	for _, row := range []struct {
		name, body string
		code       int
	}{
		{"nothing", "", 400}, {"no JSON", "hello", 400}, {"a list", "[]", 400}, {"oversized", `{"id":"` + strings.Repeat("a", 8<<10) + `"}`, 400},
		{"no CSR", body(nil, "fra"), 400}, {"garbage for a CSR", body([]byte("csr"), "fra"), 400}, {"a signature that is wrong", body(broken, "fra"), 400},
		{"an RSA key", body(request(large, "host-9", net.IPv4(192, 0, 2, 9)), "fra"), 400}, {"another curve", body(request(curve, "host-9", net.IPv4(192, 0, 2, 9)), "fra"), 400},
		{"no address", body(request(key, "host-9"), "fra"), 400}, {"two addresses", body(request(key, "host-9", net.IPv4(192, 0, 2, 9), net.IPv4(192, 0, 2, 8)), "fra"), 400},
		{"no address of a host", body(request(key, "host-9", net.IPv4zero), "fra"), 400}, {"no name of a host", body(request(key, "Host 9", net.IPv4(192, 0, 2, 9)), "fra"), 403},
		{"no region", body(good, "moon"), 403}, {"no invitation", body(good, "fra"), 403},
	} {
		response, err := stranger.Post("https://"+h.service.String()+"/v1/join", "application/json", strings.NewReader(row.body))
		must(t, err)
		content, err := io.ReadAll(response.Body)
		must(t, errors.Join(err, response.Body.Close()))
		if response.StatusCode != row.code || !strings.Contains(string(content), `"error"`) {
			t.Errorf("%s: answer %d %s, expected %d", row.name, response.StatusCode, content, row.code)
		}
	}
	response, err := stranger.Get("https://" + h.service.String() + "/v1/join")
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET by a stranger: %d", response.StatusCode)
	}
}

// Whoever has no certificate of this fleet may join and nothing else.
func TestStrangersMayOnlyJoin(t *testing.T) {
	t.Parallel()
	h, other := newHome(t, func(c *fleet.ServiceConfig) { c.Handler = http.NotFoundHandler() }), newHome(t, nil)
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if code, err := h.get(anonymous); err != nil || code != http.StatusUnauthorized {
		t.Errorf("without a certificate: %d, %v", code, err)
	}
	foreign := clientOf(other.fleet)
	foreign.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	if code, err := h.get(foreign); err == nil {
		t.Errorf("with another fleet's certificate: %d", code)
	}
	if code, err := h.get(clientOf(other.fleet)); err == nil {
		t.Errorf("a host talks to one of another fleet: %d", code)
	}
	plain, err := http.Get("http://" + h.service.String() + "/v1/join")
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %d", plain.StatusCode)
		}
	}
}

func TestInviteNeedsAFleet(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	if _, _, err := fleet.Invite(within(t), h.store, nil, "", time.Hour); err == nil || !strings.Contains(err.Error(), "--underlay") {
		t.Errorf("without an address: %v", err)
	}
	addresses := make([]netip.AddrPort, 100)
	for i := range addresses {
		addresses[i] = netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%x]:51821", i+1))
	}
	i, _, err := fleet.Invite(within(t), h.store, addresses, "", time.Hour)
	must(t, err)
	if err := fleet.CheckToken(i.Token); err != nil || len(i.Token) > 1000 {
		t.Errorf("a token of %d characters: %v", len(i.Token), err)
	}
	if _, _, err := fleet.Invite(within(t), h.store, addresses, "nowhere", time.Hour); state.KindOf(err) != state.Invalid {
		t.Errorf("a region that there is not: %v", err)
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, _, err := fleet.Invite(ctx, h.store, addresses, "", time.Hour); err == nil {
		t.Error("invited without a store")
	}
}

func FuzzToken(f *testing.F) {
	f.Add("sixpn1.")
	f.Add("sixpn1.e30AAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if err := fleet.CheckToken(s); err != nil && !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %v does not say what was expected", s, err)
		}
	})
}
