package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// DriverConfig says where a driver keeps its Machines. Only Name, Dir and
// RunDir must be set.
type DriverConfig struct {
	Name       string // the agent's; two agents on one host have different ones
	Dir        string // durable, one directory a Machine, 0700
	RunDir     string // sockets of the supervisors, 0700; its path is short, a socket's has at most 107 bytes
	Executable string // what supervisors and inits run; default this program, even if its file was replaced
	Cgroup     string // directory under which "sixpn-NAME" is made, with a cgroup a Machine in it; default the agent's own
	IDDir      string // claims of id ranges, shared by all agents of the host; default /run/sixpn/ids
	// CreateTimeout bounds how long a supervisor and its init may take to be
	// ready, and EndTimeout how long killed processes may take to be gone.
	CreateTimeout, EndTimeout time.Duration // default 30 s and 10 s
	AnswerTimeout             time.Duration // how long a supervisor or an init may take to answer; default 30 s
	// FollowInterval is how often Logs looks for more when it follows.
	FollowInterval time.Duration // default 100 ms
	// ExecDrain is how long Exec waits for output after the command ended,
	// when a child that it left behind keeps the output open.
	ExecDrain time.Duration // default 500 ms
	Log       *slog.Logger
}

// Spec is a Machine as the driver sees it.
type Spec struct {
	ID         string     `json:"id"`       // 1 to 14 of a–z, 0–9; names the directory, the socket and the device
	Instance   string     `json:"instance"` // of the caller, kept with the run
	Attempt    int        `json:"attempt"`  // of the caller, kept with the run
	Addr       netip.Addr `json:"addr"`     // of the caller, kept with the run
	Hostname   string     `json:"hostname"`
	Exec       []string   `json:"exec"`
	Env        []string   `json:"env"`         // KEY=VALUE; PATH and HOME are added where missing, nothing of the agent's
	WorkDir    string     `json:"workdir"`     // default /
	Hosts      string     `json:"hosts"`       // content of /etc/hosts, "" leaves the host's
	ResolvConf string     `json:"resolv_conf"` // content of /etc/resolv.conf, "" leaves the host's
	Logs       LogLimits  `json:"logs"`
	Relay      RelaySpec  `json:"relay,omitzero"`
}

// Driver makes and finds the Machines of one agent. Its methods may be called
// from several goroutines, those about one Machine from one at a time.
type Driver struct {
	config DriverConfig
	log    *slog.Logger
	// reached is called after each step that changes something outside this
	// process, so that tests can end the process there.
	reached func(step string)
}

var idPattern = regexp.MustCompile(`^[a-z0-9]{1,14}$`)

// adoptAtOnce is how many Machines are adopted at the same time: one whose supervisor
// does not answer holds up no other.
const adoptAtOnce = 64

const maxSocketPath = 107 // sun_path without its final zero

// NewDriver makes the directories and gives back what earlier agents of this
// name had claimed for Machines that are no more. It needs root and cgroup2.
func NewDriver(c DriverConfig) (*Driver, error) {
	if c.Name == "" || c.Dir == "" || c.RunDir == "" {
		return nil, errors.New("a machine driver needs Name, Dir and RunDir")
	}
	setDefault(&c.Executable, "/proc/self/exe")
	setDefault(&c.IDDir, "/run/sixpn/ids")
	setDefault(&c.CreateTimeout, 30*time.Second)
	setDefault(&c.EndTimeout, 10*time.Second)
	setDefault(&c.AnswerTimeout, 30*time.Second)
	setDefault(&c.FollowInterval, 100*time.Millisecond)
	setDefault(&c.ExecDrain, 500*time.Millisecond)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Cgroup == "" {
		own, err := ownCgroup()
		if err != nil {
			return nil, err
		}
		c.Cgroup = own
	}
	// Two agents of a host may be given one directory, and a Machine that migrates
	// between them is one id that both know.
	c.Cgroup = filepath.Join(c.Cgroup, "sixpn-"+c.Name)
	d := &Driver{config: c, log: c.Log, reached: func(string) {}}
	if longest := d.socketPath("12345678901234"); len(longest) > maxSocketPath {
		return nil, fmt.Errorf("run directory %s is too long: socket paths such as %s have %d bytes, at most %d are possible; choose a shorter one", c.RunDir, longest, len(longest), maxSocketPath)
	}
	for _, dir := range []string{c.Dir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	err := releaseIDs(c.IDDir, func(owner string) bool {
		agent, id := splitRangeOwner(owner)
		if agent != c.Name {
			return false
		}
		_, err := os.Stat(d.directory(id))
		return errors.Is(err, os.ErrNotExist)
	})
	return d, err
}

// setDefault gives a setting that was left out its value.
func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

func (d *Driver) directory(id string) string  { return filepath.Join(d.config.Dir, id) }
func (d *Driver) socketPath(id string) string { return filepath.Join(d.config.RunDir, id+".sock") }

// Create makes a Machine's supervisor, its init and its namespaces. The command
// does not run yet: first the network is connected, then Process.Start. Earlier
// runs of the Machine must have ended; their logs are kept.
func (d *Driver) Create(ctx context.Context, spec Spec) (*Process, error) {
	if !idPattern.MatchString(spec.ID) {
		return nil, fmt.Errorf("machine id %q is malformed, expected 1 to 14 of a-z and 0-9", spec.ID)
	}
	if len(spec.Exec) == 0 {
		return nil, fmt.Errorf("machine %s has no command to run", spec.ID)
	}
	r, err := d.prepare(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("create machine %s: %w", spec.ID, err)
	}
	p, err := d.spawn(ctx, r)
	if err != nil {
		// A supervisor whose init failed may be gone before it can answer, but
		// never before it has written why.
		if s, readErr := readExit(d.directory(spec.ID), r); readErr == nil && !s.Lost && s.Message != "" {
			err = errors.New(s.Message)
		} else if said := d.lastWords(spec.ID); said != "" {
			err = fmt.Errorf("its supervisor ended: %s: %w", said, err)
		}
		// The context may be the reason, so the clean-up has one of its own.
		endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.config.EndTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("create machine %s: %w", spec.ID, err), d.sweep(endCtx, r))
	}
	return p, nil
}

// lastWords are what a supervisor wrote last, for an error.
func (d *Driver) lastWords(id string) string {
	b, err := os.ReadFile(filepath.Join(d.directory(id), supervisorLogFile))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// prepare writes the record of a new run and makes what the record names.
func (d *Driver) prepare(ctx context.Context, spec Spec) (record, error) {
	if c, err := dial(d.socketPath(spec.ID)); err == nil {
		c.Close()
		return record{}, errors.New("it has a supervisor already: adopt or stop it first")
	} else if !noSupervisor(err) {
		return record{}, err
	}
	dir := d.directory(spec.ID)
	if err := os.MkdirAll(filepath.Join(dir, logDirectory), 0o700); err != nil {
		return record{}, err
	}
	old, err := readRecord(dir)
	if err == nil {
		if err := d.sweep(ctx, old); err != nil {
			return record{}, err
		}
	}
	first, err := claimIDs(d.config.IDDir, rangeOwner(d.config.Name, spec.ID), old.FirstID)
	if err != nil {
		return record{}, err
	}
	d.reached("ids claimed")
	boot, err := BootID()
	if err != nil {
		return record{}, err
	}
	r := record{
		Spec: spec, Run: rand.Text(), BootID: boot,
		Cgroup: filepath.Join(d.config.Cgroup, spec.ID), FirstID: first, IDs: idsPerMachine,
	}
	if err := writeJSON(filepath.Join(dir, recordFile), r); err != nil {
		return record{}, err
	}
	d.reached("record written")
	err = errors.Join(syncDirectory(d.config.Dir), cgroup(r.Cgroup).create())
	d.reached("cgroup made")
	return r, err
}

// spawn starts the supervisor of r and waits until its init is ready.
func (d *Driver) spawn(ctx context.Context, r record) (*Process, error) {
	path := d.socketPath(r.Spec.ID)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // the supervisor listens on
	defer listener.Close()
	socket, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	d.reached("socket made")
	if err := d.startSupervisor(r, socket); err != nil {
		return nil, err
	}
	d.reached("supervisor started")
	// From here on the Machine outlives this process. The agent's own copies of
	// the listener must go, or a dead supervisor would seem alive.
	socket.Close()
	listener.Close()
	ctx, cancel := context.WithTimeout(ctx, d.config.CreateTimeout)
	defer cancel()
	return d.connect(ctx, r)
}

func (d *Driver) startSupervisor(r record, socket *os.File) error {
	dir := d.directory(r.Spec.ID)
	output, err := os.OpenFile(filepath.Join(dir, supervisorLogFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	leaf, err := os.Open(cgroup(r.Cgroup).leaf(supervisorLeaf))
	if err != nil {
		return err
	}
	defer leaf.Close()
	cmd := &exec.Cmd{
		Path: d.config.Executable, Args: []string{supervisorName, dir},
		Env: []string{}, Dir: "/", Stdout: output, Stderr: output, ExtraFiles: []*os.File{socket},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(leaf.Fd())},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a supervisor: %w", err)
	}
	// Reaps it if it ends before this process; how it ended is in exit.json.
	go func() { _ = cmd.Wait() }()
	return nil
}

// Adopt finds the Machines that earlier agents of this name left: those that
// run, and those that ended, whose Exited is closed already. What never got as
// far as a supervisor is removed.
func (d *Driver) Adopt(ctx context.Context) ([]*Process, error) {
	entries, err := os.ReadDir(d.config.Dir)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []*Process
	var failures []error
	var adopting errgroup.Group
	adopting.SetLimit(adoptAtOnce)
	for _, e := range entries {
		if !e.IsDir() || !idPattern.MatchString(e.Name()) {
			continue
		}
		adopting.Go(func() error {
			p, err := d.adopt(ctx, e.Name())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures = append(failures, fmt.Errorf("adopt machine %s: %w", e.Name(), err))
			}
			if p != nil {
				found = append(found, p)
			}
			return nil
		})
	}
	_ = adopting.Wait() // failures has all of them
	return found, errors.Join(failures...)
}

// adopt returns nil if nothing of the Machine was ever started.
func (d *Driver) adopt(ctx context.Context, id string) (*Process, error) {
	r, err := readRecord(d.directory(id))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(d.attachmentPath(id)); err == nil {
			return nil, nil // something else runs it
		}
		return nil, d.Remove(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	connectCtx, cancel := context.WithTimeout(ctx, d.config.CreateTimeout)
	defer cancel()
	p, err := d.connect(connectCtx, r)
	if err == nil {
		return p, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// Nobody listens, or who does is of no use. Either way this run is over.
	if !noSupervisor(err) {
		d.log.Warn("a supervisor does not answer and is ended", "machine", id, "error", err)
	}
	if err := d.sweep(ctx, r); err != nil {
		return nil, err
	}
	return d.ended(r)
}

// sweep ends whatever is left of a run and removes its cgroup and socket.
func (d *Driver) sweep(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, d.config.EndTimeout)
	defer cancel()
	c := cgroup(r.Cgroup)
	if err := c.killAll(); err != nil {
		return fmt.Errorf("end what is left of machine %s: %w", r.Spec.ID, err)
	}
	if err := c.remove(ctx); err != nil {
		return err
	}
	err := os.Remove(d.socketPath(r.Spec.ID))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Remove ends a Machine if it runs and removes all that is left of it, its
// logs too. Removing what is not there is no error.
func (d *Driver) Remove(ctx context.Context, id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("machine id %q is malformed, expected 1 to 14 of a-z and 0-9", id)
	}
	dir := d.directory(id)
	r, err := readRecord(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := d.sweep(ctx, r); err != nil {
			return fmt.Errorf("remove machine %s: %w", id, err)
		}
	}
	owner := rangeOwner(d.config.Name, id)
	if err := releaseIDs(d.config.IDDir, func(o string) bool { return o == owner }); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), syncDirectory(d.config.Dir))
}

// RemoveAll removes every Machine of this driver, running or not.
func (d *Driver) RemoveAll(ctx context.Context) error {
	entries, err := os.ReadDir(d.config.Dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, e := range entries {
		if e.IsDir() && idPattern.MatchString(e.Name()) {
			failures = append(failures, d.Remove(ctx, e.Name()))
		}
	}
	// The directory of all their cgroups, which is empty now.
	if err := os.Remove(d.config.Cgroup); err != nil && !errors.Is(err, os.ErrNotExist) {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}
