package wireguard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn"
)

const peersFile = "mesh.peers"

// Peer is another host.
type Peer struct {
	Host      sixpn.Host     `json:"host"`
	PublicKey string         `json:"public_key"` // base64
	Endpoint  netip.AddrPort `json:"endpoint"`   // of its mesh, on the underlay
}

// PeerStatus is a peer as the device knows it.
type PeerStatus struct {
	Host      sixpn.Host     // 0 for one that somebody else put there
	PublicKey string         // base64
	Endpoint  netip.AddrPort // where it was heard from last, else where it was said to be
	// LastHandshake is zero before the first one. While there is traffic a session has a
	// handshake every two minutes; one without traffic has none.
	LastHandshake  time.Time
	Received, Sent uint64 // bytes on the underlay, since the peer was added
}

// SetPeers makes the device's peers exactly these: it adds, changes and removes,
// and does not touch a peer that is as it should be. The endpoint of a peer that
// has moved is followed by WireGuard itself, and overwritten only when another
// than before is wanted. Wrong peers change nothing. When the device cannot be
// reached the peers are noted all the same, and a restored one has them. Even when
// nothing changes the device is asked for all of its peers, about 20 µs each: this
// is for when hosts change, not for every snapshot.
func (m *Mesh) SetPeers(ctx context.Context, peers []Peer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted, err := checkPeers(peers, m.key.PublicKey())
	if err != nil {
		return fmt.Errorf("set the peers of the mesh: %w", err)
	}
	changed := !slices.Equal(wanted, m.wanted)
	m.wanted = wanted
	have, err := m.state(ctx)
	if err != nil {
		return err
	}
	if changes := difference(have.Peers, wanted, m.written, true); len(changes) > 0 {
		if err := m.configure(ctx, wgtypes.Config{Peers: changes}); err != nil {
			return fmt.Errorf("set the peers of %s: %w", m.device.Name, err)
		}
		m.log.Debug("the mesh's peers have changed", "device", m.device.Name, "changes", len(changes), "peers", len(wanted))
	}
	m.reached("peers set")
	m.written = endpointsOf(wanted)
	// After the device: a change that is not noted is made once more.
	if !changed {
		return nil
	}
	return writePeers(m.config.Dir, wanted)
}

// Peers lists the device's peers by host.
func (m *Mesh) Peers() ([]PeerStatus, error) {
	have, err := m.state(context.Background())
	if err != nil {
		return nil, err
	}
	list := make([]PeerStatus, 0, len(have.Peers))
	for _, p := range have.Peers {
		list = append(list, PeerStatus{
			Host: hostOf(p), PublicKey: p.PublicKey.String(), Endpoint: endpointOf(p),
			LastHandshake: p.LastHandshakeTime, Received: uint64(p.ReceiveBytes), Sent: uint64(p.TransmitBytes),
		})
	}
	slices.SortFunc(list, func(a, b PeerStatus) int { return cmp.Compare(a.Host, b.Host) })
	return list, nil
}

// checkPeers refuses what cannot be peers, and returns them by host, their
// endpoints in one form.
func checkPeers(peers []Peer, own wgtypes.Key) ([]Peer, error) {
	hosts := make(map[sixpn.Host]bool, len(peers))
	keys := make(map[wgtypes.Key]sixpn.Host, len(peers))
	checked := slices.Clone(peers)
	for i, p := range checked {
		if p.Host < sixpn.FirstHost {
			return nil, fmt.Errorf("host number %d is reserved, expected %d or more", p.Host, sixpn.FirstHost)
		}
		key, err := wgtypes.ParseKey(p.PublicKey)
		if err != nil || key == (wgtypes.Key{}) {
			return nil, fmt.Errorf("public key %q of host %d is malformed, expected 32 bytes as base64", p.PublicKey, p.Host)
		}
		if key == own {
			return nil, fmt.Errorf("host %d has this host's own public key: one of them is a copy of the other; remove the copy and let it join again", p.Host)
		}
		if other, ok := keys[key]; ok {
			return nil, fmt.Errorf("hosts %d and %d have one public key, %s: one of them is a copy of the other; remove the copy and let it join again", other, p.Host, p.PublicKey)
		}
		if hosts[p.Host] {
			return nil, fmt.Errorf("host %d is there twice, with different public keys or endpoints, expected once", p.Host)
		}
		address := p.Endpoint.Addr().Unmap()
		if !address.IsValid() || address.IsUnspecified() || address.IsMulticast() || p.Endpoint.Port() == 0 {
			return nil, fmt.Errorf("endpoint %s of host %d is malformed, expected the address and the port of its mesh", p.Endpoint, p.Host)
		}
		keys[key], hosts[p.Host] = p.Host, true
		checked[i].Endpoint = netip.AddrPortFrom(address, p.Endpoint.Port())
	}
	slices.SortFunc(checked, func(a, b Peer) int { return cmp.Compare(a.Host, b.Host) })
	return checked, nil
}

// difference is what makes the peers of a device those that are wanted, which are
// checked: removals first, as a prefix can be one peer's only. written has the
// endpoints that peers were given last. Without prune nobody is removed.
func difference(have []wgtypes.Peer, wanted []Peer, written map[wgtypes.Key]netip.AddrPort, prune bool) []wgtypes.PeerConfig {
	missing := make(map[wgtypes.Key]Peer, len(wanted))
	for _, p := range wanted {
		missing[parsedKey(p)] = p
	}
	var changes []wgtypes.PeerConfig
	moved := make(map[Peer]netip.AddrPort) // from where hosts whose peer is removed, but for its key, to where
	for _, h := range have {
		w, ok := missing[h.PublicKey]
		if !ok {
			if prune {
				changes = append(changes, wgtypes.PeerConfig{PublicKey: h.PublicKey, Remove: true})
				if e := endpointOf(h); e.IsValid() {
					moved[Peer{Host: hostOf(h), Endpoint: written[h.PublicKey]}] = e
				}
			}
			continue
		}
		delete(missing, h.PublicKey)
		change := wgtypes.PeerConfig{PublicKey: h.PublicKey, UpdateOnly: true}
		prefix := prefixOf(w.Host)
		right := len(h.AllowedIPs) == 1 && h.AllowedIPs[0].String() == prefix.String()
		if !right {
			change.ReplaceAllowedIPs, change.AllowedIPs = true, []net.IPNet{prefix}
		}
		if w.Endpoint != written[h.PublicKey] && w.Endpoint != endpointOf(h) {
			change.Endpoint = net.UDPAddrFromAddrPort(w.Endpoint)
		}
		if !right || change.Endpoint != nil {
			changes = append(changes, change)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(missing), func(a, b wgtypes.Key) int { return slices.Compare(a[:], b[:]) }) {
		p := missing[key]
		endpoint := p.Endpoint
		// A host that changed its key is still where it had moved to.
		if e, ok := moved[Peer{Host: p.Host, Endpoint: endpoint}]; ok {
			endpoint = e
		}
		changes = append(changes, wgtypes.PeerConfig{
			PublicKey: key, Endpoint: net.UDPAddrFromAddrPort(endpoint),
			ReplaceAllowedIPs: true, AllowedIPs: []net.IPNet{prefixOf(p.Host)},
		})
	}
	return changes
}

// parsedKey is for peers that were checked.
func parsedKey(p Peer) wgtypes.Key {
	key, _ := wgtypes.ParseKey(p.PublicKey)
	return key
}

func endpointsOf(peers []Peer) map[wgtypes.Key]netip.AddrPort {
	m := make(map[wgtypes.Key]netip.AddrPort, len(peers))
	for _, p := range peers {
		m[parsedKey(p)] = p.Endpoint
	}
	return m
}

func endpointOf(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	e := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
}

// prefixOf is all that a host may send, and is sent.
func prefixOf(h sixpn.Host) net.IPNet {
	prefix := h.MeshPrefix()
	return net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 128)}
}

// hostOf is the host that a peer's prefix names, 0 for none.
func hostOf(p wgtypes.Peer) sixpn.Host {
	if len(p.AllowedIPs) != 1 {
		return 0
	}
	address, ok := netip.AddrFromSlice(p.AllowedIPs[0].IP)
	if !ok {
		return 0
	}
	f, ok := sixpn.Parse(address)
	h := sixpn.Host(f.Network)
	if prefix := prefixOf(h); !ok || prefix.String() != p.AllowedIPs[0].String() {
		return 0
	}
	return h
}

// writePeers notes what is wanted, so that an engine that died has it again before
// the store is there, and a peer's move is told from a new endpoint.
func writePeers(dir string, peers []Peer) error {
	b, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(dir, peersFile), append(b, '\n'))
}

// readPeers returns none if none were ever noted.
func readPeers(dir string) ([]Peer, error) {
	path := filepath.Join(dir, peersFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var peers []Peer
	if err = json.Unmarshal(b, &peers); err == nil {
		peers, err = checkPeers(peers, wgtypes.Key{})
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not what was written there: %w", path, err)
	}
	return peers, nil
}
