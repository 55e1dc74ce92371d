package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Phase is how far a run is.
type Phase string

// The phases of a run.
const (
	PhaseCreated Phase = "created" // namespaces are there, the command does not run yet
	PhaseRunning Phase = "running"
	PhaseEnded   Phase = "ended"
)

// Process is one run of a Machine. Its methods may be called from several
// goroutines.
type Process struct {
	driver  *Driver
	record  record
	phase   atomic.Value  // Phase, without its end
	news    chan struct{} // relayed has changed
	relayed atomic.Pointer[[]uint16]
	telling atomic.Bool // news are due

	exited chan struct{} // closed once status is set and no process of the payload is left
	status ExitStatus
}

// ID is the Machine's id.
func (p *Process) ID() string { return p.record.Spec.ID }

// Spec is what the run was created with.
func (p *Process) Spec() Spec { return p.record.Spec }

// Phase is how far the run is.
func (p *Process) Phase() Phase {
	select {
	case <-p.exited:
		return PhaseEnded
	default:
		return p.phase.Load().(Phase)
	}
}

// Exited is closed when the run has ended: its status is known and durable, and
// no process of it is left.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitStatus is how the run ended. It may only be asked once Exited is closed.
func (p *Process) ExitStatus() ExitStatus {
	select {
	case <-p.exited:
		return p.status
	default:
		panic("machine: ExitStatus before Exited was closed")
	}
}

// connect finds the supervisor of a run, waits until its init is ready, and
// watches it from then on.
func (d *Driver) connect(ctx context.Context, r record) (*Process, error) {
	c, err := dial(d.socketPath(r.Spec.ID))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	reply, _, err := c.call(message{Op: opWatch, Follow: true})
	if !stop() {
		return nil, fmt.Errorf("its supervisor did not answer in time, %s may say why: %w", d.directory(r.Spec.ID)+"/"+supervisorLogFile, ctx.Err())
	}
	if err == nil && reply.Run != r.Run {
		err = fmt.Errorf("the supervisor on %s is of run %q, expected %q", d.socketPath(r.Spec.ID), reply.Run, r.Run)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	p := &Process{driver: d, record: r, exited: make(chan struct{}), news: make(chan struct{}, 1)}
	p.phase.Store(reply.Phase)
	p.relayed.Store(&reply.Relayed)
	go p.watch(c)
	return p, nil
}

// ended is a run that is over already.
func (d *Driver) ended(r record) (*Process, error) {
	status, err := readExit(d.directory(r.Spec.ID), r)
	if err != nil {
		return nil, err
	}
	p := &Process{driver: d, record: r, exited: make(chan struct{}), status: status}
	close(p.exited)
	return p, nil
}

// watch waits for the end of the supervisor's connection, which is the end of
// the run.
func (p *Process) watch(c *conn) {
	pace := newRelayedPace()
	for {
		m, files, err := c.receive()
		closeAll(files)
		if err != nil {
			break
		}
		if m.Op == opRelayed {
			p.relayed.Store(&m.Relayed)
			p.tellRelayed(pace)
		}
	}
	c.Close()
	// A supervisor that was killed leaves an init that is just ending. Until
	// that is over the Machine's addresses may still be in use.
	if err := p.driver.sweep(context.Background(), p.record); err != nil {
		p.driver.log.Error("an ended machine left something behind", "machine", p.ID(), "error", err)
	}
	status, err := readExit(p.driver.directory(p.ID()), p.record)
	if err != nil {
		status = ExitStatus{Run: p.record.Run, Code: lostCode, Lost: true, FinishedAt: time.Now(), Message: "how it ended is not known: " + err.Error()}
	}
	p.status = status
	close(p.exited)
}

// How often news of relayed ports are told, after the first few: each is a write of
// the record, and a server inside can open and close its port as fast as it likes.
const (
	relayedInterval = 10 * time.Second
	relayedBurst    = 6
)

func newRelayedPace() *rate.Limiter {
	return rate.NewLimiter(rate.Every(relayedInterval), relayedBurst)
}

// tellRelayed has what is relayed looked at, now or when it is time; what changes until
// then is looked at with it.
func (p *Process) tellRelayed(pace *rate.Limiter) {
	if !p.telling.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(pace.Reserve().Delay(), func() {
		p.telling.Store(false)
		select {
		case p.news <- struct{}{}:
		default:
		}
	})
}

var errUnanswered = errors.New("it ended before it answered")

// request asks the supervisor (or, through it, init) one thing. All but a
// command that runs is answered at once, so a late answer is an error.
func (p *Process) request(ctx context.Context, m message, files ...*os.File) (message, []*os.File, error) {
	if m.Op != opExec {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.driver.config.AnswerTimeout)
		defer cancel()
	}
	c, err := dial(p.driver.socketPath(p.ID()))
	if noSupervisor(err) {
		err = errors.New("it has ended")
	}
	var reply message
	var received []*os.File
	if err == nil {
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		reply, received, err = c.call(m, files...)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = errUnanswered
	}
	if err != nil {
		closeAll(received)
		return message{}, nil, fmt.Errorf("machine %s: %s: %w", p.ID(), m.Op, err)
	}
	return reply, received, nil
}

// NetNS opens the Machine's network namespace. The file is the caller's to
// close; while it is open the namespace stays, even after the Machine's end.
func (p *Process) NetNS(ctx context.Context) (*os.File, error) {
	_, files, err := p.request(ctx, message{Op: opNetNS})
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		closeAll(files)
		return nil, fmt.Errorf("machine %s: its supervisor sent %d descriptors, expected its network namespace", p.ID(), len(files))
	}
	return files[0], nil
}

// Start runs the command. It returns once the command is running, or says why
// it cannot run.
func (p *Process) Start(ctx context.Context) error {
	err := writeJSON(filepath.Join(p.driver.directory(p.ID()), startedFile), startedMark{Run: p.record.Run, At: time.Now()})
	if err != nil {
		return err
	}
	_, _, err = p.request(ctx, message{Op: opStart})
	if err == nil {
		p.phase.Store(PhaseRunning)
	}
	return err
}

// Signal sends a signal to the command. It does not reach a frozen Machine
// until it is thawed. A Machine that ends meanwhile, by this signal most likely, has
// got it.
func (p *Process) Signal(ctx context.Context, signal syscall.Signal) error {
	_, _, err := p.request(ctx, message{Op: opSignal, Signal: signal})
	if errors.Is(err, errUnanswered) {
		return nil
	}
	return err
}

// Relayed are the ports on which a server inside listens with IPv4 only and which
// are relayed to it, in order and each once, be it of TCP, UDP or both.
func (p *Process) Relayed() []uint16 {
	if relayed := p.relayed.Load(); relayed != nil {
		return *relayed
	}
	return nil
}

// Kill ends every process of the Machine at once, frozen or not. Its supervisor
// stays to record that.
func (p *Process) Kill() error { return cgroup(p.record.Cgroup).killPayload() }

// Freeze stops every process of the Machine until Thaw. It returns when all of
// them stand still.
func (p *Process) Freeze(ctx context.Context) error {
	return cgroup(p.record.Cgroup).freeze(ctx, true)
}

// Thaw lets a frozen Machine go on.
func (p *Process) Thaw(ctx context.Context) error {
	return cgroup(p.record.Cgroup).freeze(ctx, false)
}

// Frozen says whether the Machine was told to stand still, by whichever agent.
func (p *Process) Frozen() bool { return cgroup(p.record.Cgroup).frozen() }

// Processes lists the process ids of the Machine, its init first, as the host
// sees them. They are for people: a number may belong to another process a
// moment later.
func (p *Process) Processes() ([]int, error) {
	return cgroup(p.record.Cgroup).processes(payloadLeaf)
}
