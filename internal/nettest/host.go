package nettest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/netns"
)

// Config is how a host is made; every field has a default.
type Config struct {
	Parent     string    // directory for the host's own, which Machines must be able to enter; default /var/lib
	Prefix     string    // of that directory's name; default "sixpn-test-"
	Executable string    // has the agent and the payloads; default this program
	AgentFlags []string  // beside those for names and places
	Log        io.Writer // of the agent; default a file in the host's directory
	LogLevel   string    // of the agent; default debug
	Underlay   *Underlay // the host is on it; default none
}

// Host is one host: a network namespace, directories, and an agent process.
type Host struct {
	Name   string // of the agent
	Dir    string // all the host's directories and files
	Client *api.ClientWithResponses
	Uplink *Link // nil without an underlay

	config    Config
	namespace *netns.Namespace
	payload   string // the executable as Machines see it
	agent     *process
	neighbour bool // shares all but the agent with the host that it was made from
}

// process is one that runs, or ran.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when err is set
	err   error
}

// NewHost makes a host without an agent.
func NewHost(c Config) (host *Host, err error) {
	setDefault(&c.Parent, "/var/lib")
	setDefault(&c.Prefix, "sixpn-test-")
	setDefault(&c.LogLevel, "debug")
	if c.Executable == "" {
		if c.Executable, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	h := &Host{Name: "t" + strings.ToLower(rand.Text()[:8]), config: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.Dir, err = os.MkdirTemp(c.Parent, c.Prefix); err != nil {
		return nil, err
	}
	// Machines are not root: they need to reach the payload.
	if err := os.Chmod(h.Dir, 0o755); err != nil {
		return nil, err
	}
	h.payload = filepath.Join(h.Dir, "sixpn")
	if err := copyFile(c.Executable, h.payload); err != nil {
		return nil, err
	}
	if h.namespace, err = newNamespace(); err != nil {
		return nil, err
	}
	if err := h.namespace.Do(raiseLoopback); err != nil {
		return nil, err
	}
	if c.Underlay != nil {
		if h.Uplink, err = c.Underlay.Join(h.namespace); err != nil {
			return nil, err
		}
	}
	if h.config.Log == nil {
		file, err := os.OpenFile(h.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		h.config.Log = file
	}
	h.Client, err = api.NewSocketClient(h.Socket(), 0)
	return h, err
}

func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// newNamespace makes a network namespace that lives as long as it is open, or has
// a process or a device in it that is reached from elsewhere.
func newNamespace() (namespace *netns.Namespace, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with it
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace (root is needed): %w", err)
			return
		}
		namespace, err = netns.Current()
	}()
	<-done
	return namespace, err
}

// raiseLoopback is what every host does: metrics and resolvers may be there.
func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// Neighbour is the same host with another agent, which does not run yet. It is to
// be closed first.
func (h *Host) Neighbour() (*Host, error) {
	other := *h
	other.Name, other.agent, other.neighbour = "n"+strings.ToLower(rand.Text()[:8]), nil, true
	var err error
	other.Client, err = api.NewSocketClient(other.Socket(), 0)
	return &other, err
}

// Socket is where the agent's API listens.
func (h *Host) Socket() string { return filepath.Join(h.RunDir(), h.Name+".sock") }

// RunDir, StateDir and PinDir are the agent's directories.
func (h *Host) RunDir() string   { return filepath.Join(h.Dir, "run") }
func (h *Host) StateDir() string { return filepath.Join(h.Dir, "state", h.Name) }
func (h *Host) PinDir() string   { return filepath.Join("/sys/fs/bpf/sixpn", h.Name) }

// LogPath is the agent's log, unless Config.Log says otherwise.
func (h *Host) LogPath() string { return filepath.Join(h.Dir, "agent.log") }

// Payload is the command line of a payload inside a Machine.
func (h *Host) Payload(args ...string) []string {
	return append([]string{h.payload, payloadName}, args...)
}

// Do runs fn inside the host's network namespace.
func (h *Host) Do(fn func() error) error { return h.namespace.Do(fn) }

// AgentCommand is an agent's command line for this host: "agent" and its flags.
func (h *Host) places(words ...string) []string {
	return append(words, "--name", h.Name, "--state-dir", h.StateDir(), "--run-dir", h.RunDir(), "--log-level", h.config.LogLevel)
}

// command is a process of the host's program, in the host's network namespace.
func (h *Host) command(executable string, args []string) *exec.Cmd {
	cmd := exec.Command(executable, args...)
	cmd.Stdout, cmd.Stderr = h.config.Log, h.config.Log
	cmd.Env = os.Environ()
	for name, value := range detector {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	// A session of its own: ctrl-C is for the one who made the host.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// StartAgent starts the agent, and returns when its API answers.
func (h *Host) StartAgent(ctx context.Context, flags ...string) error {
	return h.StartAgentOf(ctx, h.config.Executable, flags...)
}

// StartAgentOf is StartAgent with another executable, such as one of another build.
func (h *Host) StartAgentOf(ctx context.Context, executable string, flags ...string) error {
	p, err := h.launch(executable, flags)
	if err != nil {
		return err
	}
	h.agent = p
	err = Eventually(ctx, "the agent's API answers", func(ctx context.Context) error {
		select {
		case <-p.ended:
			return Final(fmt.Errorf("the agent ended: %w; %s", p.err, h.lastWords()))
		default:
		}
		_, err := h.Status(ctx)
		return err
	})
	return err
}

// launch starts an agent process and does not wait for it to be ready.
func (h *Host) launch(executable string, flags []string) (*process, error) {
	// No metrics unless a test's own flags, which come later, want them: several agents
	// of one host would want the same address.
	args := append(append(h.places("agent", "--metrics-listen", "off"), h.config.AgentFlags...), flags...)
	p, err := begin(h.namespace, h.command(executable, args))
	if err != nil {
		return nil, fmt.Errorf("start an agent: %w", err)
	}
	return p, nil
}

// begin starts a process in a namespace.
func begin(namespace *netns.Namespace, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	if err := namespace.Do(cmd.Start); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		if p.err == nil {
			p.err = errors.New("with exit code 0")
		}
		close(p.ended)
	}()
	return p, nil
}

// TryAgent runs an agent that is expected to end by itself, and returns how it did.
func (h *Host) TryAgent(ctx context.Context, flags ...string) error {
	p, err := h.launch(h.config.Executable, flags)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		return errors.New("the agent went on, although it was expected to end")
	}
}

// lastWords is the end of the agent's log.
func (h *Host) lastWords() string { return lastLines(h.LogPath()) }

// lastLines is the end of a log.
func lastLines(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "it has no log of its own"
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return "its log ends with: " + strings.Join(lines[max(len(lines)-5, 0):], " | ")
}

// dataRace is an error with the first data race that a log tells of, which a process of
// the race detector's would otherwise keep to itself.
func dataRace(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil // it has no log of its own
	}
	_, race, found := strings.Cut(string(content), "WARNING: DATA RACE")
	if !found {
		return nil
	}
	lines := strings.Split(race, "\n")
	return fmt.Errorf("a data race in %s:%s", path, strings.Join(lines[:min(len(lines), raceLines)], "\n"))
}

// raceLines has both sides of a data race.
const raceLines = 50

// AgentPID is the process id of the agent that was started last.
func (h *Host) AgentPID() int { return h.agent.cmd.Process.Pid }

// KillAgent ends the agent by SIGKILL, if it runs.
func (h *Host) KillAgent() error { return h.endAgent(context.Background(), syscall.SIGKILL) }

// StopAgent ends the agent by SIGTERM, and by SIGKILL when ctx ends first.
func (h *Host) StopAgent(ctx context.Context) error { return h.endAgent(ctx, syscall.SIGTERM) }

func (h *Host) endAgent(ctx context.Context, signal syscall.Signal) error {
	if h.agent == nil {
		return nil
	}
	p := h.agent
	h.agent = nil
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("the agent did not end on %v: %w", signal, ctx.Err())
	}
}

// resetTimeout is how long a host's end may take.
const resetTimeout = time.Minute

// Reset runs "agent reset" with more flags and returns what it wrote.
func (h *Host) Reset(ctx context.Context, flags ...string) (string, error) {
	var output strings.Builder
	cmd := h.command(h.config.Executable, append(h.places("agent", "reset"), flags...))
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := h.namespace.Do(cmd.Start); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return output.String(), fmt.Errorf("agent reset: %w: %s", err, output.String())
	}
	return output.String(), nil
}

// Close ends the agent and its Machines, and removes everything.
func (h *Host) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	var errs []error
	if h.namespace != nil {
		errs = append(errs, h.KillAgent())
		if _, err := os.Stat(h.StateDir()); err == nil {
			_, err := h.Reset(ctx, "--state")
			errs = append(errs, err)
		}
		if h.neighbour {
			return errors.Join(errs...)
		}
		if h.Uplink != nil {
			errs = append(errs, h.Uplink.Leave())
		}
		errs = append(errs, h.namespace.Close())
	}
	if file, ok := h.config.Log.(*os.File); ok && file.Name() == h.LogPath() {
		errs = append(errs, file.Close())
	}
	errs = append(errs, dataRace(h.LogPath()))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close host %s (its files stay in %s): %w", h.Name, h.Dir, err)
	}
	if h.Dir == "" {
		return nil
	}
	return os.RemoveAll(h.Dir)
}
