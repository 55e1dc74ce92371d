package agent

import (
	"errors"
	"net/url"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
	"github.com/sixpn/sixpn/wireguard"
)

// reportPath is where an agent says how it does, to agents of other hosts.
const reportPath = "/v1/report"

// report is what an agent says of itself when another host's asks. It is asked for when
// somebody looks, and written nowhere: a fleet at rest costs the store nothing but the
// heartbeats, however many hosts there are. Agents one release apart read each other's:
// fields are added, never changed.
type report struct {
	Host    sixpn.Host `json:"host"`
	Time    time.Time  `json:"time"` // by this host's clock
	Version string     `json:"version"`
	Mesh    string     `json:"mesh,omitempty"` // see api.HostReport
	MTU     int        `json:"mtu,omitempty"`  // of its mesh device
	XDP     string     `json:"xdp,omitempty"`  // likewise
	Wanted  int64      `json:"wanted"`
	Applied int64      `json:"applied"`
	Trouble string     `json:"trouble,omitempty"`
	// Received is how many bytes came from the host that asks, by this one's mesh device.
	Received uint64 `json:"received"`
}

// report is this host's, for another one; 0 for nobody in particular.
func (a *agent) report(asker sixpn.Host) report {
	progress := a.progress()
	r := report{
		Host: a.host.ID, Time: a.config.Clock(), Version: a.config.Version,
		Wanted: progress.Wanted, Applied: progress.Applied, Trouble: a.trouble(progress),
	}
	if a.native != nil {
		device, xdp := a.native.seen()
		r.Mesh, r.MTU, r.XDP = string(state.MeshNative), int(device.mtu), xdp.String()
	}
	if a.mesh != nil {
		device := a.mesh.Device()
		r.Mesh, r.MTU = "userspace", int(device.MTU)
		if device.Kernel {
			r.Mesh = "kernel"
		}
		r.Received = a.meshPeer(asker).Received
	}
	return r
}

func (r report) shown() *api.HostReport {
	return &api.HostReport{Version: r.Version, Mesh: r.Mesh, XDP: r.XDP, Wanted: r.Wanted, Applied: r.Applied, Trouble: r.Trouble}
}

// meshPeer is what the mesh device knows of a host; zero of one that is no peer.
func (a *agent) meshPeer(host sixpn.Host) wireguard.PeerStatus { return a.meshPeersNow()[host] }

// meshPeersNow is what the mesh device knows of other hosts, as long as it can be asked.
func (a *agent) meshPeersNow() map[sixpn.Host]wireguard.PeerStatus {
	known := map[sixpn.Host]wireguard.PeerStatus{}
	if a.mesh == nil {
		return known
	}
	peers, err := a.mesh.Peers()
	if err != nil {
		a.log.Warn("the mesh device cannot be asked for its peers", "error", err)
	}
	for _, p := range peers {
		known[p.Host] = p
	}
	return known
}

// withoutURL is the error of a call without what the caller knows: where it went.
func withoutURL(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// latest is the last of some times.
func latest(times ...time.Time) time.Time {
	last := time.Time{}
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
