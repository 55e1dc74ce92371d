package loader

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const meshDevice = "mesh0"

// tun makes a device without link layer on the host, and returns the other end of it.
func (w *world) tun() (ifindex uint32, inside *os.File) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(meshDevice)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		inside = os.NewFile(uintptr(fd), meshDevice)
		return onDevice(meshDevice, func(x netlink.Link) error { ifindex = uint32(x.Attrs().Index); return nil })
	}))
	w.t.Cleanup(func() { _ = inside.Close() })
	return ifindex, inside
}

// programsOf are the tcx programs on a device.
func (w *world) programsOf(ifindex uint32) (ids []ebpf.ProgramID) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		attached, err := attachedTo(ifindex)
		for _, program := range attached {
			ids = append(ids, program.ID)
		}
		return err
	}))
	return ids
}

// carries says that the two devices carry the two programs of a loader.
func (w *world) carries(l *Loader, mesh uint32) {
	w.t.Helper()
	for _, row := range []struct {
		name    string
		ifindex uint32
		program *ebpf.Program
	}{{"the port", w.port, l.Router()}, {"the mesh", mesh, l.Mesh()}} {
		info, err := row.program.Info()
		w.must(err)
		id, _ := info.ID()
		same(w.t, "programs of "+row.name, w.programsOf(row.ifindex), []ebpf.ProgramID{id})
	}
}

func bringMesh(l *Loader, mesh uint32) error {
	for _, step := range []func(uint32) error{l.Prepare, l.AttachMesh, l.Raise} {
		if err := step(mesh); err != nil {
			return err
		}
	}
	return nil
}

// The mesh has its own program before and after a restart, an upgrade and a loss of pins.
func TestMeshHasItsOwnProgram(t *testing.T) {
	w := newWorld(t)
	mesh, _ := w.tun()
	first := w.open(w.config)
	w.must(bring(first, w.port))
	w.must(bringMesh(first, mesh))
	w.carries(first, mesh)
	router, meshes := w.programs(), w.programsOf(mesh)
	w.must(first.Close())

	again := w.open(w.config)
	same(t, "replaced by the same build", again.Opened().Replaced, false)
	w.must(bringMesh(again, mesh))
	same(t, "programs of the mesh", w.programsOf(mesh), meshes)
	same(t, "programs of the port", w.programs(), router)
	w.must(again.Close())

	w.must(os.RemoveAll(w.config.PinRoot + "/v1"))
	unpinned := w.open(w.config)
	same(t, "replaced for want of pins", unpinned.Opened().Replaced, false)
	w.carries(unpinned, mesh)
	w.must(unpinned.Close())

	config := w.config
	config.load = w.build(2, nil)
	next := w.open(config)
	same(t, "replaced by another build", next.Opened().Replaced, true)
	w.carries(next, mesh)
	w.passes()
	w.must(next.Detach(mesh))
	same(t, "programs of the detached mesh", len(w.programsOf(mesh)), 0)
	same(t, "devices", next.Devices(), []uint32{w.port})
}

// A device that becomes another kind of port changes its program, not its link.
func TestProgramFollowsTheKind(t *testing.T) {
	w := newWorld(t)
	mesh, _ := w.tun()
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(bring(l, mesh))
	pins := w.tree()
	w.must(l.AttachMesh(mesh))
	w.carries(l, mesh)
	same(t, "pins", w.tree(), pins)
}

// An upgrade may be cut short anywhere: both devices keep a whole router, and the next
// start brings both to the new build.
func TestKilledWhileUpgradingTheMesh(t *testing.T) {
	var mesh uint32
	everyStep(t, func(t *testing.T) *world {
		w := newWorld(t)
		mesh, _ = w.tun()
		l := w.open(w.config)
		w.must(bring(l, w.port))
		w.must(bringMesh(l, mesh))
		w.must(l.Close())
		return w
	}, func(w *world, step func(string) error) error {
		config := w.config
		config.load, config.step = w.build(2, nil), step
		return closedWith(Open(w.t.Context(), config))
	}, func(w *world) {
		w.passes()
		config := w.config
		config.load = w.build(2, nil)
		w.carries(w.open(config), mesh)
	})
}

// The filter drops what a device without link layer delivers, of both protocols.
func TestMeshIsClosedWithoutARouter(t *testing.T) {
	w := newWorld(t)
	mesh, inside := w.tun()
	l := w.open(w.config)
	w.must(l.Prepare(mesh))
	drops := func() (drops uint32) {
		w.must(w.host.Do(func() error {
			return onDevice(meshDevice, func(x netlink.Link) error {
				qdiscs, err := netlink.QdiscList(x)
				for _, qdisc := range qdiscs {
					if qdisc.Type() == "clsact" && qdisc.Attrs().Statistics != nil {
						drops = qdisc.Attrs().Statistics.Queue.Drops
					}
				}
				return err
			})
		}))
		return drops
	}
	w.must(w.host.Do(func() error { return onDevice(meshDevice, netlink.LinkSetUp) }))
	v4 := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, make([]byte, 8)...)
	v6 := append([]byte{0x60, 0, 0, 0, 0, 8, 17, 64}, make([]byte, 40)...)
	for i, packet := range [][]byte{v4, v6} {
		_, err := inside.Write(packet)
		w.must(err)
		w.waitFor(w.host, "the filter dropped the packet", func() (bool, error) { return drops() == uint32(i+1), nil })
	}
}
