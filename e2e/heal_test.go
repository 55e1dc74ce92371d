package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// memberPort is where members of the store hear each other, as /proc/net/tcp says it.
const memberPort = ":CA6F" // 51823

// awaitVoters waits until every host knows the store on all of them.
func awaitVoters(ctx context.Context, t *testing.T, f *nettest.Fleet) {
	t.Helper()
	for _, h := range f.Hosts {
		nettest.Must(t, nettest.Eventually(ctx, "the store is on all hosts", func(context.Context) error {
			content, err := os.ReadFile(filepath.Join(h.StateDir(), "fleet", "fleet.json"))
			if n := bytes.Count(content, []byte("https://")); err == nil && n != len(f.Hosts) {
				err = fmt.Errorf("to %s it is on %d", h.Name, n)
			}
			return err
		}))
	}
}

// memberConnections is the established connections of a host to other members, by
// addresses and ports.
func memberConnections(h *nettest.Host) (all map[string]bool, err error) {
	all = map[string]bool{}
	err = h.Do(func() error {
		content, err := os.ReadFile("/proc/thread-self/net/tcp")
		for line := range strings.Lines(string(content)) {
			f := strings.Fields(line)
			if len(f) > 3 && f[3] == "01" && (strings.HasSuffix(f[1], memberPort) || strings.HasSuffix(f[2], memberPort)) {
				all[f[1]+" "+f[2]] = true
			}
		}
		return err
	})
	return all, err
}

// TestStoreHeals: some or all members of the store are cut off from each other, for long
// enough that none of their connections is left: whatever waits for a retransmission would
// hold up the store for as long again as the cut was. Then orders are taken again at once.
func TestStoreHeals(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra", "ams"},
		Host:    nettest.Config{AgentFlags: []string{"--members-interval", "300ms"}},
	})
	awaitVoters(ctx, t, f)
	nettest.Must(t, f.Hosts[0].CreateOrg(ctx, "acme"))
	for _, members := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d members", members), func(t *testing.T) {
			before := map[*nettest.Host]map[string]bool{}
			for _, h := range f.Hosts {
				before[h] = nettest.Get[map[string]bool](t)(memberConnections(h))
				if len(before[h]) < 4 {
					t.Fatalf("host %s has connections %v to other members: nothing is tested", h.Name, before[h])
				}
			}
			began := time.Now()
			for _, h := range f.Hosts[:members] {
				nettest.Must(t, h.Uplink.Cut())
			}
			for _, h := range f.Hosts {
				nettest.Must(t, nettest.Eventually(ctx, "no connection of before the cut is left", func(context.Context) error {
					now, err := memberConnections(h)
					for c := range now {
						if before[h][c] {
							return fmt.Errorf("%s has %s after %v", h.Name, c, time.Since(began))
						}
					}
					return err
				}))
			}
			for _, h := range f.Hosts[:members] {
				nettest.Must(t, h.Uplink.Heal())
			}
			t.Logf("healed after %v", time.Since(began))
			healed := time.Now()
			try := 0
			for _, h := range f.Hosts {
				nettest.Must(t, nettest.Eventually(ctx, "a host takes orders again", func(ctx context.Context) error {
					limited, cancel := context.WithTimeout(ctx, 3*time.Second)
					defer cancel()
					try++ // another name each time: an answer may be lost
					return h.CreateApp(limited, fmt.Sprintf("after-%d-%d", members, try), "acme")
				}))
				t.Logf("%v later host %s takes orders", time.Since(healed), h.Name)
			}
		})
	}
}
