package doctor

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/api"
)

// maxProbes is how many hosts are probed at the same time.
const maxProbes = 16

// hosts tries the way to every other host, all at the same time: one that does not
// answer holds up no other.
func (c *Config) hosts(ctx context.Context, native bool) []Finding {
	const check = "hosts"
	answer, err := c.Client.ListHostsWithResponse(ctx, &api.ListHostsParams{})
	if err := api.Check(answer, err); err != nil {
		return []Finding{fail(check, "look into the agent's log", "they cannot be listed: %v", err)}
	}
	hosts := answer.JSON200.Hosts
	found := make([][]Finding, len(hosts))
	var group errgroup.Group
	group.SetLimit(maxProbes)
	for i, h := range hosts {
		if h.ThisHost {
			continue
		}
		group.Go(func() error { found[i] = c.host(ctx, h, native); return nil })
	}
	_ = group.Wait() // nothing in it fails
	findings := []Finding{}
	for i := range hosts {
		findings = append(findings, found[i]...)
	}
	return findings
}

// host is a line for each check of one host.
func (c *Config) host(ctx context.Context, h api.Host, native bool) []Finding {
	ctx, cancel := context.WithTimeout(ctx, c.ProbeTimeout)
	defer cancel()
	answer, err := c.Client.ProbeHostWithResponse(ctx, h.Name)
	var findings []Finding
	if err := api.Check(answer, err); err != nil {
		findings = []Finding{fail("mesh", "look into the log of this host's agent", "it cannot be probed: %v", err)}
	} else {
		p := *answer.JSON200
		findings = []Finding{mesh(h, p, native), largest(h, p, native), c.clocks(h, p), otherAgent(h, p)}
	}
	for i := range findings {
		findings[i].Host = h.Name
	}
	return findings
}

// mesh is which way packets pass through the tunnel.
func mesh(h api.Host, p api.HostProbe, native bool) Finding {
	const check = "mesh"
	firewalls := fmt.Sprintf("let UDP between this host and %s pass both ways: look at the firewalls of both, and between them", h.Endpoint)
	if native {
		firewalls = "have the fabric route the prefix of each host, fdaa:HOST::/48, to it: look at the routes of both, and of the routers between them"
	}
	switch {
	case p.Way == api.HostProbeWayBoth:
		text := "packets pass both ways"
		if p.RoundTripMs != nil {
			text += fmt.Sprintf(", within %.1f ms", *p.RoundTripMs)
		}
		if !p.HandshakeAt.IsZero() {
			text += fmt.Sprintf("; the last handshake was %v ago", max(0, time.Since(p.HandshakeAt)).Round(time.Second))
		}
		return ok(check, "%s", text)
	case p.Way == api.HostProbeWayOut:
		return fail(check, firewalls, "one way only: what this host sends arrives there, and nothing comes back")
	case p.Way == api.HostProbeWayIn:
		return fail(check, firewalls, "one way only: what it sends arrives here, and what this host sends does not arrive there")
	case p.Way == api.HostProbeWayUnanswered:
		return fail(check, "look into the log of its agent, and run \"sixpn doctor\" there", "the tunnel passes both ways, and its router answers no echo request")
	case p.Answers:
		return fail(check, firewalls, "nothing passes, although its agent answers by TCP")
	case h.State == api.HostStateLost:
		return fail(check, fmt.Sprintf("start it and its agent; one that is gone for good is taken out with: sixpn hosts remove %s --force", h.Name),
			"it is lost: its agent gives no sign of life, and nothing comes back from its mesh")
	}
	return fail(check, fmt.Sprintf("let UDP and TCP between this host and %s pass both ways: look at the network between them", h.Endpoint),
		"nothing arrives here, although it keeps its lease in the store")
}

// notSeen is a check that another one's failure keeps from being made.
func notSeen(check, why string, h api.Host) Finding {
	return warn(check, fmt.Sprintf("see %q", why+" "+h.Name), "it cannot be seen now")
}

// meshOverhead is what the underlay must take beyond a packet of Machines, for WireGuard.
const meshOverhead = 80

// largest is which packets pass through the mesh.
func largest(h api.Host, p api.HostProbe, native bool) Finding {
	const check, least = "mtu", 1280
	switch {
	case p.Way != api.HostProbeWayBoth:
		return notSeen(check, "mesh", h)
	case p.Passes >= p.MTU:
		return ok(check, "packets of %d bytes, the largest of Machines, pass both ways", p.MTU)
	}
	underlay := p.MTU
	if !native {
		underlay += meshOverhead
	}
	remedy := fmt.Sprintf("have all of the way to %s take %d bytes", h.Endpoint, underlay)
	if p.Passes >= least {
		remedy += fmt.Sprintf(", or start the agents of both hosts with --mtu %d, and their Machines again", p.Passes)
	}
	return fail(check, remedy, "packets of more than %d bytes do not pass both ways, and Machines send up to %d", p.Passes, p.MTU)
}

// clocks is how far the other clock is from this one.
func (c *Config) clocks(h api.Host, p api.HostProbe) Finding {
	const check = "clock"
	if p.ClockOffsetMs == nil || p.ClockErrorMs == nil {
		return notSeen(check, "agent", h)
	}
	span := func(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
	offset, wrong := span(*p.ClockOffsetMs), span(*p.ClockErrorMs)
	side := "ahead of"
	if offset < 0 {
		side = "behind"
	}
	text := fmt.Sprintf("%v %s this host's, give or take %v", offset.Abs().Round(10*time.Microsecond), side, wrong.Round(10*time.Microsecond))
	if offset.Abs()-wrong > c.ClockTolerance {
		return fail(check, "run a time service, such as chrony or systemd-timesyncd, on both hosts; the time is wrong on the one that differs from the others", "%s", text)
	}
	return ok(check, "%s", text)
}

// otherAgent is what the other agent says of itself.
func otherAgent(h api.Host, p api.HostProbe) Finding {
	const check = "agent"
	left, near := remaining(p.CertificateFrom, p.CertificateUntil)
	switch {
	case !p.Answers:
		return fail(check, fmt.Sprintf("start it, and let TCP to %s pass", h.Endpoint), "it does not answer: %s", p.Error)
	case p.Message != "":
		return fail(check, "look into its log, and run \"sixpn doctor\" there", "it is in trouble: %s", p.Message)
	case near:
		return fail(check, renewal, "its certificate ends in %v", left)
	case p.AppliedRevision < p.WantedRevision:
		return warn(check, "run \"sixpn doctor\" there, if it stays so", "version %s, revision %d is wanted and %d applied", p.Version, p.WantedRevision, p.AppliedRevision)
	}
	return ok(check, "version %s, revision %d is applied; its certificate has %v left", p.Version, p.AppliedRevision, left)
}

const renewal = "it is renewed while the store answers: look into the agent's log for why it was not"

// remaining is the rest of a certificate's life, and whether it should have been renewed
// long ago: that happens when a third is left.
func remaining(from, until time.Time) (left time.Duration, near bool) {
	if until.IsZero() {
		return 0, false
	}
	rest := time.Until(until)
	unit := time.Hour
	if rest < unit {
		unit = time.Second
	}
	return rest.Round(unit), rest < until.Sub(from)/4
}

// certificate is this host's own.
func certificate(status api.Status) []Finding {
	const check = "certificate"
	a := status.Agent
	if a.CertificateUntil.IsZero() {
		return nil // it is alone
	}
	left, near := remaining(a.CertificateFrom, a.CertificateUntil)
	if near {
		return []Finding{fail(check, renewal, "by which other hosts know this one: it ends in %v", left)}
	}
	return []Finding{ok(check, "by which other hosts know this one: %v left", left)}
}

// members is a line for each member of the store.
func (c *Config) members(ctx context.Context) []Finding {
	const check = "store"
	ctx, cancel := context.WithTimeout(ctx, c.ProbeTimeout)
	defer cancel()
	answer, err := c.Client.GetStoreWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return []Finding{fail(check, "start the agents of the hosts that have a member of it, and let TCP to them pass", "no member of it answers: %v", err)}
	}
	var findings []Finding
	voters, answering := 0, 0
	for _, m := range answer.JSON200.Members {
		if m.Role != api.StoreMemberRoleLearner {
			voters++
		}
		f := ok(check, "its %s answers within %.1f ms, at revision %d", m.Role, m.AnswerMs, m.Revision)
		if !m.Answers {
			f = fail(check, fmt.Sprintf("start the agent there, and let TCP to %s pass; one that stays away is replaced once there is another host", m.Endpoint), "its %s does not answer: %s", m.Role, m.Error)
		} else if m.Role != api.StoreMemberRoleLearner {
			answering++
		}
		f.Host = m.Host
		findings = append(findings, f)
	}
	switch {
	case !answer.JSON200.Majority:
		findings = append(findings, fail(check, "bring members back; when too many are lost for good: sixpn store restore",
			"it takes no writes: %d of %d voters answer, and none leads a majority", answering, voters))
	case voters > 1 && answering <= voters/2+1:
		findings = append(findings, warn(check, "bring the members back that are away, or add hosts", "it takes writes, and would not if one more of its voters were lost: %d of %d answer", answering, voters))
	default:
		findings = append(findings, ok(check, "it takes writes: %d of %d voters answer", answering, voters))
	}
	return findings
}
