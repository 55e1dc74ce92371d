// Package doctor looks over a host, and over the agent that may run on it, for
// whatever would keep a router from working. It changes nothing.
package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sixpn/sixpn/api"
)

// Status is how bad a finding is.
type Status string

// The statuses.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, and something is not as it should be, or not seen
	Fail Status = "fail" // it cannot work like this
)

// Finding is the result of one look.
type Finding struct {
	Check   string `json:"check"`
	Host    string `json:"host,omitempty"` // which it is about, if not this one
	Status  Status `json:"status"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"` // what to do, if it is not ok
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: OK, Message: fmt.Sprintf(format, args...)}
}

func warn(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Status: Warn, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}

func fail(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Status: Fail, Remedy: remedy, Message: fmt.Sprintf(format, args...)}
}

// Config says where to look. It has the settings of the agent that is meant.
type Config struct {
	Name, StateDir, RunDir, PinDir string
	MetricsListen                  string   // "off" for none
	Upstreams                      []string // resolvers; empty: those of the host
	Client                         *api.ClientWithResponses

	Timeout        time.Duration // of one answer by the network; default 2 s
	ProbeTimeout   time.Duration // of all that is tried of another host, or of the store; default 15 s
	ClockTolerance time.Duration // how far another host's clock may be from this one's; default 1 s

	Settle time.Duration // in which the data plane must be up to date; default 2 s
	Root   string        // where the host's files are; default /
	Euid   int           // who looks
}

// DefaultClockTolerance is far above what a time service leaves, and far below the
// lease of a host.
const DefaultClockTolerance = time.Second

func (c *Config) complete() {
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Second
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = 15 * time.Second
	}
	if c.ClockTolerance == 0 {
		c.ClockTolerance = DefaultClockTolerance
	}
	if c.Settle == 0 {
		c.Settle = 2 * time.Second
	}
	if c.Root == "" {
		c.Root = "/"
	}
}

// path is a file of the host.
func (c *Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Root}, parts...)...)
}

// Examine looks at everything, first the host, then the agent, then the other hosts of its
// fleet.
func Examine(ctx context.Context, c Config) []Finding {
	c.complete()
	var findings []Finding
	for _, look := range []func() []Finding{
		c.user,
		c.kernel, c.types, c.bpffs, c.cgroups, c.userNamespaces, c.sysctls,
		c.space, c.clock, c.sockets,
		func() []Finding { return c.resolvers(ctx) },
		c.addresses,
	} {
		findings = append(findings, look()...)
	}
	status, agent := c.agent(ctx)
	findings = append(findings, agent...)
	findings = append(findings, c.metrics(ctx, status != nil)...)
	findings = append(findings, c.leftovers(status != nil)...)
	if status != nil {
		findings = append(findings, c.data(ctx, *status)...)
		findings = append(findings, certificate(*status)...)
		findings = append(findings, c.hosts(ctx, status.Mesh.Mode == api.MeshStatusModeNative)...)
	}
	return findings
}

// root is whether everything can be seen.
func (c *Config) root() bool { return c.Euid == 0 }

const useSudo = "run it again with sudo"

func (c *Config) user() []Finding {
	if c.root() {
		return []Finding{ok("user", "root")}
	}
	return []Finding{warn("user", useSudo, "user %d sees neither the agent nor pins, devices' programs and tables; the agent itself needs root", c.Euid)}
}

// existing is the deepest directory of a path that exists.
func existing(path string) string {
	for path != filepath.Dir(path) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}
