// Package demo builds a small world on this host and proves with real traffic,
// from inside its Machines, what sixpn promises.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Config is how a demo runs.
type Config struct {
	Out        io.Writer
	JSON       bool   // one object a line, and nothing else
	Keep       bool   // leave the world up
	Executable string // has the agent and the payloads; default this program
}

// ErrFailed says that a claim did not hold.
var ErrFailed = errors.New("not every check holds")

var errInterrupted = errors.New("interrupted, before every check was made")

// check is one claim: a name that stays the same for good, and its proof, which
// says in a sentence what was seen.
type check struct {
	name  string
	prove func(ctx context.Context, w *world) (detail string, err error)
}

// checks in their order.
var checks = []check{
	{"isolation.same_org", sameOrg},
	{"isolation.cross_org", crossOrg},
	{"isolation.cross_org_udp", crossOrgUDP},
	{"isolation.spoofed_source", spoofedSource},
	{"isolation.raw_icmp", rawICMP},
	{"isolation.host_closed", hostClosed},
	{"isolation.machine_cannot_touch_host", cannotTouchHost},
	{"isolation.detached_is_closed", detachedIsClosed},
	{"neighbour.gateway", gateway},
	{"mtu.packet_too_big", packetTooBig},
	{"dns.app", dnsApp},
	{"dns.flycast", dnsFlycast},
	{"dns.apps", dnsApps},
	{"dns.stopped_machine_gone", dnsStopped},
	{"dns.other_org_hidden", dnsHidden},
	{"dns.global", dnsGlobal},
	{"dns.region", dnsRegion},
	{"dns.nearest", dnsNearest},
	{"dns.vm", dnsVM},
	{"dns.process", dnsProcess},
	{"dns.metadata", dnsMetadata},
	{"dns.vms", dnsVMs},
	{"dns.regions", dnsRegions},
	{"dns.instances", dnsInstances},
	{"dns.all", dnsAll},
	{"dns.ptr", dnsPTR},
	{"dns.nodata_not_nxdomain", dnsNoData},
	{"dns.tcp", dnsTCP},
	{"dns.forwarding", dnsForwarding},
	{"environment.hosts_file", hostsFile},
	{"environment.variables", variables},
	{"flycast.balance", balance},
	{"flycast.udp", flycastUDP},
	{"flycast.echo", flycastEcho},
	{"flycast.backend_stop", backendStop},
	{"flycast.established_flow_survives_add", survivesAdd},
	{"flycast.own_backend", ownBackend},
	{"flycast.ipv4_only_backend", ipv4OnlyBackend},
	{"flycast.health", health},
	{"api.wait_applied", waitApplied},
	{"deploy.rolling", deployRolling},
	{"app.move", appMove},
	{"metrics.scrape", metricsScrape},
	{"metrics.drop_reason", metricsDropReason},
	{"restart.kill_agent_no_loss", killAgent},
	{"mesh.same_org", meshSameOrg},
	{"mesh.cross_org", meshCrossOrg},
	{"mesh.spoofed_host", meshSpoofedHost},
	{"mesh.large_packets", meshLargePackets},
	{"mesh.segmentation_offload", meshSegmentation},
	{"dns.remote_machine", dnsRemote},
	{"dns.nearest_by_region", dnsNearestByRegion},
	{"flycast.remote_backend", remoteBackend},
	{"flycast.nearest_first", nearestFirst},
	{"machine.migrate", migrate},
	{"native.same_org", nativeSameOrg},
	{"native.cross_org", nativeCrossOrg},
	{"host.join", hostJoin},
	{"host.store_outage_keeps_serving", storeOutage},
	{"host.loss_leaves_dns", hostLoss},
	{"host.rejoin", hostRejoin},
}

// checkTimeout is how long one proof may take, on a busy machine too.
const checkTimeout = 2 * time.Minute

// Run builds the world, proves every claim, and cleans up, also when ctx ends
// before. The error is ErrFailed if a claim does not hold.
func Run(ctx context.Context, c Config) (err error) {
	p := printer{out: c.Out, json: c.JSON}
	began := time.Now()
	p.say("building a world: two hosts, each an agent in a network namespace of its own, two orgs, their apps and Machines …")
	w, err := build(ctx, c)
	defer func() {
		if w == nil {
			return
		}
		if w.fabric != nil { // also when the rest stays
			err = errors.Join(err, w.fabric.fleet.Close())
		}
		if c.Keep && ctx.Err() == nil && (err == nil || errors.Is(err, ErrFailed)) {
			underlay, keepErr := w.fleet.Underlay.Keep()
			err = errors.Join(err, keepErr)
			p.say("%s", w.lookAround(underlay))
			return
		}
		if closeErr := w.fleet.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		} else {
			p.say("everything was removed again")
		}
	}()
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return fmt.Errorf("build the world: %w", err)
	}
	p.say("%s", w.picture())
	failed := 0
	for _, check := range checks {
		detail, err := w.try(ctx, check)
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			failed++
			detail = err.Error()
		}
		if err := p.result(check.name, err == nil, detail); err != nil {
			return err
		}
	}
	p.say("%d of %d checks hold, in %.0f s", len(checks)-failed, len(checks), time.Since(began).Seconds())
	if failed > 0 {
		return ErrFailed
	}
	return nil
}

func (w *world) try(ctx context.Context, c check) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return c.prove(ctx, w)
}

// printer writes for people, or one object a line for programs.
type printer struct {
	out  io.Writer
	json bool
}

func (p printer) say(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.out, format+"\n", args...)
	}
}

func (p printer) result(name string, ok bool, detail string) error {
	if p.json {
		return json.NewEncoder(p.out).Encode(struct {
			Check  string `json:"check"`
			OK     bool   `json:"ok"`
			Detail string `json:"detail"`
		}{name, ok, detail})
	}
	verdict := "ok  "
	if !ok {
		verdict = "FAIL"
	}
	_, err := fmt.Fprintf(p.out, "%s %-38s %s\n", verdict, name, detail)
	return err
}
