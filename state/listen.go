package state

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/sixpn/sixpn/internal/strangers"
)

// Listen is where other hosts reach an embedded store, by mutual TLS only, and only those
// of which it holds a record: see CertificateKey.
type Listen struct {
	// Underlay is the address of this host between hosts. Clients are heard at its port
	// + 1, the other members at + 2.
	Underlay netip.AddrPort
	// CertFile has this host's certificate and KeyFile its key, PEM; they may be one file.
	// Both are read again for each connection, so that a renewed one counts at once, and
	// should be replaced by a rename. CAFile has who may have signed those of others; it
	// is read when the store starts.
	CertFile, KeyFile, CAFile string
	// Known is what this host has read of the store by other ways; it counts while the
	// member that listens is behind. It may be nil, as what it returns.
	Known func() *Store
	// Strangers bounds, at each port, the connections of those who have not shown yet that
	// they are hosts of the fleet.
	Strangers strangers.Limits
}

const (
	clientPortOffset = 1
	peerPortOffset   = 2
)

// StoreURL is where clients reach the store of a host, of which this is the address
// between hosts.
func StoreURL(underlay netip.AddrPort) string { return httpsURL(underlay, clientPortOffset).String() }

func httpsURL(underlay netip.AddrPort, offset uint16) *url.URL {
	return &url.URL{Scheme: "https", Host: netip.AddrPortFrom(underlay.Addr(), underlay.Port()+offset).String()}
}

func (l *Listen) client() netip.AddrPort {
	return netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+clientPortOffset)
}

// peer is where the other members are heard.
func (l *Listen) peer() netip.AddrPort {
	return netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+peerPortOffset)
}

func (l *Listen) check() error {
	if !l.Underlay.IsValid() || l.Underlay.Addr().IsUnspecified() || l.Underlay.Addr().Zone() != "" || l.Underlay.Port() == 0 || l.Underlay.Port() > 1<<16-1-peerPortOffset {
		return refuse(Invalid, "underlay", "%v is no address between hosts: expected one address of this host and a port from 1 to %d, since the two above it are used too", l.Underlay, 1<<16-1-peerPortOffset)
	}
	return nil
}

// listen adds the listeners to a server's configuration: sockets, which gates lead to.
func (l *Listen) listen(config *embed.Config, peers string) {
	// How the other members are called. They refuse whom they do not know.
	config.PeerTLSInfo = transport.TLSInfo{CertFile: l.CertFile, KeyFile: l.KeyFile, TrustedCAFile: l.CAFile}
	config.AdvertiseClientUrls = []url.URL{*httpsURL(l.Underlay, clientPortOffset)}
	config.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: peers}} // etcd looks for the path there
	config.AdvertisePeerUrls = []url.URL{*httpsURL(l.Underlay, peerPortOffset)}
}

// join has a new store become a member of one that runs. The names of the others are
// made up: etcd compares addresses.
func (l *Listen) join(config *embed.Config, members []netip.AddrPort) {
	if len(members) == 0 {
		return
	}
	cluster := []string{memberName + "=" + config.AdvertisePeerUrls[0].String()}
	for i, m := range members {
		cluster = append(cluster, fmt.Sprintf("member-%d=%v", i, httpsURL(m, peerPortOffset)))
	}
	config.InitialCluster = strings.Join(cluster, ",")
	config.ClusterState = embed.ClusterStateFlagExisting
}

// movePeer writes where the other members shall find this one, if that is new: the
// member of a store that was on one host only has no address that anybody could reach,
// and what a configuration says counts only when a store is made.
func movePeer(ctx context.Context, client *clientv3.Client, self uint64, l *Listen) error {
	members, err := client.MemberList(ctx)
	if err != nil {
		return unavailable("look for the members of the store", err)
	}
	want := []string{httpsURL(l.Underlay, peerPortOffset).String()}
	for _, m := range members.Members {
		if m.ID != self || slices.Equal(m.PeerURLs, want) {
			continue
		}
		if _, err := client.MemberUpdate(ctx, self, want); err != nil {
			return unavailable("say where this member of the store is", err)
		}
		return nil
	}
	return nil
}

// explainListen says what to do when the address cannot be listened at.
func explainListen(l *Listen, err error) error {
	if l == nil || err == nil {
		return err
	}
	var kind *Error
	if errors.As(err, &kind) {
		return err
	}
	return fmt.Errorf("%w; it listens for other hosts at %v, TCP ports %d and %d: this must be an address of this host, and nobody else may use the ports",
		err, l.Underlay.Addr(), l.Underlay.Port()+clientPortOffset, l.Underlay.Port()+peerPortOffset)
}
