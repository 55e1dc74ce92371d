package nettest

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/wireguard"
)

// FleetConfig is how hosts become a fleet; every field has a default.
type FleetConfig struct {
	Host    Config   // of each
	Regions []string // of one host each; default iad and fra
	IPv6    bool     // hosts reach each other by IPv6, not IPv4
	Fabric  bool     // the underlay is a router, which has IPv6 alone
	Native  bool     // packets travel as they are, over a fabric
	MTU     int      // of the underlay
}

// Fleet is several hosts that share an underlay and nothing else. The first has the
// store; the others joined it.
type Fleet struct {
	Underlay *Underlay
	Hosts    []*Host

	config FleetConfig
}

// NewFleet makes a fleet without hosts. It is to be closed.
func NewFleet(c FleetConfig) (*Fleet, error) {
	if c.Regions == nil {
		c.Regions = []string{"iad", "fra"}
	}
	make := NewUnderlay
	if c.Fabric = c.Fabric || c.Native; c.Fabric {
		make, c.IPv6 = NewFabric, true
	}
	if c.Native {
		c.Host.AgentFlags = append(slices.Clone(c.Host.AgentFlags), "--mesh", "native")
	}
	underlay, err := make(c.MTU)
	return &Fleet{Underlay: underlay, config: c}, err
}

// Start makes the hosts and returns when each knows all others.
func (f *Fleet) Start(ctx context.Context) error {
	for _, region := range f.config.Regions {
		host, err := f.NewHost(region)
		if err != nil {
			return err
		}
		if len(f.Hosts) == 1 {
			err = f.Found(ctx, host)
		} else {
			err = f.Join(ctx, host)
		}
		if err != nil {
			return err
		}
	}
	return f.Meet(ctx)
}

// NewHost makes one more host on the underlay, without an agent.
func (f *Fleet) NewHost(region string) (*Host, error) {
	c := f.config.Host
	c.Underlay = f.Underlay
	h, err := NewHost(c)
	if err != nil {
		return nil, err
	}
	h.config.AgentFlags = append(slices.Clone(c.AgentFlags),
		// All namespaces have the name of this machine.
		"--host-name", h.Name, "--region", region, "--underlay", f.address(h).String())
	f.Hosts = append(f.Hosts, h)
	return h, nil
}

// address is where the others reach a host.
func (f *Fleet) address(h *Host) netip.Addr {
	if f.config.IPv6 {
		return h.Uplink.V6
	}
	return h.Uplink.V4
}

// Join starts a host's agent with an invitation of the first host.
func (f *Fleet) Join(ctx context.Context, h *Host, flags ...string) error {
	token, err := f.Hosts[0].Invite(ctx)
	if err != nil {
		return err
	}
	return f.Found(ctx, h, append(flags, "--join", token)...)
}

// Found starts the agent of a host that has no number yet: the first one of the fleet, or
// one that joins.
func (f *Fleet) Found(ctx context.Context, h *Host, flags ...string) error {
	if err := h.StartAgent(ctx, flags...); err != nil || !f.config.Fabric {
		return err
	}
	return h.Lead(ctx)
}

// Invite asks for a token that lets one more host in.
func (h *Host) Invite(ctx context.Context) (string, error) {
	answer, err := h.Client.CreateInvitationWithResponse(ctx, &api.CreateInvitationParams{}, api.CreateInvitationRequest{})
	if err := api.Check(answer, err); err != nil {
		return "", fmt.Errorf("invite a host: %w", err)
	}
	return answer.JSON201.Token, nil
}

// ForgeToken is a token that differs from a good one in a bit of its secret alone.
func ForgeToken(token string) (string, error) {
	prefix, encoded, _ := strings.Cut(token, ".")
	content, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(content) < crc32.Size {
		return "", fmt.Errorf("%q is no token: %w", token, err)
	}
	says := map[string]any{}
	if err := json.Unmarshal(content[:len(content)-crc32.Size], &says); err != nil {
		return "", err
	}
	secret, err := base64.StdEncoding.DecodeString(says["s"].(string))
	if err != nil {
		return "", err
	}
	secret[0] ^= 1
	says["s"] = secret
	if content, err = json.Marshal(says); err != nil {
		return "", err
	}
	content = binary.BigEndian.AppendUint32(content, crc32.ChecksumIEEE(content))
	return prefix + "." + base64.RawURLEncoding.EncodeToString(content), nil
}

// Remove closes a host without Machines, and takes it out of the fleet if it had joined.
func (f *Fleet) Remove(ctx context.Context, h *Host) error {
	f.Hosts = slices.DeleteFunc(f.Hosts, func(other *Host) bool { return other == h })
	err := h.Close()
	answer, removeErr := f.Hosts[0].Client.RemoveHostWithResponse(ctx, h.Name, &api.RemoveHostParams{})
	var failure *api.Error
	if removeErr = api.Check(answer, removeErr); errors.As(removeErr, &failure) && failure.Code == http.StatusNotFound {
		removeErr = nil // it never joined
	}
	return errors.Join(err, removeErr)
}

// Meet returns once each host with an agent has a way to all the others: a peer of its
// mesh, or a route.
func (f *Fleet) Meet(ctx context.Context) error {
	running := 0
	for _, h := range f.Hosts {
		if h.agent != nil {
			running++
		}
	}
	for _, h := range f.Hosts {
		if h.agent == nil {
			continue
		}
		err := Eventually(ctx, fmt.Sprintf("host %s has a way to each other host", h.Name), func(ctx context.Context) error {
			ways, err := h.ways(ctx)
			if err == nil && ways != running-1 {
				err = fmt.Errorf("its mesh has %d, expected %d", ways, running-1)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Settle returns once the data planes of all hosts have what any of them knew before.
func (f *Fleet) Settle(ctx context.Context) error {
	var latest int64
	for _, h := range f.Hosts {
		status, err := h.Status(ctx)
		if err != nil {
			return err
		}
		latest = max(latest, status.Revision.Wanted)
	}
	for _, h := range f.Hosts {
		if err := h.applies(ctx, latest); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// ways is how many hosts the mesh of a host leads to.
func (h *Host) ways(ctx context.Context) (int, error) {
	status, err := h.Status(ctx)
	if err != nil {
		return 0, err
	}
	if status.Mesh.Mode == api.MeshStatusModeNative {
		routes, err := h.HostRoutes()
		return len(routes), err
	}
	peers, err := h.MeshPeers()
	return len(peers), err
}

// MeshPeers are the peers that the host's device of the mesh has.
func (h *Host) MeshPeers() (peers []wgtypes.Peer, err error) {
	err = h.namespace.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		device, err := client.Device(wireguard.DeviceName(h.Name))
		if err != nil {
			return fmt.Errorf("device of the mesh: %w", err)
		}
		peers = device.Peers
		return nil
	})
	return peers, err
}

// OpenMesh opens the host's device of the mesh as root may: every IPv6 packet that is
// written goes to the other hosts as it is, past the router.
func (h *Host) OpenMesh() (device *os.File, err error) {
	err = h.namespace.Do(func() error {
		device, err = packetSocket(wireguard.DeviceName(h.Name))
		return err
	})
	return device, err
}

// Close closes the hosts, the last one first, and the underlay.
func (f *Fleet) Close() error {
	var errs []error
	for _, h := range slices.Backward(f.Hosts) {
		errs = append(errs, h.Close())
	}
	if f.Underlay != nil {
		errs = append(errs, f.Underlay.Close())
	}
	return errors.Join(errs...)
}

// StartFleet makes a fleet for a test, at whose end it is closed; if the test failed, the
// ends of the logs are shown.
func StartFleet(ctx context.Context, t testing.TB, c FleetConfig) *Fleet {
	t.Helper()
	f := Get[*Fleet](t)(NewFleet(c))
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range f.Hosts {
				t.Log(h.Name, h.lastWords())
			}
		}
		Must(t, f.Close())
	})
	Must(t, f.Start(ctx))
	return f
}

// MeshDevice is a host's device of the mesh.
type MeshDevice struct {
	*netlink.LinkAttrs // with its MTU and counters
	// Kernel is that it is the kernel's WireGuard, which counts packets as they are sealed:
	// after segmentation.
	Kernel bool
}

// MeshDevice is the host's device of the mesh, as it is now.
func (h *Host) MeshDevice() (device MeshDevice, err error) {
	err = h.namespace.Do(func() error {
		link, err := netlink.LinkByName(wireguard.DeviceName(h.Name))
		if err != nil {
			return fmt.Errorf("device of the mesh: %w", err)
		}
		device = MeshDevice{LinkAttrs: link.Attrs(), Kernel: link.Type() == "wireguard"}
		return nil
	})
	return device, err
}
