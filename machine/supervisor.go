package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/inherited"
)

// Descriptors that a supervisor and an init are born with.
const (
	listenerFD = 3 // a supervisor's socket, listening
	controlFD  = 3 // an init's end of the connection to its supervisor
)

// outputDrain is how long a supervisor reads on after the Machine's end, should
// somebody else still hold its output open.
const outputDrain = 2 * time.Second

// supervisor is the process that stands beside one Machine. It keeps the
// command's output, hands requests to init, and writes down how it all ended.
type supervisor struct {
	dir    string
	record record
	log    *slog.Logger
	init   *conn // to init

	ready chan struct{} // closed when phase and failure are valid
	mu    sync.Mutex
	phase Phase
	// failure says why init could not make the Machine.
	failure string
	exit    *ExitStatus // as init told it
	relayed []uint16
	changed chan struct{} // closed and replaced when relayed changes

	netNS *os.File
}

// runSupervisor does a supervisor's whole work. dir is the Machine's directory.
func runSupervisor(dir string) error {
	// Ctrl-C and log-outs concern the agent's session; a host that goes down
	// tells the payload itself. This process has to see the end of it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)
	s := &supervisor{dir: dir, log: slog.New(slog.NewTextHandler(os.Stderr, nil)), ready: make(chan struct{}), phase: PhaseCreated, changed: make(chan struct{})}
	if err := inherited.Close(listenerFD); err != nil {
		return err
	}
	var err error
	if s.record, err = readRecord(dir); err != nil {
		return err
	}
	socket := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(socket)
	socket.Close()
	if err != nil {
		return fmt.Errorf("descriptor %d is no listening socket: %w", listenerFD, err)
	}
	output, err := newLogWriter(filepath.Join(dir, logDirectory), s.record.Spec.Logs)
	if err != nil {
		return err
	}
	cmd, streams, err := s.startInit()
	if err != nil {
		return err
	}
	var pumps sync.WaitGroup
	for name, stream := range streams {
		pumps.Go(func() {
			if err := output.copyFrom(name, stream); err != nil {
				s.log.Error("output was lost", "stream", name, "error", err)
			}
		})
	}
	told := make(chan struct{}) // init has told all that it will
	go func() {
		s.hearInit()
		close(told)
	}()
	go s.serve(listener)

	// The main thread started init and waits here: init dies with it.
	waitErr := cmd.Wait()
	<-told
	for _, stream := range streams {
		_ = stream.SetReadDeadline(time.Now().Add(outputDrain))
	}
	pumps.Wait()
	return errors.Join(output.close(), writeJSON(filepath.Join(dir, exitFile), s.exitStatus(waitErr)))
}

// startInit starts PID 1 of the Machine in namespaces of its own. streams are
// the read ends of what the command will write.
func (s *supervisor) startInit() (*exec.Cmd, map[string]*os.File, error) {
	mine, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	if s.init, err = connFromFile(mine); err != nil {
		return nil, nil, err
	}
	stdout, stdoutWriter, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer stdoutWriter.Close()
	stderr, stderrWriter, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer stderrWriter.Close()
	for _, w := range []*os.File{stdoutWriter, stderrWriter} {
		// So that the command may open /dev/stdout and the like again.
		if err := w.Chown(int(s.record.FirstID), int(s.record.FirstID)); err != nil {
			return nil, nil, err
		}
	}
	leaf, err := os.Open(cgroup(s.record.Cgroup).leaf(payloadLeaf))
	if err != nil {
		return nil, nil, err
	}
	defer leaf.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(s.record.FirstID), Size: int(s.record.IDs)}}
	cmd := &exec.Cmd{
		// The file that this process runs is found even when its directory is
		// out of the reach of the ids inside, or its path now leads elsewhere.
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{}, Dir: "/",
		Stdout: stdoutWriter, Stderr: stderrWriter, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential:  &syscall.Credential{Uid: 0, Gid: 0},
			Setsid:      true,
			Pdeathsig:   syscall.SIGKILL, // also reaches a frozen init
			UseCgroupFD: true, CgroupFD: int(leaf.Fd()),
		},
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start init in namespaces of its own: %w%s", err, startHint(err))
	}
	// Not reaped yet, so the number is still init's.
	s.netNS, err = os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net")
	if err == nil {
		err = s.init.send(message{Op: opSetup, Record: &s.record})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, nil, errors.Join(err, cmd.Wait())
	}
	return cmd, map[string]*os.File{"stdout": stdout, "stderr": stderr}, nil
}

// startHint explains the errors that the host's settings cause.
func startHint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return ": the host's limits on namespaces are reached, see /proc/sys/user/max_*_namespaces"
	case errors.Is(err, syscall.EACCES):
		return ": the sixpn binary must be executable by every user, use \"chmod 755\""
	case errors.Is(err, syscall.EPERM):
		return ": user namespaces are not permitted here, see /proc/sys/kernel/unprivileged_userns_clone and AppArmor's restrictions"
	}
	return ""
}

// hearInit follows what init tells until it ends.
func (s *supervisor) hearInit() {
	ready := sync.OnceFunc(func() { close(s.ready) })
	for {
		m, files, err := s.init.receive()
		if errors.Is(err, syscall.ECONNRESET) {
			// Init ended and had not read all of its requests. That is told
			// once, before what init itself had sent.
			continue
		}
		if err != nil {
			s.mu.Lock()
			if s.phase == PhaseCreated && s.failure == "" {
				s.failure = "init ended before it was told to start the command"
			}
			s.mu.Unlock()
			ready()
			return
		}
		s.mu.Lock()
		switch m.Op {
		case opReady:
			s.failure = m.Error
		case opStarted:
			s.phase = PhaseRunning
		case opRelayed:
			s.relayed = m.Relayed
			close(s.changed)
			s.changed = make(chan struct{})
		case opExited:
			s.exit = &ExitStatus{Run: s.record.Run, Started: true, Code: m.Code, Message: m.Error, FinishedAt: time.Now()}
		}
		s.mu.Unlock()
		switch m.Op {
		case opReady:
			ready()
		case opStarted:
			s.confirmStart(files)
			continue // confirmStart closes them
		}
		closeAll(files)
	}
}

// confirmStart answers who asked for the start.
func (s *supervisor) confirmStart(asker []*os.File) {
	for _, f := range asker {
		c, err := connFromFile(f)
		if err != nil {
			s.log.Error("a start could not be confirmed", "error", err)
			continue
		}
		c.reply(message{}, nil)
		c.Close()
	}
}

// exitStatus is what is written down at the end. waitErr is init's.
func (s *supervisor) exitStatus(waitErr error) ExitStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit != nil {
		return *s.exit
	}
	status := ExitStatus{Run: s.record.Run, Started: s.phase == PhaseRunning, Code: lostCode, FinishedAt: time.Now(), Message: s.failure}
	var exitErr *exec.ExitError
	if errors.As(waitErr, &exitErr) {
		if w, ok := exitErr.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			status.Code = 128 + int(w.Signal())
		}
	}
	return status
}

// serve answers the agent until this process ends.
func (s *supervisor) serve(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			s.log.Error("accept failed", "error", err)
			return
		}
		go func() {
			u, err := newConn(c.(*net.UnixConn))
			if err != nil {
				s.log.Error("a connection failed", "error", err)
				return
			}
			defer u.Close()
			s.answer(u)
		}()
	}
}

// answer serves one connection, which carries one request.
func (s *supervisor) answer(c *conn) {
	m, files, err := c.receive()
	if err != nil {
		return // whoever it was is gone
	}
	defer closeAll(files)
	<-s.ready
	s.mu.Lock()
	phase, failure, relayed, changed := s.phase, s.failure, s.relayed, s.changed
	s.mu.Unlock()
	if failure != "" {
		c.reply(message{}, errors.New(failure))
		return
	}
	switch m.Op {
	case opWatch:
		c.reply(message{Phase: phase, Run: s.record.Run, Relayed: relayed}, nil)
		over := make(chan struct{})
		defer close(over)
		if m.Follow {
			go s.follow(c, changed, over)
		}
		// Held open: its end is the news that this process has ended.
		_, files, _ := c.receive()
		closeAll(files)
	case opNetNS:
		_ = c.send(message{Op: opReply}, s.netNS)
	case opStart, opSignal, opExec:
		// Init answers on this very connection and sees when it is closed.
		asker, err := c.File()
		if err == nil {
			err = s.init.send(m, append([]*os.File{asker}, files...)...)
			asker.Close()
		}
		if err != nil {
			c.reply(message{}, fmt.Errorf("init cannot be reached: %w", err))
		}
	default:
		c.reply(message{}, fmt.Errorf("supervisors of this build do not know the request %q", m.Op))
	}
}

// follow tells a watch of every change of what is relayed.
func (s *supervisor) follow(c *conn, changed, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-changed:
		}
		var now []uint16
		s.mu.Lock()
		now, changed = s.relayed, s.changed
		s.mu.Unlock()
		if err := c.send(message{Op: opRelayed, Relayed: now}); err != nil {
			return
		}
	}
}
