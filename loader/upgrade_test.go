package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// traffic is a stream of numbered datagrams through the router.
type traffic struct {
	w    *world
	stop chan struct{}
	sent chan uint64          // how many, once stopped
	got  chan map[uint64]bool // which, once nothing more arrives
	last chan uint64          // tells the receiver how many to expect
}

const (
	rate  = 10_000 // datagrams a second
	tick  = time.Millisecond
	burst = 100 // at most, after the sender was kept from running: queues on the way are short
)

func (w *world) startTraffic() *traffic {
	w.t.Helper()
	receiver, sender := w.sockets()
	f := &traffic{w, make(chan struct{}), make(chan uint64, 1), make(chan map[uint64]bool, 1), make(chan uint64, 1)}
	go f.send(sender)
	go f.receive(receiver)
	return f
}

func (f *traffic) send(sender net.Conn) {
	defer sender.Close()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	number, begin := uint64(0), time.Now()
	for {
		select {
		case <-f.stop:
			f.sent <- number
			return
		case <-ticker.C:
		}
		due := uint64(time.Since(begin) * rate / time.Second)
		for range min(due-number, burst) {
			if _, err := sender.Write(binary.BigEndian.AppendUint64(nil, number)); err != nil {
				f.w.t.Errorf("send: %v", err)
			}
			number++
		}
	}
}

// receive reads at once, so that the socket's buffer never fills, until it has as
// many as were sent, or nothing came for a while.
func (f *traffic) receive(receiver net.PacketConn) {
	defer receiver.Close()
	got, b := map[uint64]bool{}, make([]byte, 100)
	defer func() { f.got <- got }()
	expected := ^uint64(0)
	for uint64(len(got)) < expected {
		select {
		case expected = <-f.last:
			continue
		default:
		}
		wait := tick
		if expected != ^uint64(0) {
			wait = patience
		}
		_ = receiver.SetReadDeadline(time.Now().Add(wait))
		n, _, err := receiver.ReadFrom(b)
		switch {
		case err != nil && wait == patience:
			return
		case err == nil && n == 8:
			got[binary.BigEndian.Uint64(b)] = true
		}
	}
}

// finish stops the stream and demands every number of it.
func (f *traffic) finish() (sent uint64) {
	f.w.t.Helper()
	close(f.stop)
	sent = <-f.sent
	f.last <- sent
	got := <-f.got
	for number := range sent {
		if !got[number] {
			f.w.t.Fatalf("%d of %d datagrams are missing, number %d first", sent-uint64(len(got)), sent, number)
		}
	}
	return sent
}

// closedWith closes a loader as the end of its process would.
func closedWith(l *Loader, err error) error {
	if l != nil {
		_ = l.Close()
	}
	return err
}

func TestUpgradeLosesNothing(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(l.Close())
	w.passes()
	flow := w.startTraffic()
	seen := map[ebpf.ProgramID]bool{}
	const upgrades = 100
	for i := range upgrades {
		config := w.config
		config.load = w.build(2+int32(i%2), nil)
		if i%10 == 9 { // and with tables that are made again
			config.load = w.build(100+int32(i), func(s *ebpf.CollectionSpec) { s.Maps["vips"].MaxEntries = uint32(testTables + i) })
			config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
		} else if i%10 == 0 && i > 0 {
			config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
		}
		next, err := Open(t.Context(), config)
		w.must(err)
		same(t, "replaced", next.Opened().Replaced, true)
		w.must(bring(next, w.port))
		w.must(next.Close())
		for _, id := range w.programs() {
			seen[id] = true
		}
	}
	sent := flow.finish()
	same(t, "programs that were on the device", len(seen), upgrades)
	t.Logf("%d datagrams, %d upgrades, none lost", sent, upgrades)
}

// killer makes the step of this number fail, as if the process had been killed there.
type killer struct {
	left int
	at   string
}

var errKilled = errors.New("killed")

func (k *killer) step(name string) error {
	if k.left--; k.left == 0 {
		k.at = name
		return errKilled
	}
	return nil
}

// isNeverOpen: a device that is up drops, or asks the router.
func (w *world) isNeverOpen() {
	w.t.Helper()
	if s := w.state(); s.up && !s.filtered || s.routed && !s.filtered {
		w.t.Errorf("the device is open: %+v", s)
	}
}

// converged: one program, this build's; one complete version of pins.
func (w *world) converged(config Config) {
	w.t.Helper()
	l := w.open(config)
	w.must(bring(l, w.port))
	same(w.t, "state", w.state(), state{true, true, true})
	info, err := l.Router().Info()
	w.must(err)
	id, _ := info.ID()
	same(w.t, "programs on the device", w.programs(), []ebpf.ProgramID{id})
	want := []string{fmt.Sprintf("%s/%d", linksDir, w.port)}
	for name := range l.all {
		want = append(want, fmt.Sprintf("v%d/%s", l.version, name))
	}
	for _, name := range onDevices {
		want = append(want, fmt.Sprintf("v%d/%s", l.version, name))
	}
	have := strings.Join(w.tree(), " ")
	same(w.t, "pins", len(w.tree()), len(want))
	for _, pin := range want {
		if !strings.Contains(have+" ", pin+" ") {
			w.t.Errorf("pin %s is missing in %s", pin, have)
		}
	}
	w.must(l.Close())
	w.passes()
}

// everyStep runs a procedure, killed at its first step, then at its second, and so
// on, until it comes through; after each, check has to hold.
func everyStep(t *testing.T, begin func(t *testing.T) *world, procedure func(*world, func(string) error) error, check func(*world)) {
	t.Helper()
	for number := 1; ; number++ {
		k := &killer{left: number}
		done := false
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			w := begin(t)
			err := procedure(w, k.step)
			switch {
			case err == nil:
				done = true
			case !errors.Is(err, errKilled):
				t.Fatal(err)
			}
			w.isNeverOpen()
			check(w)
			if t.Failed() {
				t.Logf("killed at step %q", k.at)
			}
		})
		if t.Failed() {
			return
		}
		if done {
			if number < 5 {
				t.Errorf("only %d steps could be interrupted", number-1)
			}
			return
		}
	}
}

func TestKilledWhileComingUp(t *testing.T) {
	everyStep(t, newWorld, func(w *world, step func(string) error) error {
		config := w.config
		config.step = step
		l, err := Open(w.t.Context(), config)
		if err == nil {
			err = bring(l, w.port)
		}
		return closedWith(l, err)
	}, func(w *world) { w.converged(w.config) })
}

func TestKilledWhileUpgrading(t *testing.T) {
	upgraded := func(w *world) Config {
		config := w.config
		config.load = w.build(2, changes(swapFields("services"), swapFields("backend_load")))
		config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
		return config
	}
	everyStep(t, func(t *testing.T) *world {
		w := newWorld(t)
		l := w.open(w.config)
		w.must(bring(l, w.port))
		w.must(l.Close())
		return w
	}, func(w *world, step func(string) error) error {
		config := upgraded(w)
		config.step = step
		return closedWith(Open(w.t.Context(), config))
	}, func(w *world) {
		w.passes() // before anybody comes to repair it
		w.converged(upgraded(w))
	})
}

func TestKilledWhileDetaching(t *testing.T) {
	for name, procedure := range map[string]func(*world, func(string) error) error{
		"detach": func(w *world, step func(string) error) error {
			l, err := Open(w.t.Context(), w.config)
			if err == nil {
				l.config.step = step
				err = l.Detach(w.port)
			}
			return closedWith(l, err)
		},
		"reset": func(w *world, step func(string) error) error {
			config := w.config
			config.step = step
			_, err := Reset(w.t.Context(), config)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for number := 1; number <= 4; number++ {
				w := newWorld(t)
				l := w.open(w.config)
				w.must(bring(l, w.port))
				w.must(l.Close())
				if err := procedure(w, (&killer{left: number}).step); !errors.Is(err, errKilled) {
					t.Fatalf("step %d: error %v, expected to be killed there", number, err)
				}
				w.isNeverOpen()
				same(t, "the device is up", w.state().up, number == 1) // when it is just found
				w.must(procedure(w, func(string) error { return nil }))
				same(t, "state", w.state(), state{})
				w.converged(w.config)
			}
		})
	}
}

func TestTwoProgramsOfACutUpgrade(t *testing.T) {
	w := newWorld(t)
	second := w.veth2("port1")
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(bring(l, second))
	w.must(l.Close())
	config := w.config
	config.load = w.build(2, swapFields("services"))
	config.Fill = func(_, new *bpf.RouterMaps) error {
		return new.Services.Put(bpf.RouterServiceKey{Network: 5}, bpf.RouterService{Id: 9})
	}
	updates := 0
	config.step = func(name string) error {
		if name == "update link" {
			if updates++; updates == 2 {
				return errKilled
			}
		}
		return nil
	}
	w.must(func() error {
		if err := closedWith(Open(t.Context(), config)); !errors.Is(err, errKilled) {
			return fmt.Errorf("error %w, expected to be killed between two devices", err)
		}
		return nil
	}())
	config.step = nil
	config.Fill = nil // it was filled: the half-done upgrade is finished, not begun again
	w.must(config.complete())
	next := w.open(config)
	var service bpf.RouterService
	w.must(next.Maps().Services.Lookup(bpf.RouterServiceKey{Network: 5}, &service))
	same(t, "devices", next.Devices(), []uint32{w.port, second})
	for _, x := range next.links {
		info, err := x.Info()
		w.must(err)
		router, err := next.Router().Info()
		w.must(err)
		id, _ := router.ID()
		same(t, "program of a device", info.Program, id)
	}
}
