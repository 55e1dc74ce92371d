package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest"
)

// The programs on the devices, and the names of their pins.
const (
	routerName = "sixpn_router"
	// programPrefix is how pins of programs and their links begin; the others are tables.
	programPrefix = "sixpn_"
)

// otherwise are the tables that are laid out in another way: one that is carried over
// and some that are made of the state.
var otherwise = []string{bpf.RouterMapBackends, bpf.RouterMapServices, bpf.RouterMapServiceRanges, bpf.RouterMapVips}

// TestBuildOfAnotherLayout has an agent take the place of a router of a build whose
// tables it cannot go on with. It fills its own before a packet meets them: no flow
// ends, and none is refused.
func TestBuildOfAnotherLayout(t *testing.T) {
	ctx := nettest.Context(t)
	w := newWorld(ctx, t)
	flows := newProber(t, w, rand.New(rand.NewPCG(1, 1)))
	flows.limit = 10 * time.Second
	tables := openTables(t, w)
	nettest.Must(t, nettest.Eventually(ctx, "there is traffic", func(context.Context) error {
		if all, err := tables.flows(); err != nil || len(all) < 3 {
			return errors.Join(err, fmt.Errorf("there are %d flows", len(all)))
		}
		return nil
	}))

	nettest.Must(t, w.KillAgent())
	layOtherwise(t, w.Host, sixpn.FirstHost, otherwise)
	for _, datagram := range []bool{false, true} { // the other build is as good as this one
		conn, _, err := flows.connect(ctx, flows.inside[0], w.vips.all[0], datagram)
		nettest.Must(t, err)
		flows.held = append(flows.held, conn)
	}
	nettest.Must(t, w.StartAgent(ctx))

	spec := nettest.Get[*ebpf.CollectionSpec](t)(bpf.LoadRouter())
	for _, name := range otherwise {
		m := nettest.Get[*ebpf.Map](t)(ebpf.LoadPinnedMap(filepath.Join(versionDir(t, w.Host), name), nil))
		if m.MaxEntries() != spec.Maps[name].MaxEntries {
			t.Errorf("table %s has still the layout of the other build", name)
		}
		nettest.Must(t, m.Close())
	}
	connects(ctx, t, w.clients[0], netip.AddrPortFrom(w.vips.all[0], vipPort))
	nettest.EndTraffic(ctx, t, w.traffic)
	awaitRest(ctx, t, w)
}

// onTCX are the programs of devices, but those of XDP.
var onTCX = []string{routerName, programPrefix + "mesh", programPrefix + "uplink"}

// layOtherwise makes the running router of a host one of a build some of whose tables are
// half as large. What they hold is the same.
func layOtherwise(t *testing.T, h *nettest.Host, id sixpn.Host, otherwise []string) {
	t.Helper()
	dir := versionDir(t, h)
	spec := nettest.Get[*ebpf.CollectionSpec](t)(bpf.LoadRouter())
	for name := range spec.Programs {
		if !slices.Contains(onTCX, name) {
			delete(spec.Programs, name)
		}
	}
	nettest.Must(t, spec.Variables["host"].Set(uint32(id)))
	running := map[string]*ebpf.Map{}
	for _, entry := range entries(t, dir) {
		if !strings.HasPrefix(entry, programPrefix) {
			running[entry] = nettest.Get[*ebpf.Map](t)(ebpf.LoadPinnedMap(filepath.Join(dir, entry), nil))
			defer running[entry].Close()
		}
	}
	used := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if running[name] != nil {
			used[name] = running[name]
		}
	}
	for _, name := range otherwise {
		spec.Maps[name].MaxEntries /= 2
		delete(used, name)
	}
	build := nettest.Get[*ebpf.Collection](t)(ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: used}))
	defer build.Close()

	for _, name := range otherwise {
		copyTable(t, running[name], build.Maps[name])
		repin(t, filepath.Join(dir, name), build.Maps[name])
		running[name] = build.Maps[name]
	}
	now := map[ebpf.ProgramID]*ebpf.Program{} // instead of which
	for _, name := range onTCX {
		program := build.Programs[name]
		for _, m := range running { // its signature is among them
			if err := program.BindMap(m); err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
		}
		before := nettest.Get[*ebpf.Program](t)(ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil))
		id, _ := nettest.Get[*ebpf.ProgramInfo](t)(before.Info()).ID()
		now[id] = program
		nettest.Must(t, before.Close())
	}
	for _, entry := range entries(t, filepath.Join(h.PinDir(), "links")) {
		x := nettest.Get[link.Link](t)(link.LoadPinnedLink(filepath.Join(h.PinDir(), "links", entry), nil))
		if program := now[nettest.Get[*link.Info](t)(x.Info()).Program]; program != nil {
			nettest.Must(t, x.Update(program))
		}
		nettest.Must(t, x.Close())
	}
	for _, name := range onTCX {
		repin(t, filepath.Join(dir, name), build.Programs[name])
	}
}

// copyTable copies all that one table holds into another.
func copyTable(t *testing.T, from, to *ebpf.Map) {
	t.Helper()
	var key, value []byte
	all := from.Iterate()
	for n := uint32(0); n < to.MaxEntries() && all.Next(&key, &value); n++ {
		nettest.Must(t, to.Put(key, value))
	}
	nettest.Must(t, all.Err())
}

// repin pins something in the place of something else.
func repin(t *testing.T, path string, what interface{ Pin(string) error }) {
	t.Helper()
	nettest.Must(t, os.Remove(path))
	nettest.Must(t, what.Pin(path))
}
