package machine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// initProcess is PID 1 of a Machine.
type initProcess struct {
	record     record
	supervisor *conn

	mu       sync.Mutex
	children map[int]chan<- syscall.WaitStatus // started here and not reaped yet
	command  int                               // process id of the Machine's command, 0 before it runs
}

// forwarded are the signals that init hands on to the command when somebody
// inside sends them to PID 1. All others do nothing to PID 1.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// runInit does the whole work of a Machine's PID 1. When it returns, the kernel
// kills every process of the Machine.
func runInit() error {
	if err := unignoreSignals(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 64)
	// What is handled here is at its default again in the commands. SIGPIPE must
	// not be ignored, as that they would inherit.
	signal.Notify(signals, append([]os.Signal{syscall.SIGCHLD, syscall.SIGPIPE}, forwarded...)...)

	supervisor, err := connFromFile(os.NewFile(controlFD, "supervisor"))
	if err != nil {
		return err
	}
	m, files, err := supervisor.receive()
	closeAll(files)
	if err != nil {
		return fmt.Errorf("the supervisor's first message: %w", err)
	}
	if m.Op != opSetup || m.Record == nil {
		return fmt.Errorf("the supervisor's first message is %q, expected %q with a record", m.Op, opSetup)
	}
	p := &initProcess{record: *m.Record, supervisor: supervisor, children: make(map[int]chan<- syscall.WaitStatus)}
	if err := setup(p.record.Spec); err != nil {
		return supervisor.send(message{Op: opReady, Error: err.Error()})
	}
	if err := supervisor.send(message{Op: opReady}); err != nil {
		return err
	}
	go p.handleSignals(signals)
	return p.serve()
}

// handleSignals reaps and forwards.
func (p *initProcess) handleSignals(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			p.reap()
			continue
		case syscall.SIGPIPE:
			continue
		}
		p.mu.Lock()
		if p.command != 0 {
			_ = syscall.Kill(p.command, s.(syscall.Signal))
		}
		p.mu.Unlock()
	}
}

// reap takes every child that ended: those started here and the orphans that
// the kernel gave to PID 1.
func (p *initProcess) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return // no children, or none that ended
		}
		// A child is entered under this lock before it can be delivered.
		p.mu.Lock()
		done := p.children[pid]
		delete(p.children, pid)
		if pid == p.command {
			p.command = 0
		}
		p.mu.Unlock()
		if done != nil {
			done <- status
		}
	}
}

// serve takes requests from the supervisor until it is gone.
func (p *initProcess) serve() error {
	started := false
	for {
		m, files, err := p.supervisor.receive()
		if err != nil {
			return nil // the supervisor is gone, and with it the Machine
		}
		if len(files) == 0 {
			continue
		}
		asker, err := connFromFile(files[0])
		if err != nil {
			closeAll(files[1:])
			continue
		}
		streams := files[1:]
		switch m.Op {
		case opStart:
			var ended <-chan syscall.WaitStatus
			err := errors.New("its command was started before")
			if !started {
				ended, err = p.startCommand()
				started = err == nil
			}
			if err == nil {
				err = p.tellStarted(asker)
			}
			if err != nil {
				asker.reply(message{}, err)
			}
			asker.Close()
			if ended != nil {
				go p.keepRelays()
				go p.endWith(ended) // only now: the command may have ended already
			}
		case opSignal:
			asker.reply(message{}, p.signalCommand(m.Signal))
			asker.Close()
		case opExec:
			go p.exec(asker, m.Exec, streams)
			continue // exec closes them
		}
		closeAll(streams)
	}
}

// startCommand runs the Machine's command and returns where its end is told.
func (p *initProcess) startCommand() (<-chan syscall.WaitStatus, error) {
	spec := p.record.Spec
	done := make(chan syscall.WaitStatus, 1)
	command := execSpec{Exec: spec.Exec, Env: spec.Env, WorkDir: spec.WorkDir}
	stdio := []uintptr{0, 1, 2}
	_, err := p.start(command, stdio, done, func(pid int) { p.command = pid })
	if err != nil {
		return nil, err
	}
	return done, nil
}

// tellStarted lets the supervisor answer who asked for the start. Whoever has
// the answer must find, should it ask that supervisor again, that the command
// runs; so nobody can have it before the supervisor knows.
func (p *initProcess) tellStarted(asker *conn) error {
	f, err := asker.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return p.supervisor.send(message{Op: opStarted}, f)
}

// endWith ends the Machine with its command, whatever that left behind.
func (p *initProcess) endWith(ended <-chan syscall.WaitStatus) {
	code := exitCode(<-ended)
	_ = p.supervisor.send(message{Op: opExited, Code: code})
	exit(0)
}

// signalCommand sends a signal to the Machine's command.
func (p *initProcess) signalCommand(s syscall.Signal) error {
	// Under the lock the command cannot be reaped, so the number is its own.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command == 0 {
		return errors.New("its command does not run")
	}
	if err := syscall.Kill(p.command, s); err != nil {
		return fmt.Errorf("signal %d: %w", int(s), err)
	}
	return nil
}

// exec runs a command beside the Machine's own. The asker gets its exit code;
// if the asker goes away first the command is killed.
func (p *initProcess) exec(asker *conn, spec *execSpec, streams []*os.File) {
	defer asker.Close()
	if spec == nil || len(streams) != 3 {
		closeAll(streams)
		asker.reply(message{}, fmt.Errorf("an exec request needs a command and three descriptors, got %d", len(streams)))
		return
	}
	stdio := make([]uintptr, len(streams))
	for i, f := range streams {
		stdio[i] = f.Fd()
	}
	spec.Env = append(append([]string{}, p.record.Spec.Env...), spec.Env...)
	if spec.WorkDir == "" {
		spec.WorkDir = p.record.Spec.WorkDir
	}
	done := make(chan syscall.WaitStatus, 1)
	pid, err := p.start(*spec, stdio, done, nil)
	closeAll(streams)
	if err != nil {
		asker.reply(message{}, err)
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, files, _ := asker.receive()
		closeAll(files)
	}()
	select {
	case status := <-done:
		asker.reply(message{Code: exitCode(status)}, nil)
	case <-gone:
		// Its children too: it leads a session, and so a group, of its own. Under
		// the lock it cannot be reaped, so the number is its own.
		p.mu.Lock()
		if _, running := p.children[pid]; running {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		p.mu.Unlock()
		<-done
	}
}

// start forks and executes a command with these standard streams. done gets its
// end; note is called before that can be.
func (p *initProcess) start(spec execSpec, stdio []uintptr, done chan<- syscall.WaitStatus, note func(pid int)) (int, error) {
	path, attr, err := resolve(p.record, spec)
	if err != nil {
		return 0, err
	}
	attr.Files = stdio
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := forkUnprivileged(path, spec.Exec, attr)
	if err != nil {
		return 0, explain(p.record, path, err)
	}
	p.children[pid] = done
	if note != nil {
		note(pid)
	}
	return pid, nil
}

// exitCode is what a shell would say of a process that ended.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// loopbackUp raises lo, which a new network namespace has down.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return os.NewSyscallError("ioctl SIOCGIFFLAGS lo", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS lo", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}
