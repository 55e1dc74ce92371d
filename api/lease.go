package api

import (
	"cmp"
	"context"
	"time"

	"github.com/sixpn/sixpn/state"
)

// How long a lease lasts, in seconds.
const (
	leaseDefault = int(state.DefaultLeaseTTL / time.Second)
	leaseLongest = int(state.MaxLeaseTTL / time.Second)
)

func (o *operations) GetLease(_ context.Context, r GetLeaseRequestObject) (GetLeaseResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	if !m.Lease.HeldAt(time.Now()) {
		return nil, notFound("", "nobody holds a lease of Machine %s", m.ID)
	}
	return GetLease200JSONResponse(leaseOf(*m.Lease)), nil
}

func (o *operations) AcquireLease(ctx context.Context, r AcquireLeaseRequestObject) (AcquireLeaseResponseObject, error) {
	var asked LeaseRequest
	if r.Body != nil {
		asked = *r.Body
	}
	seconds := cmp.Or(asked.TTL, leaseDefault)
	if queryOf(ctx).Has("ttl") {
		seconds = r.Params.TTL
		if asked.TTL != 0 && asked.TTL != seconds {
			return nil, invalid("ttl", "ttl is %d in the query and %d in the body, expected it in one of them", seconds, asked.TTL)
		}
	}
	if seconds < 1 || seconds > leaseLongest {
		return nil, invalid("ttl", "ttl is %d, expected 1 to %d seconds", seconds, leaseLongest)
	}
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID); err != nil {
		return nil, err
	}
	lease, revision, err := o.config.Store.AcquireLease(ctx, r.MachineID, state.LeaseRequest{
		Nonce: r.Params.FlyMachineLeaseNonce, TTL: time.Duration(seconds) * time.Second,
		Owner: asked.Owner, Description: asked.Description,
	})
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return AcquireLease201JSONResponse{
		Body: leaseOf(lease), Headers: AcquireLease201ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) ReleaseLease(ctx context.Context, r ReleaseLeaseRequestObject) (ReleaseLeaseResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID); err != nil {
		return nil, err
	}
	revision, err := o.config.Store.ReleaseLease(ctx, r.MachineID, r.Params.FlyMachineLeaseNonce)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return ReleaseLease200JSONResponse{done(revision)}, nil
}

// checkLeaseTTL judges the member of a request that takes a lease with it.
func checkLeaseTTL(seconds int) error {
	if seconds < 0 || seconds > leaseLongest {
		return invalid("lease_ttl", "lease_ttl is %d, expected 0 (no lease) to %d seconds", seconds, leaseLongest)
	}
	return nil
}

func leaseOf(l state.Lease) LeaseAnswer {
	return LeaseAnswer{Status: "success", Data: Lease{
		Nonce: l.Nonce, ExpiresAt: l.ExpiresAt.Unix(), Owner: l.Owner, Description: l.Description, Version: l.Version,
	}}
}
