package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/bpf"
)

// What the program returns: TCX_DROP and TC_ACT_REDIRECT.
const (
	verdictDrop     = 2
	verdictRedirect = 7
)

// checksumComplete is BPF_F_TEST_SKB_CHECKSUM_COMPLETE: the frame comes with the sum of
// all its bytes, and the kernel fails the run (EBADMSG) if the program lets it go wrong.
const checksumComplete = 1 << 2

// skb is struct __sk_buff as BPF_PROG_TEST_RUN takes it.
type skb struct {
	_       [10]uint32
	Ifindex uint32
	_       [30]uint32
	GsoSegs uint32
	_       uint64
	GsoSize uint32
	_       [3]uint32
}

// shot is one frame on its way into a port.
type shot struct {
	ifindex uint32
	frame   []byte
	gsoSize uint32
	gsoSegs uint32
	flags   uint32
}

// from is a shot of a member, its checksum written.
func from(m *member, to netip.Addr, protocol uint8, l4 []byte) shot {
	return shot{ifindex: m.ifindex, frame: seal(m.frame(ipv6(m.addr(), to, protocol, l4)))}
}

// fire runs the router over a frame: its verdict and the frame afterwards. By the mesh
// the packet alone comes, turned; by the uplink the frame does.
func (w *world) fire(s shot) (verdict uint32, frame []byte) {
	w.t.Helper()
	program := w.SixpnRouter
	if w.mesh != nil && s.ifindex == w.mesh.ifindex {
		s.frame = turned(s.frame)
		switch w.way {
		case byMesh:
			program, s.frame = w.SixpnMesh, s.frame[offsetIP:]
		case byUplink:
			program = w.SixpnUplink
		default:
			verdict, frame = w.fireXDP(s)
			if w.handed = verdict == verdictNext; !w.handed {
				return verdict, frame
			}
			program = w.SixpnUplink
		}
	}
	verdict, frame, err := runProgram(program, s)
	if err != nil {
		w.t.Fatalf("run the router: %v", err)
	}
	return verdict, frame
}

func runProgram(program *ebpf.Program, s shot) (uint32, []byte, error) {
	options := ebpf.RunOptions{
		Data:    s.frame,
		DataOut: make([]byte, len(s.frame)+256),
		Context: &skb{Ifindex: s.ifindex, GsoSize: s.gsoSize, GsoSegs: s.gsoSegs},
		Flags:   s.flags,
	}
	verdict, err := program.Run(&options)
	return verdict, options.DataOut, err
}

// ignoreLayout leaves out the marker that generated structures carry.
var ignoreLayout = cmpopts.IgnoreUnexported(bpf.RouterCounters{})

// outcome is everything that a shot shall lead to.
type outcome struct {
	reason bpf.DropReason // 0: none is counted
	to     *member        // who is counted as the receiver; nil: nobody
	frame  []byte         // what goes out, forwarded or answered; nil: nothing does
}

// requireOutcome fires and compares the verdict, every byte and every counter.
func (w *world) requireOutcome(t testing.TB, s shot, want outcome) {
	t.Helper()
	before := w.counts()
	verdict, frame := w.fire(s)
	if want.frame == nil && verdict != verdictDrop {
		t.Errorf("the verdict is %d, want drop (%d)", verdict, verdictDrop)
	}
	if want.frame != nil {
		if verdict != verdictRedirect {
			t.Errorf("the verdict is %d, want redirect (%d)", verdict, verdictRedirect)
		} else if diff := cmp.Diff(dissect(want.frame), dissect(frame)); diff != "" {
			t.Errorf("the frame afterwards (-want +got):\n%s", diff)
		} else {
			requireChecksums(t, frame)
		}
	}
	if w.way.isXDP() && w.mesh != nil && s.ifindex == w.mesh.ifindex && w.handed != w.handsOver(s, want) {
		t.Errorf("XDP left the frame to tcx: %t, expected %t", w.handed, !w.handed)
	}
	expected := w.expectedCounts(before, s, want)
	if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
		t.Errorf("counters afterwards (-want +got):\n%s", diff)
	}
}

// expectedCounts changes what was counted before by what one outcome adds.
func (w *world) expectedCounts(c counts, s shot, want outcome) counts {
	source := w.portName(s.ifindex)
	packets := uint64(max(1, s.gsoSegs))
	if want.reason != 0 {
		c.Drops[want.reason.String()]++
		c.PortDrops[source+" "+want.reason.String()]++
		if counters, ok := c.Ports[source]; ok {
			counters.Dropped++
			c.Ports[source] = counters
		}
	}
	if want.to != nil {
		counters := c.Ports[source]
		counters.RxPackets += packets
		counters.RxBytes += uint64(len(s.frame))
		c.Ports[source] = counters
		counters = c.Ports[want.to.name]
		counters.TxPackets += packets
		counters.TxBytes += uint64(len(s.frame))
		c.Ports[want.to.name] = counters
	}
	return c
}

// dissect cuts a frame into what a difference is read by.
func dissect(frame []byte) map[string][]byte {
	if len(frame) < offsetL4 {
		return map[string][]byte{"frame": frame}
	}
	return map[string][]byte{
		"ethernet":    frame[:offsetIP],
		"ip":          frame[offsetIP:offsetSource],
		"source":      frame[offsetSource:offsetTarget],
		"destination": frame[offsetTarget:offsetL4],
		"payload":     frame[offsetL4:],
	}
}

// plain is a frame as it reaches a member unchanged: new MACs, one hop less.
func plain(frame []byte, to *member) []byte {
	frame = slices.Clone(frame)
	copy(frame[0:], to.guest[:])
	copy(frame[6:], to.router[:])
	frame[offsetHop]--
	return frame
}

// rewritten is a frame as it reaches a member with another pair and other ports.
func rewritten(frame []byte, to *member, source, destination netip.AddrPort) []byte {
	frame = plain(frame, to)
	setAddress(frame, offsetSource, source.Addr())
	setAddress(frame, offsetTarget, destination.Addr())
	frame[offsetL4], frame[offsetL4+1] = byte(source.Port()>>8), byte(source.Port())
	frame[offsetL4+2], frame[offsetL4+3] = byte(destination.Port()>>8), byte(destination.Port())
	return seal(frame)
}

// answered is the router's own packet to the sender of a shot.
func answered(w *world, s shot, packet []byte) []byte {
	m := w.members[slices.IndexFunc(w.members, func(m *member) bool { return m.ifindex == s.ifindex })]
	return seal(ethernet(m.guest, m.router, packet))
}

// row is one change of a table's shot or world, and what it leads to. A row without
// a reason and one whose frame is made by the router have a `frame`.
type row struct {
	name   string
	world  func(w *world)
	change func(w *world, s *shot)
	reason bpf.DropReason
	to     func(w *world) *member
	frame  func(w *world, s shot) []byte
}

// table begins with a shot that passes; each row changes one thing of it.
type table struct {
	name  string
	world func(w *world)
	shot  func(w *world) shot
	to    func(w *world) *member
	frame func(w *world, s shot) []byte
	rows  []row
}

// run fires the table's own shot and then every row, each in a fresh world.
func (c table) run(t *testing.T) { c.runBy(t, byMesh) }

// runBy does so in a world whose packets of other hosts come this way.
func (c table) runBy(t *testing.T, by way) {
	w := newWorld(t, func(s *settings) { s.way = by })
	t.Run("passes", func(t *testing.T) { c.fire(t, w, row{to: c.to, frame: c.frame}) })
	for _, r := range c.rows {
		t.Run(r.name, func(t *testing.T) { c.fire(t, w, r) })
	}
}

func (c table) fire(t *testing.T, w *world, r row) {
	w.t = t
	w.reset()
	if c.world != nil {
		c.world(w)
	}
	s := c.shot(w)
	if r.world != nil {
		r.world(w)
	}
	if r.change != nil {
		r.change(w, &s)
	}
	want := outcome{reason: r.reason}
	if r.to != nil {
		want.to = r.to(w)
	}
	if r.frame != nil {
		want.frame = r.frame(w, s)
	} else if want.to != nil {
		want.frame = plain(s.frame, want.to)
	}
	w.requireOutcome(t, s, want)
	w.requireLedger(t)
}

func toServer(w *world) *member  { return w.server }
func toClient(w *world) *member  { return w.client }
func toPrivate(w *world) *member { return w.private }
