package api

import (
	"context"
	"math"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListRegions(context.Context, ListRegionsRequestObject) (ListRegionsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	capacity, gateway := map[string]int{}, map[string]bool{}
	for _, host := range snapshot.Hosts {
		if !snapshot.Present(host.ID) {
			continue
		}
		gateway[host.Region] = gateway[host.Region] || host.Gateway
		if host.Draining {
			continue
		}
		capacity[host.Region] += max(0, state.MaxHostMachines-len(snapshot.HostMachines(host.ID)))
	}
	distances := o.config.Distances()
	list := RegionList{Nearest: o.config.Region, Regions: []Region{}}
	for _, r := range state.Regions() {
		region := Region{
			Code: r.Code, Name: r.Name, Latitude: r.Latitude, Longitude: r.Longitude,
			Capacity: capacity[r.Code], GatewayAvailable: gateway[r.Code], GeoRegion: continent(r),
		}
		if kilometres := distances.Kilometres(r.Code); !math.IsInf(kilometres, 1) {
			region.DistanceKm = &kilometres
		}
		if measured, ok := distances.Measured(r.Code); ok {
			took := milliseconds(measured)
			region.RoundTripMs = &took
		}
		list.Regions = append(list.Regions, region)
	}
	return ListRegions200JSONResponse(list), nil
}

// continent is where clients group a region. The borders are coarse: they part the
// places that have large airports, not countries.
func continent(r state.Region) string {
	switch latitude, longitude := r.Latitude, r.Longitude; {
	case longitude < -30 && latitude >= 13:
		return "north_america"
	case longitude < -30:
		return "south_america"
	case longitude > 60 || longitude > 34 && latitude < 40 && latitude > 12:
		return "asia_pacific"
	case latitude < 35:
		return "africa"
	}
	return "europe"
}
