package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// holds says whether a lease is in force beyond doubt.
func (l *leaseFact) holds() bool { return time.Now().Before(l.until) }

// leaseIsClear says whether it is known who may change a Machine, and will be for a
// moment: no lease of unknown nonce, none that is about to end.
func (m *machineFact) leaseIsClear() bool {
	if m.lease != nil && time.Now().After(m.lease.over) {
		m.lease = nil
	}
	return !time.Now().Before(m.leased) && (m.lease == nil || m.lease.holds())
}

func (m *machineFact) mayBeLeased() bool {
	return !m.leaseIsClear() || m.lease != nil
}

// lease takes, renews or releases a lease, or lets it expire.
func (o *operator) lease(ctx context.Context, m *machineFact) error {
	if !m.leaseIsClear() {
		return nil
	}
	if m.lease != nil && o.random.IntN(2) == 0 {
		return o.endLease(ctx, m)
	}
	o.kinds["lease"]++
	nonce := ""
	if m.lease != nil {
		nonce = m.lease.nonce
	}
	ttl := time.Duration(1+o.random.IntN(4)) * time.Second
	asked := time.Now()
	answer, err := o.world.Client.AcquireLeaseWithResponse(ctx, m.app, m.id, &api.AcquireLeaseParams{FlyMachineLeaseNonce: nonce, TTL: int(ttl / time.Second)},
		api.LeaseRequest{TTL: int(ttl / time.Second)})
	err = api.Check(answer, err)
	what, failed := o.judge(ctx, err)
	switch {
	case failed != nil:
		return failed
	case what == done:
		m.lease = &leaseFact{answer.JSON201.Data.Nonce, asked.Add(ttl), time.Now().Add(ttl)}
		if nonce != "" && m.lease.nonce != nonce {
			return fmt.Errorf("the lease of machine %s went on with another nonce", m.id)
		}
	case what == unknown:
		m.lease, m.leased = nil, time.Now().Add(ttl)
	case what == conflict && (m.lease == nil || m.lease.holds()):
		return fmt.Errorf("machine %s cannot be leased, and is by nobody else: %w", m.id, err)
	case (what == missing || what == refused) && !m.may(state.Destroyed):
		return fmt.Errorf("machine %s, which is there, cannot be leased: %w", m.id, err)
	}
	return nil
}

func (o *operator) endLease(ctx context.Context, m *machineFact) error {
	o.kinds["release lease"]++
	err := api.Check(o.world.Client.ReleaseLeaseWithResponse(ctx, m.app, m.id, &api.ReleaseLeaseParams{FlyMachineLeaseNonce: m.lease.nonce}))
	what, failed := o.judge(ctx, err)
	switch {
	case failed != nil:
		return failed
	case what == done:
		m.lease = nil
	case what == unknown:
		m.lease, m.leased = nil, m.lease.over
	case (what == missing || what == conflict) && m.lease.holds() && !m.may(state.Destroyed):
		return fmt.Errorf("the lease of machine %s is not there any more: %w", m.id, err)
	}
	return nil
}

// leaseIsThere demands that the API knows a lease that is in force.
func (o *operator) leaseIsThere(ctx context.Context, m *machineFact) error {
	if m.lease == nil || !m.lease.holds() || m.may(state.Destroyed) {
		return nil
	}
	answer, err := o.world.Client.GetLeaseWithResponse(ctx, m.app, m.id)
	if err := api.Check(answer, err); err != nil {
		if isRefused(err) && m.lease.holds() {
			return broken("machine %s was leased: %w", m.id, err)
		}
		if isRefused(err) {
			return nil
		}
		return err
	}
	return nil
}

// isRefused says whether an error is an agent's answer.
func isRefused(err error) bool {
	var answered *api.Error
	return errors.As(err, &answered) && answered.Code < http.StatusInternalServerError
}
