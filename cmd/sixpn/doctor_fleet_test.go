package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/cmd/sixpn/internal/doctor"
	"github.com/sixpn/sixpn/internal/nettest"
)

// doctorOf is what the doctor says on a host, by check and host, and its exit code.
func doctorOf(t *testing.T, h *nettest.Host) (findings map[string]doctor.Finding, code int) {
	t.Helper()
	findings = map[string]doctor.Finding{}
	must(t, h.Do(func() error {
		r := sixpnRun(t, "doctor", "--json", "--name", h.Name, "--run-dir", h.RunDir(), "--state-dir", h.StateDir(), "--metrics-listen", "off")
		code = r.code
		var all []doctor.Finding
		if err := json.Unmarshal([]byte(r.out), &all); err != nil {
			return fmt.Errorf("exit code %d, %s: %w", r.code, r.err, err)
		}
		for _, finding := range all {
			if finding.Status != doctor.OK && finding.Remedy == "" {
				t.Errorf("%+v has no remedy", finding)
			}
			findings[strings.TrimSpace(finding.Check+" "+finding.Host)] = finding
		}
		return nil
	}))
	return findings, code
}

// lines waits until the doctor says so of these checks and hosts: "fail", or a part of
// what it says after that. It returns what it said then.
func lines(ctx context.Context, t *testing.T, h *nettest.Host, what string, want map[string]string) map[string]doctor.Finding {
	t.Helper()
	var said map[string]doctor.Finding
	must(t, nettest.Eventually(ctx, what, func(context.Context) error {
		var code int
		said, code = doctorOf(t, h)
		bad := false
		for check, says := range want {
			f := said[check]
			status, text, _ := strings.Cut(says, " ")
			if string(f.Status) != status || !strings.Contains(f.Message+": "+f.Remedy, text) {
				return fmt.Errorf("%s is %+v, expected %s", check, f, says)
			}
			bad = bad || status == "fail"
		}
		if bad && code != exitFailed {
			return nettest.Final(fmt.Errorf("something fails, and the exit code is %d", code))
		}
		return nil
	}))
	return said
}

// The doctor tells apart what is wrong between hosts of a real fleet: each in a line with
// what to do, while the others stay well.
func TestDoctorOfFleet(t *testing.T) {
	ctx := nettest.Context(t)
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{
		"--members-interval", "300ms", "--call-timeout", "1s", "--round-trip-interval", "200ms", "--heartbeat-interval", "500ms", "--host-expiry", "3s",
	}}})
	third := nettest.Get[*nettest.Host](t)(f.NewHost("ams"))
	must(t, f.Join(ctx, third, "--clock-ahead", "5s"))
	must(t, f.Meet(ctx))
	one, two, three := f.Hosts[0], f.Hosts[1], f.Hosts[2]
	of := func(check string, h *nettest.Host) string { return check + " " + h.Name }

	well := map[string]string{
		"store": "ok 3 of 3 voters", of("store", one): "ok answers within", of("store", two): "ok answers within", of("store", three): "ok answers within",
		"certificate": "ok left", of("mesh", two): "ok both ways", of("mtu", two): "ok 1420 bytes", of("clock", two): "ok give or take", of("agent", two): "ok version test",
		of("mesh", three): "ok both ways", of("mtu", three): "ok 1420 bytes", of("agent", three): "ok version test",
		of("clock", three): "fail s ahead of this host's",
	}
	said := lines(ctx, t, one, "all is well but a clock", well)
	if clock := said[of("clock", three)]; !strings.HasPrefix(clock.Message, "5") && !strings.HasPrefix(clock.Message, "4.9") || !strings.Contains(clock.Remedy, "chrony") {
		t.Errorf("of a clock that is 5 s ahead: %+v", clock)
	}
	with := func(changes map[string]string) map[string]string {
		all := map[string]string{}
		for check, says := range well {
			all[check] = says
		}
		for check, says := range changes {
			all[check] = says
		}
		return all
	}

	must(t, two.Uplink.SetMTU(1400))
	// New connections by TLS may hang in this too, as in any network that loses large packets.
	lines(ctx, t, one, "the underlay takes less", map[string]string{
		of("mtu", two): "fail --mtu 13", of("mesh", two): "ok both ways", of("mtu", three): "ok 1420 bytes",
	})
	must(t, two.Uplink.SetMTU(1500))

	must(t, two.Uplink.CutUDPTo(one.Uplink))
	lines(ctx, t, one, "nothing comes back", with(map[string]string{of("mesh", two): "fail nothing comes back", of("mtu", two): "warn mesh"}))
	lines(ctx, t, two, "nothing arrives there", map[string]string{of("mesh", one): "fail does not arrive there", of("agent", one): "ok version"})
	must(t, two.Uplink.Heal())
	lines(ctx, t, one, "all is well again", well)

	// All of one direction, TCP too: the lease is kept by another voter.
	must(t, one.Uplink.CutTo(two.Uplink))
	lines(ctx, t, one, "what it sends is heard", map[string]string{
		of("mesh", two): "fail does not arrive there", of("agent", two): "fail it does not answer", of("mesh", three): "ok both ways", of("mtu", three): "ok 1420",
	})
	must(t, one.Uplink.Heal())

	must(t, two.KillAgent())
	lines(ctx, t, one, "a member of the store is away", with(map[string]string{
		"store": "warn would not if one more", of("store", two): "fail start the agent there", of("agent", two): "fail start it", of("clock", two): "warn agent",
	}))
	must(t, three.KillAgent())
	lines(ctx, t, one, "the store has no majority", map[string]string{
		"store": "fail sixpn store restore", of("store", one): "ok", of("store", two): "fail", of("store", three): "fail",
	})
	must(t, two.StartAgent(ctx))
	must(t, three.StartAgent(ctx))
	lines(ctx, t, one, "all is well at last", map[string]string{"store": "ok 3 of 3", of("mesh", two): "ok both ways", of("clock", three): "ok"})
}

// Without WireGuard the doctor tries the fabric in the same way.
func TestDoctorOfNativeFleet(t *testing.T) {
	ctx := nettest.Context(t)
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Native: true, Host: nettest.Config{AgentFlags: []string{"--call-timeout", "1s"}}})
	one, two := f.Hosts[0], f.Hosts[1]
	lines(ctx, t, one, "packets pass", map[string]string{"mesh " + two.Name: "ok both ways", "mtu " + two.Name: "ok pass both ways", "agent " + two.Name: "ok version test"})
	must(t, one.Uplink.CutTo(two.Uplink))
	lines(ctx, t, one, "nothing passes", map[string]string{"mesh " + two.Name: "fail", "mtu " + two.Name: "warn mesh"})
}

// Of a native mesh the doctor says what it trusts, and nothing is wrong with its uplink,
// which is not closed as the devices of Machines are.
func TestDoctorOnANativeMesh(t *testing.T) {
	ctx := nettest.Context(t)
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{Native: true})
	lines(ctx, t, fleet.Hosts[0], "all is well", map[string]string{
		"mesh":                         "warn whoever is on that network can speak for any host",
		"ports":                        "ok each with its router",
		"mesh " + fleet.Hosts[1].Name:  "ok pass both ways",
		"agent " + fleet.Hosts[1].Name: "ok ",
	})
}
