package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// removePatience is for the last processes of Machines that have ended.
const removePatience = 5 * time.Second

// Reset ends every Machine that agents of this name left, each with a signal and
// the time to heed it, and removes what they had outside their directories:
// cgroups, sockets, claims of ids. Records and logs stay. It says what it removed,
// also when it fails half-way. No agent of this name may run.
func (d *Driver) Reset(ctx context.Context, timeout time.Duration) (removed []string, err error) {
	entries, err := os.ReadDir(d.config.Dir)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var errs []error
	parents := []string{d.config.Cgroup}
	var ending sync.WaitGroup
	for _, e := range entries {
		if !e.IsDir() || !idPattern.MatchString(e.Name()) {
			continue
		}
		ending.Go(func() {
			parent, ran, err := d.resetOne(ctx, e.Name(), timeout)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("end machine %s: %w", e.Name(), err))
			}
			if ran {
				removed = append(removed, "machine "+e.Name())
			}
			if parent != "" && !slices.Contains(parents, parent) {
				parents = append(parents, parent)
			}
		})
	}
	ending.Wait()
	slices.Sort(removed)
	if err := errors.Join(errs...); err != nil {
		return removed, err
	}
	// Something else may be in there, and need not ever leave.
	patience, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	for _, parent := range parents {
		if err := removeCgroup(patience, parent); err != nil {
			return removed, err
		}
	}
	err = releaseIDs(d.config.IDDir, func(owner string) bool {
		agent, _ := splitRangeOwner(owner)
		return agent == d.config.Name
	})
	// These stay if something of another agent is in them.
	_ = os.Remove(d.config.IDDir)
	_ = os.Remove(d.config.RunDir)
	return removed, err
}

// resetOne ends one Machine. parent is the directory that its cgroup was in.
func (d *Driver) resetOne(ctx context.Context, id string, timeout time.Duration) (parent string, ran bool, err error) {
	if r, err := readRecord(d.directory(id)); err == nil {
		parent = filepath.Dir(r.Cgroup)
	}
	// An attached device is the router's to let go of.
	if err := d.removeAttachment(id); err != nil {
		return parent, false, err
	}
	p, err := d.adopt(ctx, id)
	if err != nil || p == nil || p.Phase() == PhaseEnded {
		return parent, false, err
	}
	signalCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// One that cannot be signalled, as its command does not run yet, is killed.
	if err := errors.Join(p.Thaw(signalCtx), p.Signal(signalCtx, syscall.SIGTERM)); err == nil {
		select {
		case <-p.Exited():
			return parent, true, nil
		case <-signalCtx.Done():
		}
	}
	if err := p.Kill(); err != nil {
		return parent, true, err
	}
	select {
	case <-p.Exited():
		return parent, true, nil
	case <-ctx.Done():
		return parent, true, ctx.Err()
	}
}
