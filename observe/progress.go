package observe

import (
	"github.com/sixpn/sixpn/state"
)

const (
	sectionProgress = "Changes"
	sectionStore    = "Store"
)

// Progress is how far the tables are behind the store.
type Progress struct {
	Wanted, Applied int64 // revisions
	Failures        int   // attempts in a row that failed
}

var (
	revisionWanted  = gauge(sectionProgress, "wanted_revision", "Revision of the store that the agent knows")
	revisionApplied = gauge(sectionProgress, "applied_revision", "Revision of the store that the kernel's tables have")
	syncFailures    = gauge(sectionProgress, "sync_failures", "Attempts in a row to bring the tables up to date that failed, or found a table full")
	unreadable      = gauge(sectionProgress, "unreadable_records", "Records of the store that this build cannot read; their last readable versions are in force")
	propagation     = histogram(sectionProgress, "propagation_seconds", "Time from the arrival of a change, about a millisecond after its commit, until the kernel's tables have it")

	storeUp      = gauge(sectionStore, "store_up", "Whether the store serves")
	storeLeader  = gauge(sectionStore, "store_has_leader", "Whether the store has a leader, without which it takes no writes")
	storeBytes   = gauge(sectionStore, "store_database_bytes", "Size of the store's database")
	storeUsed    = gauge(sectionStore, "store_database_used_bytes", "Part of it that is in use")
	storeLimit   = gauge(sectionStore, "store_database_limit_bytes", "Size at which the store takes no more writes")
	storeRecent  = gauge(sectionStore, "store_revision", "Latest revision of the store")
	storeLag     = gauge(sectionStore, "store_watch_lag_revisions", "Revisions of the store that the agent has not heard of yet")
	storeAlarm   = gauge(sectionStore, "store_alarm", "Whether the last tables stay although the store says otherwise; sixpn status says why")
	storeRecords = gauge(sectionStore, "store_records", "Records that the agent knows, of what concerns its host", "kind")
)

func (o *Collector) collectProgress(s *state.Snapshot, to *batch) error {
	p := o.config.Progress()
	revisionWanted.emit(to, float64(p.Wanted))
	revisionApplied.emit(to, float64(p.Applied))
	syncFailures.emit(to, float64(p.Failures))
	unreadable.emit(to, float64(len(s.Unreadable)))
	return nil
}

func (o *Collector) collectStore(s *state.Snapshot, to *batch) error {
	for kind, count := range map[string]int{
		"org": len(s.Orgs), "network": len(s.Networks), "app": len(s.Apps), "machine": len(s.Machines), "vip": len(s.VIPs), "host": len(s.Hosts),
	} {
		storeRecords.emit(to, float64(count), kind)
	}
	storeAlarm.emit(to, number(s.Alarm() != ""))
	p, h := o.config.Progress(), o.config.Store()
	storeUp.emit(to, number(h.Serving))
	storeLeader.emit(to, number(h.Leader))
	if !h.Serving {
		return nil
	}
	storeBytes.emit(to, float64(h.Bytes))
	storeUsed.emit(to, float64(h.UsedBytes))
	if h.LimitBytes > 0 { // a store elsewhere does not say what its is
		storeLimit.emit(to, float64(h.LimitBytes))
	}
	storeRecent.emit(to, float64(h.Revision))
	// The snapshot was taken first: it may only be behind.
	storeLag.emit(to, float64(max(0, h.Revision-p.Wanted)))
	return nil
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
