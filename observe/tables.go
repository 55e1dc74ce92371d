package observe

import (
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/state"
)

const sectionTables = "Tables and programs"

var (
	tableEntries  = gauge(sectionTables, "table_entries", "Elements in use of a kernel table", "table")
	tableCapacity = gauge(sectionTables, "table_capacity_entries", "Elements that a kernel table can hold", "table")

	programStats   = gauge(sectionTables, "program_statistics_enabled", "Whether the kernel measures its programs (sysctl kernel.bpf_stats_enabled); else the next two stand still")
	programSeconds = counter(sectionTables, "program_run_seconds_total", "Time spent in a program while the kernel measured", "program")
	programRuns    = counter(sectionTables, "program_runs_total", "Runs of a program while the kernel measured", "program")
)

func (o *Collector) collectTables(_ *state.Snapshot, to *batch) error {
	uses, err := o.config.Tables.Uses()
	if err != nil {
		return err
	}
	for _, use := range uses {
		tableEntries.emit(to, float64(use.Used), use.Table)
		tableCapacity.emit(to, float64(use.Max), use.Table)
		if use.Table == bpf.RouterMapFlows {
			flowsLive.emit(to, float64(use.Used))
			flowsCapacity.emit(to, float64(use.Max))
		}
	}
	return nil
}

// statsEnabled is the kernel's switch; measuring costs each run of every program of the
// host some 20 ns, so it is the operator's to turn on.
const statsEnabled = "/proc/sys/kernel/bpf_stats_enabled"

func (o *Collector) collectPrograms(_ *state.Snapshot, to *batch) error {
	content, err := os.ReadFile(statsEnabled)
	if err != nil {
		return fmt.Errorf("read whether programs are measured: %w", err)
	}
	programStats.emit(to, number(strings.TrimSpace(string(content)) == "1"))
	for name, program := range map[string]*ebpf.Program{"router": o.config.Router, "mesh": o.config.Mesh, "uplink": o.config.Uplink, "expire": o.config.Expire} {
		if program == nil {
			continue
		}
		stats, err := program.Stats()
		if err != nil {
			return fmt.Errorf("read the statistics of program %s: %w", name, err)
		}
		programSeconds.emit(to, stats.Runtime.Seconds(), name)
		programRuns.emit(to, float64(stats.RunCount), name)
	}
	return nil
}
