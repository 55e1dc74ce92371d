package agent

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
)

// Logging is how an agent's log looks.
type Logging struct{ Level, Format string }

// AddPlaces defines the flags that say which agent is meant. "agent reset" has
// these alone.
func AddPlaces(set *pflag.FlagSet, c *Config) {
	set.StringVar(&c.Name, "name", "default", "name of this agent: several may run on one host")
	set.StringVar(&c.StateDir, "state-dir", "", "durable state (default "+stateParent+"/NAME)")
	set.StringVar(&c.RunDir, "run-dir", defaultRunDir, "sockets and pinned namespaces")
	set.StringVar(&c.PinDir, "pin-dir", defaultPinDir, "pinned eBPF objects, under a mounted bpffs")
	set.StringVar(&c.Cgroup, "cgroup", "", "cgroup of the Machines (default sixpn-NAME under the agent's own)")
}

// AddFlags defines the flags of "sixpn agent".
func AddFlags(set *pflag.FlagSet, c *Config) {
	AddPlaces(set, c)
	set.StringVar(&c.HostName, "host-name", "", "name of this host in the store (default the host's own)")
	set.StringVar(&c.Region, "region", defaultRegion, "region of this host, three letters")
	set.Uint16Var(&c.MTU, "mtu", 0, "largest packet of Machines that ask for none, bytes (default 1420)")
	set.Uint32Var(&c.FlowTableSize, "flow-table-size", 0, "Flycast flows that this host can hold (default that of the build)")
	set.Uint32Var(&c.MachineFlows, "machine-flows", 0, "Flycast flows that one Machine may hold")
	set.Uint32Var(&c.NetworkFlows, "network-flows", 0, "Flycast flows that all Machines of a network may hold on this host")
	set.Uint32Var(&c.EventRate, "event-rate", 0, "sampled drops that one CPU may report a second (default that of the build)")
	set.StringVar(&c.MetricsListen, "metrics-listen", defaultMetricsListen, `host:port of the metrics, "off" for none`)
	set.BoolVar(&c.ResetFlows, "reset-flows", false, "give up established Flycast flows if this build cannot read them")
	set.BoolVar(&c.DetachOnExit, "detach-on-exit", false, "on exit stop the Machines and remove everything from the kernel")
	for _, timeout := range []struct {
		name, usage string
		value       *time.Duration
	}{
		{"stop-timeout", "time between a Machine's stop signal and SIGKILL (default 5s)", &c.Timeouts.Stop},
		{"flow-timeout-syn", "life of an unanswered TCP flow (default 30s)", &c.Timeouts.Syn},
		{"flow-timeout-established", "life of an idle TCP flow (default 2h4m)", &c.Timeouts.Established},
		{"flow-timeout-closing", "life of a closed TCP flow (default 30s)", &c.Timeouts.Closing},
		{"flow-timeout-udp", "life of an idle UDP flow (default 5m)", &c.Timeouts.UDP},
		{"expiry-interval", "time from one pass over the flow table to the next (default 5s)", &c.Timeouts.Expiry},
		{"repair-interval", "time from one look for lost pins to the next (default 10s)", &c.Timeouts.Repair},
		{"reuse-grace", "time before a freed table element is used again", &c.Timeouts.Grace},
	} {
		set.DurationVar(timeout.value, timeout.name, 0, timeout.usage)
	}
}

// AddLogging defines the flags of the log.
func AddLogging(set *pflag.FlagSet, l *Logging) {
	set.StringVar(&l.Level, "log-level", "info", "debug, info, warn or error")
	set.StringVar(&l.Format, "log-format", "text", "text or json")
}

// New makes the logger.
func (l Logging) New(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, fmt.Errorf("log level %q is unknown: expected debug, info, warn or error", l.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q is unknown: expected text or json", l.Format)
}
