package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/sixpn/sixpn/maps"
)

// watchDrops takes the sampled drops out of the kernel, and says them in the debug
// log.
func (a *agent) watchDrops(ctx context.Context) error {
	return a.tables.DropEvents(ctx, func(e maps.DropEvent) error {
		a.log.LogAttrs(ctx, slog.LevelDebug, "dropped", slog.String("reason", e.Reason.String()),
			slog.Uint64("ifindex", uint64(e.Ifindex)), slog.Uint64("length", uint64(e.Length)))
		return nil
	})
}

// repairPins gives back pins that somebody removed: without them the data plane
// would end with this process.
func (a *agent) repairPins(ctx context.Context) error {
	ticker := time.NewTicker(a.config.Timeouts.Repair)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := a.loader.Repair(); err != nil {
			a.log.Error("pins cannot be written: the data plane would end with this agent", "error", err)
		}
	}
}
