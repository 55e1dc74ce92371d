package api

import "context"

func (o *operations) GetStatus(ctx context.Context, _ GetStatusRequestObject) (GetStatusResponseObject, error) {
	status, err := o.config.DataPlane.Status(ctx)
	if err != nil {
		return nil, err
	}
	// A list without elements is [] for programs, never null.
	status.Ports = filled(status.Ports)
	status.Services = filled(status.Services)
	status.Drops = filled(status.Drops)
	for i := range status.Services {
		status.Services[i].Backends = filled(status.Services[i].Backends)
	}
	return GetStatus200JSONResponse(status), nil
}

func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
