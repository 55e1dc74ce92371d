package wireguard_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/wireguard"
)

// newPeer is a host that does not exist.
func newPeer(t *testing.T, number sixpn.Host) wireguard.Peer {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return wireguard.Peer{Host: number, PublicKey: key.PublicKey().String(), Endpoint: netip.MustParseAddrPort("192.0.2.99:51821")}
}

// A peer that stays as it is keeps its session, whatever happens to others.
func TestUnchangedPeersAreNotTouched(t *testing.T) { engines(t, unchangedPeersAreNotTouched) }

func unchangedPeersAreNotTouched(t *testing.T, a, b *host) {
	before := a.status(b.number)
	first, second := newPeer(t, 100), newPeer(t, 101)
	for name, peers := range map[string][]wireguard.Peer{
		"the same":        {b.peer()},
		"one more":        {first, b.peer()},
		"two more":        {b.peer(), second, first},
		"another instead": {b.peer(), second},
	} {
		a.setPeers(peers...)
		status, err := a.mesh.Peers()
		if err != nil || len(status) != len(peers) {
			t.Fatalf("%s: the device has the peers %v (%v), expected %v", name, status, err, peers)
		}
		if now := a.status(b.number); now.LastHandshake != before.LastHandshake || now.Received < before.Received {
			t.Errorf("%s: host %d is %+v, expected as before, %+v", name, b.number, now, before)
		}
	}
	if !a.ping(b.inside(), await.Limit) {
		t.Error("the session was lost")
	}
	a.setPeers()
	if status, err := a.mesh.Peers(); err != nil || len(status) != 0 {
		t.Errorf("the device has the peers %v (%v), expected none", status, err)
	}
}

// What a host may send is its own prefix, also when its key or its number changes.
func TestPrefixFollowsTheHost(t *testing.T) {
	a := newHost(t, 7)
	a.open()
	one, two := newPeer(t, 100), newPeer(t, 101)
	a.setPeers(one, two)
	one.PublicKey, two.PublicKey = two.PublicKey, one.PublicKey
	a.setPeers(one, two)
	for _, p := range []wireguard.Peer{one, two} {
		if s := a.status(p.Host); s.PublicKey != p.PublicKey {
			t.Errorf("host %d has the key %s, expected %s", p.Host, s.PublicKey, p.PublicKey)
		}
	}
	one.PublicKey = newPeer(t, 100).PublicKey
	a.setPeers(one, two)
	if s := a.status(100); s.PublicKey != one.PublicKey {
		t.Errorf("host 100 has the key %s, expected its new one, %s", s.PublicKey, one.PublicKey)
	}
}

// A peer that moves is followed, and a pass that wants what was wanted before
// does not send its traffic back to where it was, not even one of a new agent.
func TestMovedPeerIsFollowed(t *testing.T) { engines(t, movedPeerIsFollowed) }

func movedPeerIsFollowed(t *testing.T, a, b *host) {
	said := b.peer()
	moved := netip.AddrPortFrom(b.address("192.0.2.77/24"), port)
	b.in(func() error {
		link, err := netlink.LinkByName("underlay")
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr("192.0.2.2/24")
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, old)
	})
	// With the first address of a subnet the others go.
	b.in(func() error {
		link, err := netlink.LinkByName("underlay")
		if err != nil {
			return err
		}
		address, err := netlink.ParseAddr("192.0.2.77/24")
		if err != nil {
			return err
		}
		return netlink.AddrReplace(link, address)
	})
	b.reach(a)
	for name, pass := range map[string]func(){
		"once more":      func() { a.setPeers(said) },
		"by a new agent": func() { a.open(); a.setPeers(said) },
		"with one more":  func() { a.setPeers(said, newPeer(t, 100)) },
	} {
		pass()
		if s := a.status(b.number); s.Endpoint != moved {
			t.Errorf("%s: host %d is at %v, expected where it was heard from, %v", name, b.number, s.Endpoint, moved)
		}
	}
	// A new key alone says nothing about where the host is.
	if _, err := b.mesh.RotateKey(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	said.PublicKey = b.mesh.PublicKey()
	a.setPeers(said)
	if s := a.status(b.number); s.Endpoint != moved {
		t.Errorf("with a new key host %d is at %v, expected where it was, %v", b.number, s.Endpoint, moved)
	}
	said.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.88"), port)
	a.setPeers(said)
	if s := a.status(b.number); s.Endpoint != said.Endpoint {
		t.Errorf("host %d is at %v, expected where it is said to be now, %v", b.number, s.Endpoint, said.Endpoint)
	}
}

// Wrong peers are refused with what is wrong, and change nothing.
func TestWrongPeersAreRefused(t *testing.T) {
	a := newHost(t, 7)
	own := a.open().PublicKey()
	first, other := newPeer(t, 100), newPeer(t, 101)
	a.setPeers(first)
	for name, c := range map[string]struct {
		change func(p *wireguard.Peer)
		said   string
	}{
		"a reserved host":     {func(p *wireguard.Peer) { p.Host = sixpn.HostOwnBackend }, "host number 2 is reserved"},
		"a host twice":        {func(p *wireguard.Peer) { p.Host = first.Host }, "host 100 is there twice"},
		"a key twice":         {func(p *wireguard.Peer) { p.PublicKey = first.PublicKey }, "hosts 100 and 101 have one public key"},
		"this host's own key": {func(p *wireguard.Peer) { p.PublicKey = own }, "own public key"},
		"no key":              {func(p *wireguard.Peer) { p.PublicKey = "" }, "public key \"\" of host 101 is malformed"},
		"a short key":         {func(p *wireguard.Peer) { p.PublicKey = "AAAA" }, "malformed"},
		"no endpoint":         {func(p *wireguard.Peer) { p.Endpoint = netip.AddrPort{} }, "endpoint"},
		"no port":             {func(p *wireguard.Peer) { p.Endpoint = netip.MustParseAddrPort("192.0.2.1:0") }, "endpoint 192.0.2.1:0 of host 101"},
		"every address":       {func(p *wireguard.Peer) { p.Endpoint = netip.MustParseAddrPort("[::]:1") }, "endpoint [::]:1"},
		"a multicast address": {func(p *wireguard.Peer) { p.Endpoint = netip.MustParseAddrPort("224.0.0.1:1") }, "endpoint 224.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := other
			c.change(&wrong)
			err := a.mesh.SetPeers(await.Context(t), []wireguard.Peer{first, wrong})
			if err == nil || !strings.Contains(err.Error(), c.said) {
				t.Errorf("%+v was met with %v, expected %q", wrong, err, c.said)
			}
			if status, err := a.mesh.Peers(); err != nil || len(status) != 1 || status[0].PublicKey != first.PublicKey {
				t.Errorf("the device has the peers %v (%v), expected only %v", status, err, first)
			}
		})
	}
}

// The note about the peers only saves time: without it the next SetPeers decides.
func TestDamagedPeersAreForgotten(t *testing.T) {
	a, b := newMesh(t, "IPv4")
	path := filepath.Join(a.config.Dir, wireguard.PeersFile)
	var noted []wireguard.Peer
	if content, err := os.ReadFile(path); err != nil || json.Unmarshal(content, &noted) != nil || len(noted) != 1 || noted[0] != b.peer() {
		t.Fatalf("noted is %q (%v), expected %v", content, err, b.peer())
	}
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := a.status(b.number)
	a.open()
	if now := a.status(b.number); now.LastHandshake != before.LastHandshake {
		t.Errorf("without the note host %d is %+v, expected as before, %+v", b.number, now, before)
	}
	a.setPeers(b.peer())
	if now := a.status(b.number); now.LastHandshake != before.LastHandshake {
		t.Errorf("then host %d is %+v, expected as before, %+v", b.number, now, before)
	}
}
