package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
)

// What is said of a host that is well, and of one of which one thing is otherwise.
func TestHost(t *testing.T) {
	now := time.Now()
	well := func() (api.Host, api.HostProbe) {
		return api.Host{Name: "two", State: api.HostStatePresent, Endpoint: "192.0.2.2:51821"}, api.HostProbe{
			Host: "two", Way: api.HostProbeWayBoth, RoundTripMs: new(0.4), HandshakeAt: now, MTU: 1420, Passes: 1420,
			Answers: true, AnswerMs: new(1.0), ClockOffsetMs: new(0.5), ClockErrorMs: new(0.2), Version: "v1", WantedRevision: 7, AppliedRevision: 7,
			CertificateFrom: now.Add(-time.Hour), CertificateUntil: now.Add(29 * 24 * time.Hour),
		}
	}
	silent := func(_ *api.Host, p *api.HostProbe) {
		p.Answers, p.Error, p.ClockOffsetMs, p.ClockErrorMs, p.Way, p.Passes, p.RoundTripMs = false, "no route to host", nil, nil, api.HostProbeWayNone, 0, nil
	}
	for _, row := range []struct {
		name         string
		change       func(*api.Host, *api.HostProbe)
		check        string // the first that is not ok; "": all are
		want         Status
		native       bool
		says, remedy string // parts of it
	}{
		{name: "all is well", change: func(*api.Host, *api.HostProbe) {}},
		{name: "no handshake was seen", change: func(_ *api.Host, p *api.HostProbe) { p.HandshakeAt = time.Time{} }},
		{name: "only out", change: func(_ *api.Host, p *api.HostProbe) { p.Way = api.HostProbeWayOut }, check: "mesh", want: Fail, says: "nothing comes back", remedy: "192.0.2.2:51821"},
		{name: "only in", change: func(_ *api.Host, p *api.HostProbe) { p.Way = api.HostProbeWayIn }, check: "mesh", want: Fail, says: "does not arrive there", remedy: "firewalls"},
		{name: "no answer of the router", change: func(_ *api.Host, p *api.HostProbe) { p.Way = api.HostProbeWayUnanswered }, check: "mesh", want: Fail, says: "answers no echo", remedy: "sixpn doctor"},
		{name: "no mesh", change: func(_ *api.Host, p *api.HostProbe) { p.Way = api.HostProbeWayNone }, check: "mesh", want: Fail, says: "by TCP", remedy: "UDP"},
		{name: "present and silent", change: silent, check: "mesh", want: Fail, says: "keeps its lease", remedy: "UDP and TCP"},
		{name: "lost", change: func(h *api.Host, p *api.HostProbe) { silent(h, p); h.State = api.HostStateLost }, check: "mesh", want: Fail, says: "it is lost", remedy: "hosts remove two --force"},
		{name: "no mesh, native", native: true, change: func(_ *api.Host, p *api.HostProbe) { p.Way = api.HostProbeWayNone }, check: "mesh", want: Fail, says: "nothing passes", remedy: "fdaa:HOST::/48"},
		{name: "large packets do not pass, native", native: true, change: func(_ *api.Host, p *api.HostProbe) { p.Passes = 1344 }, check: "mtu", want: Fail, says: "more than 1344 bytes", remedy: "take 1420 bytes, or"},
		{name: "large packets do not pass", change: func(_ *api.Host, p *api.HostProbe) { p.Passes = 1344 }, check: "mtu", want: Fail, says: "more than 1344 bytes", remedy: "take 1500 bytes, or start the agents of both hosts with --mtu 1344"},
		{name: "nor do small ones", change: func(_ *api.Host, p *api.HostProbe) { p.Passes = 1279 }, check: "mtu", want: Fail, says: "more than 1279 bytes", remedy: "take 1500 bytes"},
		{name: "ahead", change: func(_ *api.Host, p *api.HostProbe) { p.ClockOffsetMs = new(1300.0) }, check: "clock", want: Fail, says: "1.3s ahead of", remedy: "chrony"},
		{name: "behind", change: func(_ *api.Host, p *api.HostProbe) { p.ClockOffsetMs = new(-1300.0) }, check: "clock", want: Fail, says: "1.3s behind", remedy: "chrony"},
		{name: "perhaps ahead", change: func(_ *api.Host, p *api.HostProbe) { p.ClockOffsetMs, p.ClockErrorMs = new(1300.0), new(301.0) }},
		{name: "the clock is not seen", change: func(_ *api.Host, p *api.HostProbe) { p.ClockOffsetMs = nil }, check: "clock", want: Warn, remedy: "agent two"},
		{name: "the agent is away", change: func(_ *api.Host, p *api.HostProbe) { p.Answers, p.Error = false, "connection refused" }, check: "agent", want: Fail, says: "connection refused", remedy: "start it"},
		{name: "the agent is in trouble", change: func(_ *api.Host, p *api.HostProbe) { p.Message = "a table is full" }, check: "agent", want: Fail, says: "a table is full", remedy: "log"},
		{name: "it is behind", change: func(_ *api.Host, p *api.HostProbe) { p.AppliedRevision = 6 }, check: "agent", want: Warn, says: "revision 7 is wanted and 6 applied", remedy: "sixpn doctor"},
		{name: "its certificate ends", change: func(_ *api.Host, p *api.HostProbe) {
			p.CertificateFrom, p.CertificateUntil = now.Add(-23*24*time.Hour), now.Add(7*24*time.Hour)
		}, check: "agent", want: Fail, says: "ends in 168h0m0s", remedy: "log"},
		{name: "its certificate was just renewed", change: func(_ *api.Host, p *api.HostProbe) {
			p.CertificateFrom, p.CertificateUntil = now.Add(-21*24*time.Hour), now.Add(9*24*time.Hour)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, p := well()
			row.change(&h, &p)
			c := Config{}
			c.complete()
			first := Finding{}
			for _, f := range []Finding{mesh(h, p, row.native), largest(h, p, row.native), c.clocks(h, p), otherAgent(h, p)} {
				if f.Status != OK && f.Remedy == "" || f.Message == "" {
					t.Errorf("%+v has no remedy", f)
				}
				if f.Status != OK && first.Check == "" {
					first = f
				}
			}
			if first.Check != row.check || first.Status != row.want || !strings.Contains(first.Message, row.says) || !strings.Contains(first.Remedy, row.remedy) {
				t.Errorf("%+v, expected %s of %s: …%s… : …%s…", first, row.want, row.check, row.says, row.remedy)
			}
		})
	}
}
