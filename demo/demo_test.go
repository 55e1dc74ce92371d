package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/demo"
	"github.com/sixpn/sixpn/internal/nettest"
)

func TestMain(m *testing.M) {
	if nettest.Main() {
		return
	}
	os.Exit(m.Run())
}

// names are kept for good: others look for them.
var names = strings.Fields(`
isolation.same_org isolation.cross_org isolation.cross_org_udp isolation.spoofed_source isolation.raw_icmp
isolation.host_closed isolation.machine_cannot_touch_host isolation.detached_is_closed neighbour.gateway
mtu.packet_too_big dns.app dns.flycast dns.apps dns.stopped_machine_gone dns.other_org_hidden
environment.hosts_file environment.variables flycast.balance flycast.udp flycast.echo flycast.backend_stop
flycast.established_flow_survives_add flycast.own_backend restart.kill_agent_no_loss
dns.global dns.region dns.nearest dns.vm dns.process dns.metadata dns.vms dns.regions dns.instances dns.all dns.ptr
dns.nodata_not_nxdomain dns.tcp dns.forwarding api.wait_applied deploy.rolling app.move flycast.ipv4_only_backend
flycast.health metrics.scrape metrics.drop_reason
mesh.same_org mesh.cross_org mesh.spoofed_host mesh.large_packets mesh.segmentation_offload dns.remote_machine
dns.nearest_by_region flycast.remote_backend flycast.nearest_first host.join host.store_outage_keeps_serving
host.loss_leaves_dns host.rejoin machine.migrate native.same_org native.cross_org`)

// TestDemo runs the whole demo: every check is there once, and holds.
func TestDemo(t *testing.T) {
	// The program itself, for a check deploys by its command.
	program := filepath.Join(t.TempDir(), "sixpn")
	if output, err := exec.Command("go", "build", "-o", program, "../cmd/sixpn").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, output)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := demo.Run(ctx, demo.Config{Out: &out, JSON: true, Executable: program}); err != nil {
		t.Error(err)
	}
	var seen []string
	for decoder := json.NewDecoder(&out); decoder.More(); {
		var line struct {
			Check  string
			OK     bool
			Detail string
		}
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, line.Check)
		if !line.OK || line.Detail == "" {
			t.Errorf("%s: ok is %v: %s", line.Check, line.OK, line.Detail)
		}
	}
	slices.Sort(seen)
	if want := slices.Sorted(slices.Values(names)); !slices.Equal(seen, want) {
		t.Errorf("checks are %q, expected %q", seen, want)
	}
}
