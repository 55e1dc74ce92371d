package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sixpn/sixpn/api"
)

// leases are those of the Machines that a rollout is about: nobody else changes
// them meanwhile, another rollout least of all.
type leases struct {
	r   *Runner
	app string

	mu     sync.Mutex
	nonces map[string]string // by Machine id
}

const leaseDescription = "deploy"

// take takes the leases of all these Machines, or none.
func (r *Runner) take(ctx context.Context, app string, ids []string) (*leases, error) {
	l := &leases{r: r, app: app, nonces: map[string]string{}}
	for _, id := range ids {
		if err := l.acquire(ctx, id, ""); err != nil {
			var answered *api.Error
			if errors.As(err, &answered) && answered.Code == http.StatusConflict {
				err = fmt.Errorf("Machine %s is being changed by somebody else, so nothing was done; try again when they are through: %w", id, err)
			}
			return nil, errors.Join(err, l.release(ctx))
		}
	}
	return l, nil
}

// acquire takes or renews the lease of a Machine.
func (l *leases) acquire(ctx context.Context, id, nonce string) error {
	ctx, cancel := request(ctx)
	defer cancel()
	answer, err := l.r.Client.AcquireLeaseWithResponse(ctx, l.app, id,
		&api.AcquireLeaseParams{TTL: max(1, int(l.r.LeaseTTL/time.Second)), FlyMachineLeaseNonce: nonce},
		api.LeaseRequest{Description: leaseDescription, Owner: l.r.Owner})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	l.keep(id, answer.JSON201.Data.Nonce)
	return nil
}

func (l *leases) keep(id, nonce string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nonces[id] = nonce
}

func (l *leases) nonce(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nonces[id]
}

// drop forgets the lease of a Machine that is no more.
func (l *leases) drop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.nonces, id)
}

func (l *leases) all() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.nonces)
}

// renew keeps the leases until ctx ends, or one is lost.
func (l *leases) renew(ctx context.Context) error {
	ticker := time.NewTicker(l.r.LeaseTTL / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for id, nonce := range l.all() {
			if err := l.acquire(ctx, id, nonce); err != nil && l.nonce(id) != "" {
				return fmt.Errorf("the lease of Machine %s was lost: %w", id, err)
			}
		}
	}
}

// release gives all leases back, also when ctx has ended.
func (l *leases) release(ctx context.Context) error {
	var errs []error
	held := l.all()
	for _, id := range slices.Sorted(maps.Keys(held)) {
		err := func() error {
			ctx, cancel := request(ctx)
			defer cancel()
			return api.Check(l.r.Client.ReleaseLeaseWithResponse(ctx, l.app, id, &api.ReleaseLeaseParams{FlyMachineLeaseNonce: held[id]}))
		}()
		l.drop(id)
		var answered *api.Error
		if errors.As(err, &answered) && (answered.Code == http.StatusNotFound || answered.Code == http.StatusConflict) {
			continue // it is nobody's, or another's, already
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("release the lease of Machine %s, which ends by itself within %v: %w", id, l.r.LeaseTTL, err))
		}
	}
	return errors.Join(errs...)
}

// requestTimeout is how long a change may take to be recorded.
const requestTimeout = 30 * time.Second

// request is the context of a request that changes something. It goes on when the
// rollout is interrupted, so that it is known what it did.
func request(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
}
