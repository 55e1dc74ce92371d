package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// defaultUnderlayPort is that of the mesh, UDP, and of the fleet's service, TCP. The
// store is at the two above it.
const defaultUnderlayPort = 51821

// underlayAddr takes an address with its port or without.
func underlayAddr(s string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
			at = netip.AddrPortFrom(addr, defaultUnderlayPort)
		}
	}
	a := at.Addr()
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || at.Port() == 0 || at.Port() > 65533 {
		return netip.AddrPort{}, fmt.Errorf("expected one address of this host that other hosts reach, with a port up to 65533 or without, such as 192.0.2.1 or [2001:db8::1]:%d", defaultUnderlayPort)
	}
	return netip.AddrPortFrom(a.Unmap(), at.Port()), nil
}

func checkUnderlay(s string) error {
	_, err := underlayAddr(s)
	return err
}

// underlay is where other hosts reach this one; invalid: it is alone.
func (c *Config) underlay() netip.AddrPort {
	at, _ := underlayAddr(c.Underlay) // checked when it was set
	return at
}

// native says whether packets travel to other hosts as they are.
func (c *Config) native() bool { return state.MeshMode(c.Mesh) == state.MeshNative }

func (c *Config) fleetDir() string { return filepath.Join(c.StateDir, "fleet") }

// checkStore is the check of one endpoint of the operator's store.
func checkStore(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "http://")
	}
	if _, _, err := net.SplitHostPort(rest); !ok || err != nil {
		return "", errors.New("expected URLs such as https://192.0.2.1:2379")
	}
	return s, nil
}

func checkStoreUser(s string) error {
	if user, password, ok := strings.Cut(s, ":"); !ok || user == "" || password == "" {
		return errors.New("expected a user and a password with a colon between them")
	}
	return nil
}

// checkFleet looks at the settings that only make sense together.
func (c *Config) checkFleet() error {
	// Secrets are checked here, so that the parser of flags does not repeat them.
	if c.Join != "" {
		if err := fleet.CheckToken(c.Join); err != nil {
			return &ConfigError{Key: "join", Message: err.Error()}
		}
	}
	if c.StoreUser != "" {
		if err := checkStoreUser(c.StoreUser); err != nil {
			return &ConfigError{Key: "store_user", Message: err.Error()}
		}
	}
	switch {
	case c.native() && !c.underlay().Addr().Is6():
		return &ConfigError{Key: "mesh", Value: c.Mesh, Message: "packets travel by the routes of the underlay, which must be IPv6: give this host's IPv6 address on it with --underlay, or leave --mesh out for the encrypted mesh"}
	case c.Join != "" && c.Underlay == "":
		return &ConfigError{Key: "join", Message: "a host that joins a fleet must be reached by the others: give its address with --underlay"}
	case c.Join != "" && len(c.Store) > 0:
		return &ConfigError{Key: "join", Message: "a host that is given the store with --store needs no token to join: leave one of both out"}
	case len(c.Store) == 0 && (c.StoreCert != "" || c.StoreKey != "" || c.StoreCA != "" || c.StoreUser != ""):
		return &ConfigError{Key: "store", Message: "expected the endpoints of a store, since certificates or a user for one are given"}
	case c.StoreKey != "" && c.StoreCert == "":
		return &ConfigError{Key: "store_cert", Message: "expected the certificate that belongs to the key"}
	}
	return nil
}

// openFleet listens for other hosts, and finds out what this host is to them. With a
// token it joins, which makes it a host of the fleet for good.
func (a *agent) openFleet(ctx context.Context) error {
	at := a.config.underlay()
	if !at.IsValid() {
		if _, err := os.Stat(filepath.Join(a.config.fleetDir(), fleet.MemberFile)); err == nil && len(a.config.Store) == 0 {
			return &ConfigError{Key: "underlay", Message: "this host has joined a fleet: give the address that the others reach it at"}
		}
		return nil
	}
	known, err := readIdentity(a.config.identityPath())
	if err != nil {
		return fmt.Errorf("read which host this is: %w", err)
	}
	a.fleet, err = fleet.Open(fleet.Config{
		Dir: a.config.fleetDir(), Name: cmp.Or(known.Name, a.config.HostName), Underlay: at, Life: a.config.Timeouts.Certificate, Log: a.log,
	})
	if err != nil {
		return err
	}
	if a.hosts, err = (&net.ListenConfig{}).Listen(ctx, "tcp", at.String()); err != nil {
		return fmt.Errorf("listen for other hosts at %v: %w: --underlay must be an address of this host, with a TCP port that nobody else uses", at, err)
	}
	a.closers = append(a.closers, func() error {
		if err := a.hosts.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if len(a.config.Store) > 0 {
		return nil // who has the store needs nobody's leave
	}
	return a.joinFleet(ctx, known)
}

// joinFleet uses the token, if there is one and it is needed.
func (a *agent) joinFleet(ctx context.Context, known identity) error {
	expired := a.fleet.Expired()
	switch {
	case a.fleet.Joined() && expired.IsZero() && (known.Host != 0 || a.config.Join == ""):
		if a.config.Join != "" {
			a.log.Info("this host has joined the fleet before: the token is not used")
		}
		return nil
	case a.fleet.Joined() && a.config.Join == "":
		return fmt.Errorf("the certificate of this host expired at %s, while no agent ran to renew it: get a token with \"sixpn hosts invite\" on another host, and start with --join TOKEN; the host stays what it was", expired.Format(time.RFC3339))
	case a.config.Join == "":
		return nil
	}
	if !a.fleet.Joined() && state.HasData(a.config.storeDir()) {
		return fmt.Errorf("this host has a store of its own, in %s: a host joins a fleet with an empty state directory; look whether what it holds is needed, then \"sixpn agent reset --state\" removes it", a.config.storeDir())
	}
	return a.fleet.Join(ctx, a.config.Join, fleet.Newcomer{Region: a.config.Region, Known: known.Host})
}

// foundTimeout is for the store, once it was read.
const foundTimeout = 5 * time.Second

// foundFleet makes sure of the fleet's authority, once there is a store, and of this
// host's certificate. The embedded store starts again where it was not heard by other
// hosts yet, or with another authority.
func (a *agent) foundFleet(ctx context.Context) error {
	if a.fleet == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, foundTimeout)
	defer cancel()
	changed, err := a.fleet.Found(limited, a.store)
	switch {
	case state.KindOf(err) == state.Unavailable && a.fleet.Ready():
		a.log.Warn("the fleet's certificate authority cannot be compared while the store is away", "error", err)
		return nil
	case err != nil:
		return err
	case !changed:
		return nil
	case a.embedded == nil && a.fleet.Joined() && len(a.config.Store) == 0:
		return errors.New("the fleet has another certificate authority than the one this host joined: its store was replaced; start again")
	case a.embedded == nil:
		return nil
	}
	err = a.embedded.Close()
	a.embedded, a.client = nil, nil
	if err != nil {
		return err
	}
	return a.openOwnStore(ctx, true)
}

// certificateKey is what the other hosts know this one by; empty for one that is alone.
func (a *agent) certificateKey() string {
	if a.fleet == nil {
		return ""
	}
	return a.fleet.CertificateKey()
}

// keepCertificate has this host's certificate renewed.
func (a *agent) keepCertificate(ctx context.Context) error {
	if a.fleet == nil {
		<-ctx.Done()
		return nil
	}
	return a.fleet.KeepCertificate(ctx, a.store)
}

// serveFleet answers other hosts.
func (a *agent) serveFleet(ctx context.Context) error {
	if a.fleet == nil {
		<-ctx.Done()
		return nil
	}
	a.log.Info("other hosts reach this one", "address", a.config.underlay())
	return a.fleet.Serve(ctx, a.hosts, fleet.ServiceConfig{
		Store: a.store, Endpoints: a.endpointsForNewcomers, Handler: a.calls(), Silence: a.config.Timeouts.Silence,
	})
}

// endpointsForNewcomers is where the store is, for a host that joins.
func (a *agent) endpointsForNewcomers(ctx context.Context) ([]string, error) {
	if len(a.config.Store) > 0 {
		return nil, errOperatorsStore
	}
	endpoints, err := storeEndpoints(ctx, a.client)
	if err != nil {
		return nil, err
	}
	if a.embedded != nil { // which may have started a moment ago
		endpoints = append(endpoints, state.StoreURL(a.config.underlay()))
	}
	slices.Sort(endpoints)
	return slices.Compact(endpoints), nil
}

var errOperatorsStore = errors.New("the store of this fleet is an etcd cluster of its own: start the new host with --store, and the credentials for it, instead of a token")

// inviter is the API's way to let other hosts in; nil for a host that is alone.
func (a *agent) inviter() api.Inviter {
	if a.fleet == nil {
		return nil
	}
	return inviter{a}
}

type inviter struct{ *agent }

// Invite is api.Inviter. The token names this host first, then others that are there.
func (i inviter) Invite(ctx context.Context, region string, life time.Duration) (api.Invitation, int64, error) {
	if len(i.config.Store) > 0 {
		return api.Invitation{}, 0, api.NotReady("%v", errOperatorsStore)
	}
	own := i.config.underlay()
	addresses := []netip.AddrPort{own}
	snapshot := i.store.Snapshot()
	for id, h := range snapshot.Hosts {
		if at, err := netip.ParseAddrPort(h.Endpoint); err == nil && id != i.host.ID && snapshot.Present(id) {
			addresses = append(addresses, at)
		}
	}
	made, revision, err := fleet.Invite(ctx, i.store, addresses, region, life)
	return api.Invitation{ID: made.ID, Token: made.Token, Region: made.Region, ExpiresAt: made.ExpiresAt}, revision, err
}
