package api

import (
	"context"
	"errors"
	"maps"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) GetMetadata(_ context.Context, r GetMetadataRequestObject) (GetMetadataResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	metadata := Metadata{}
	maps.Copy(metadata, m.Config.Metadata)
	return GetMetadata200JSONResponse(metadata), nil
}

func (o *operations) GetMetadataKey(_ context.Context, r GetMetadataKeyRequestObject) (GetMetadataKeyResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	value, ok := m.Config.Metadata[r.Key]
	if !ok {
		return nil, notFound("key", "Machine %s has no metadata %q", m.ID, r.Key)
	}
	return GetMetadataKey200JSONResponse(MetadataValue{Value: value}), nil
}

func (o *operations) SetMetadataKey(ctx context.Context, r SetMetadataKeyRequestObject) (SetMetadataKeyResponseObject, error) {
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		if m.Config.Metadata == nil {
			m.Config.Metadata = map[string]string{}
		}
		m.Config.Metadata[r.Key] = r.Body.Value
		return nil
	})
	if err != nil {
		return nil, entryAtFault(err)
	}
	return SetMetadataKey204Response{Headers: SetMetadataKey204ResponseHeaders{SixpnRevision: revision}}, nil
}

// entryAtFault says which of the two a refused entry is wrong by.
func entryAtFault(err error) error {
	var stored *state.Error
	if !errors.As(err, &stored) || stored.Kind != state.Invalid {
		return err
	}
	answer := fromState(stored)
	answer.Failure.Field = "value"
	if stored.Field == "config.metadata" { // of a value, the key follows
		answer.Failure.Field = "key"
	}
	answer.Failure.Error = answer.Failure.Field + ": " + stored.Message
	return answer
}

func (o *operations) DeleteMetadataKey(ctx context.Context, r DeleteMetadataKeyRequestObject) (DeleteMetadataKeyResponseObject, error) {
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		delete(m.Config.Metadata, r.Key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return DeleteMetadataKey204Response{Headers: DeleteMetadataKey204ResponseHeaders{SixpnRevision: revision}}, nil
}
