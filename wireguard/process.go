package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
)

// pollTimeout bounds one wait for an engine's end, so that a cancelled context is
// noticed.
const pollTimeout = 50 * time.Millisecond

// lastWords is how much of a log is in the error about an engine that ended.
const lastWords = 500

// socketPath is where wgctrl, and every other WireGuard tool, looks for an engine.
func socketPath(device string) string { return "/var/run/wireguard/" + device + ".sock" }

// errNoEngine says that nobody listens on an engine's socket.
var errNoEngine = errors.New("no engine listens")

// process is an engine that runs. It is known by its socket, never by a number that
// may be another's a moment later.
type process struct {
	conn  *net.UnixConn // open as long as the engine lives
	pid   int           // for people; 0 if it is outside of this process's sight
	pidfd int
}

// findEngine connects to the engine of a device. The error is errNoEngine if there
// is none, and says so if it is in another namespace than home.
func findEngine(device string, home *netns.Namespace) (*process, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socketPath(device), Net: "unix"})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNoEngine
	}
	if err != nil {
		return nil, err
	}
	p := &process{conn: c, pidfd: -1}
	if err := p.identify(home); err != nil {
		p.close()
		return nil, fmt.Errorf("the engine of %s: %w", device, err)
	}
	return p, nil
}

// identify finds out who listens.
func (p *process) identify(home *netns.Namespace) error {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	var credentials *unix.Ucred
	var failure error
	if err := raw.Control(func(fd uintptr) {
		if credentials, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failure == nil {
			p.pidfd, failure = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		}
	}); err != nil {
		return err
	}
	if failure != nil {
		return fmt.Errorf("find out who listens on its socket: %w", failure)
	}
	p.pid = int(credentials.Pid)
	unix.CloseOnExec(p.pidfd)
	var theirs, ours unix.Stat_t
	if p.pid == 0 || unix.Stat("/proc/"+strconv.Itoa(p.pid)+"/ns/net", &theirs) != nil {
		return nil // it is out of sight, or just ended
	}
	if err := unix.Fstat(int(home.File().Fd()), &ours); err != nil {
		return err
	}
	if theirs.Ino != ours.Ino {
		return fmt.Errorf("process %d listens in another network namespace: agents of one machine need different names", p.pid)
	}
	return nil
}

func (p *process) close() {
	p.conn.Close()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
}

// wait returns when the engine has ended and let go of all it had, or with the
// context's error.
func (p *process) wait(ctx context.Context) error {
	for {
		poll := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(pollTimeout.Milliseconds()))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end of the engine, process %d: %w", p.pid, ctx.Err())
		}
	}
}

// kill ends the engine, a stopped one too, and waits for that.
func (p *process) kill(ctx context.Context) error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end the engine, process %d: %w", p.pid, err)
	}
	return p.wait(ctx)
}

// lost returns nil when the engine's socket is closed, by its end as a rule.
func (p *process) lost(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := io.Copy(io.Discard, p.conn) // an engine speaks only when asked
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

// nothing is a request of WireGuard's interface for user space that changes nothing,
// and done is the answer.
const (
	nothing = "set=1\n\n"
	done    = "errno=0\n\n"
)

// atWork has the engine of a device do nothing, and returns once it has.
func atWork(ctx context.Context, device string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(device))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	answer := make([]byte, len(done))
	if _, err := io.WriteString(c, nothing); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if string(answer) != done {
		return fmt.Errorf("it answered %q, expected %q", answer, done)
	}
	return nil
}

// startProcess starts an engine in the namespace home, with a session and, if
// cgroup is not "", a cgroup of its own, and waits until it is at work.
func startProcess(ctx context.Context, home *netns.Namespace, cgroup string, spec engineSpec) error {
	argument, err := specArgument(spec)
	if err != nil {
		return err
	}
	output, err := openLog(spec.Log)
	if err != nil {
		return err
	}
	defer output.Close()
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	defer says.Close()
	cmd := &exec.Cmd{
		// The file that this process runs is found even if its path now leads elsewhere.
		Path: "/proc/self/exe", Args: []string{engineName, argument}, Env: []string{}, Dir: "/",
		Stdout: output, Stderr: output, ExtraFiles: []*os.File{says},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if cgroup != "" {
		if err := os.MkdirAll(cgroup, 0o755); err != nil {
			return fmt.Errorf("make a cgroup for the engine: %w", err)
		}
		leaf, err := os.Open(cgroup)
		if err != nil {
			return err
		}
		defer leaf.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(leaf.Fd())
	}
	if err := home.Do(cmd.Start); err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	says.Close()
	ended := make(chan struct{})
	go func() { // reaps it if it ends before this process
		_ = cmd.Wait()
		close(ended)
	}()
	stop := context.AfterFunc(ctx, func() { _ = said.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := io.ReadAll(said)
	switch {
	case err != nil:
		_ = cmd.Process.Kill()
		return fmt.Errorf("the engine did not begin its work in time: %w", errors.Join(ctx.Err(), err))
	case string(answer) == ready:
		return nil
	case len(answer) > 0:
		err = errors.New(string(answer))
	default:
		err = fmt.Errorf("the engine ended before its work began; its log, %s, ends with: %s", spec.Log, tail(spec.Log))
	}
	// It is about to end by itself; who tries again must not meet it.
	select {
	case <-ended:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
	}
	return err
}

// tail is the end of a file, for people.
func tail(path string) string {
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err.Error()
	}
	if len(b) > lastWords {
		b = b[len(b)-lastWords:]
	}
	return strings.TrimSpace(string(b))
}
