package dns

import (
	"sync"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// View is one snapshot as it is seen from one place, with the zones that were
// asked of so far. A zone is made when somebody first asks of it and kept as long
// as the view, so that an answer costs a look-up, however many Machines there are.
type View struct {
	snapshot  *state.Snapshot
	distances *state.Distances

	apps     sync.Map // by name: a *appZone; only of apps that exist
	networks sync.Map // by sixpn.Network: a *networkZone
}

// NewView is a view of a snapshot. What is nearest is so by the distances from where
// the resolver is.
func NewView(snapshot *state.Snapshot, distances *state.Distances) *View {
	return &View{snapshot: snapshot, distances: distances}
}

// app is the zone of an app of the asker's network.
func (v *View) app(asker sixpn.Network, name string) (*appZone, bool) {
	app, ok := v.snapshot.Apps[name]
	if !ok || app.Network != asker {
		return nil, false
	}
	if made, ok := v.apps.Load(name); ok {
		return made.(*appZone), true
	}
	// Two who ask at once both make it; the first one's stays.
	made, _ := v.apps.LoadOrStore(name, v.newAppZone(app))
	return made.(*appZone), true
}

func (v *View) network(asker sixpn.Network) *networkZone {
	if made, ok := v.networks.Load(asker); ok {
		return made.(*networkZone)
	}
	made, _ := v.networks.LoadOrStore(asker, v.newNetworkZone(asker))
	return made.(*networkZone)
}
