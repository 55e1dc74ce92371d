package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
)

// EmbeddedConfig says where and how an embedded store runs.
type EmbeddedConfig struct {
	// Dir holds everything of it and is made if need be, mode 0700.
	Dir string
	Log *slog.Logger
	// History is how long past revisions are kept for a watch that resumes; longer
	// absences read everything again. 0: ten minutes.
	History time.Duration
	// Quota is the size that the database may reach, in bytes; then writes are refused.
	// 0: 2 GiB.
	Quota int64
	// Listen has other hosts reach the store too. nil: only this one does. A store keeps
	// what it holds, whatever this was before.
	Listen *Listen
	// Members is the other members' addresses between hosts: a store that is new joins
	// them, where AddLearner has said that it comes. One that has data does not look.
	Members []netip.AddrPort
	// Async does not wait until the store serves, for which other members may be needed.
	Async bool

	token string // of a store that is founded; one that has data does not look
}

const (
	defaultHistory = 10 * time.Minute
	defaultQuota   = 2 << 30

	// The parts of Dir. The first start happens in another directory, see bootstrap.
	dataName      = "etcd"
	bootstrapName = "etcd.new"
	socketName    = "etcd.sock"
	peersName     = "peer.sock" // not longer than socketName
	lockName      = "etcd.lock"

	// socketPathLimit is what a unix socket's address holds, without the final NUL.
	socketPathLimit = 107
	memberName      = "sixpn"

	// An app moves in one transaction, with three writes a Machine. Etcd takes 128
	// writes and 1.5 MiB by itself; these are for 4096 Machines of the usual size.
	maxWrites       = 1 << 14
	maxRequestBytes = 10 << 20
	maxSendBytes    = maxRequestBytes + 512<<10
)

// HasData says whether there is a store in a directory, whole or not.
func HasData(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, dataName))
	return err == nil
}

// RemoveData removes the store in a directory, which nobody may run: what a member
// holds is worth nothing once the others have removed it.
func RemoveData(dir string) error {
	return errors.Join(os.RemoveAll(filepath.Join(dir, dataName)), os.RemoveAll(filepath.Join(dir, bootstrapName)))
}

// Embedded is a running etcd server of this process and a client of it.
type Embedded struct {
	server *server
	client *clientv3.Client
	lock   *os.File
	end    func() // of what goes on beside the server
}

// server is etcd, the switch that silences it while it is closed, and its gates.
type server struct {
	*embed.Etcd
	quiet  *atomic.Bool
	gates  *gates
	mortal mortal
}

func (s *server) close() {
	s.quiet.Store(true)
	s.gates.closeClients()
	defer s.gates.close()
	select {
	case <-s.Server.ReadyNotify():
	default:
		// Else etcd waits for its listeners, and those for a majority.
		s.Server.HardStop()
	}
	s.Close()
}

// StartEmbedded starts the store in a directory and returns when it serves. It
// listens on a unix socket in that directory, and nowhere else unless told so, so any
// number of stores run beside each other. A directory that another process uses is refused
// with kind Conflict. Whatever instant an earlier process was killed at, the next
// start finds all that was acknowledged.
func StartEmbedded(ctx context.Context, c EmbeddedConfig) (*Embedded, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	c.Dir = dir
	if n := len(filepath.Join(dir, socketName)); n > socketPathLimit {
		return nil, refuse(Invalid, "state directory", "the path %s is too long for a unix socket in it: shorten it by %d characters", dir, n-socketPathLimit)
	}
	if c.Listen != nil {
		if err := c.Listen.check(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	e, err := startLocked(ctx, c)
	if err != nil {
		lock.Close()
		return nil, err
	}
	e.lock = lock
	return e, nil
}

// lockDirectory refuses a second process. The kernel drops the lock with the process.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, refuse(Conflict, "state directory", "another process runs the store in %s: stop it, or use another directory", dir)
		}
		return nil, fmt.Errorf("lock the store in %s: %w", dir, err)
	}
	return f, nil
}

func startLocked(ctx context.Context, c EmbeddedConfig) (*Embedded, error) {
	_, err := os.Stat(filepath.Join(c.Dir, dataName))
	if errors.Is(err, fs.ErrNotExist) {
		err = bootstrap(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("store in %s: %w", c.Dir, err)
	}
	if err := checkDatabase(filepath.Join(c.Dir, dataName, "member", "snap", "db")); err != nil {
		return nil, damaged(c.Dir, err)
	}
	server, err := startServer(ctx, c, dataName)
	if err != nil {
		return nil, explainListen(c.Listen, err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{socketURL(c.Dir).String()},
		Logger:    newZapLogger(c.Log, server.quiet),
		// The request and what gRPC adds.
		MaxCallSendMsgSize: maxSendBytes,
	})
	if err != nil {
		server.close()
		return nil, fmt.Errorf("client of the store: %w", err)
	}
	e := &Embedded{server: server, client: client, end: func() {}}
	if c.Listen != nil {
		e.end = beside(context.Background(), (&silence{server: server, own: c.Listen.peer(), log: c.Log}).watch)
	}
	if c.Listen != nil && !c.Async && len(c.Members) == 0 {
		if err := movePeer(ctx, client, uint64(server.Server.MemberID()), c.Listen); err != nil {
			return nil, errors.Join(err, e.stop())
		}
	}
	return e, nil
}

// checkDatabase opens the database once by itself: etcd does it in a goroutine whose
// panic nobody can catch.
func checkDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // etcd says what it makes of that
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	return db.Close()
}

func damaged(dir string, found any) error {
	return refuse(Unavailable, "state directory", "the store in %s does not start (%v): its files are damaged; restore the directory from a backup", dir, found)
}

// bootstrap makes the data of a new store. etcd cannot open what a process left
// that was killed while it made its files, so they are made elsewhere and get their
// name when they are whole.
func bootstrap(ctx context.Context, c EmbeddedConfig) error {
	unfinished := filepath.Join(c.Dir, bootstrapName)
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	c.Async = false
	if len(c.Members) == 0 {
		c.Listen = nil // nobody may reach it before it is whole
		// Etcd makes the ids of a store and of its first member out of this, and keeps
		// them: members of two stores, though they were founded alike, refuse each other.
		c.token = rand.Text()
	}
	server, err := startServer(ctx, c, bootstrapName)
	if err != nil {
		return err
	}
	server.close()
	if err := os.Rename(unfinished, filepath.Join(c.Dir, dataName)); err != nil {
		return err
	}
	return syncDirectory(c.Dir)
}

// syncDirectory makes a rename durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func socketURL(dir string) *url.URL {
	return &url.URL{Scheme: "unix", Path: filepath.Join(dir, socketName)}
}

func startServer(ctx context.Context, c EmbeddedConfig, name string) (s *server, err error) {
	defer func() {
		if p := recover(); p != nil { // see newZapLogger
			s, err = nil, damaged(c.Dir, p)
		}
	}()
	s = &server{quiet: new(atomic.Bool)}
	if s.gates, err = openGates(c); err != nil {
		return nil, err
	}
	config := serverConfig(c, name, s.quiet)
	config.GRPCAdditionalServerOptions = s.mortal.options()
	s.Etcd, err = embed.StartEtcd(config)
	if err != nil {
		s.gates.close()
		return nil, fmt.Errorf("start the store in %s: %w", c.Dir, err)
	}
	s.mortal.server.Store(s.Server)
	if err := s.gates.serve(ctx, s.Server, &s.mortal); err != nil {
		s.close()
		return nil, fmt.Errorf("start the store in %s: %w", c.Dir, err)
	}
	if c.Async {
		return s, nil
	}
	select {
	case <-s.Server.ReadyNotify():
		return s, nil
	case err = <-s.Err():
	case <-s.Server.StopNotify():
		err = errors.New("it stopped at once")
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.close()
	return nil, fmt.Errorf("start the store in %s: %w", c.Dir, err)
}

func serverConfig(c EmbeddedConfig, name string, quiet *atomic.Bool) *embed.Config {
	config := embed.NewConfig()
	config.Name = memberName
	config.Dir = filepath.Join(c.Dir, name)
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZapLogger(c.Log, quiet))
	socket := *socketURL(c.Dir)
	config.ListenClientUrls = []url.URL{socket}
	config.AdvertiseClientUrls = []url.URL{socket}
	// The only member has no peers, so it listens for none; the name of where it would
	// is part of the member's identity and must stay.
	config.ListenPeerUrls = nil
	config.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:0"}}
	config.InitialCluster = config.InitialClusterFromName(memberName)
	config.InitialClusterToken = orDefault(c.token, config.InitialClusterToken)
	config.EnableGRPCGateway = false // it is the etcd protocol as REST, on the same socket
	config.AutoCompactionMode = embed.CompactorModePeriodic
	config.AutoCompactionRetention = orDefault(c.History, defaultHistory).String()
	// A watch of what seldom changes must hear how far it is before that is forgotten.
	config.WatchProgressNotifyInterval = orDefault(c.History, defaultHistory) / 3
	config.MaxTxnOps, config.MaxRequestBytes = maxWrites, maxRequestBytes
	config.QuotaBackendBytes = orDefault(c.Quota, defaultQuota)
	// Disks of small hosts stall for this long without anything being wrong.
	config.WarningApplyDuration = time.Second
	config.WarningUnaryRequestDuration = 2 * time.Second
	if c.Listen != nil {
		c.Listen.listen(config, filepath.Join(c.Dir, peersName))
		c.Listen.join(config, c.Members)
	}
	return config
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// beside starts a task, which ends with the context or by what is returned.
func beside(ctx context.Context, task func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		task(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// ClusterID is etcd's id of the store that this is a member of.
func (e *Embedded) ClusterID() uint64 { return uint64(e.server.Server.Cluster().ID()) }

// Client is connected to the server; Close closes it.
func (e *Embedded) Client() *clientv3.Client { return e.client }

// Wait returns when the context ends, or with an error when the server has failed.
func (e *Embedded) Wait(ctx context.Context) error {
	err := errors.New("the server stopped")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case failure, open := <-e.server.Err():
		if open {
			err = failure
		}
	case <-e.server.Server.StopNotify():
	}
	return unavailable("embedded store", err)
}

// Close stops the server. What was acknowledged is on disk already.
func (e *Embedded) Close() error { return errors.Join(e.stop(), e.lock.Close()) }

func (e *Embedded) stop() error {
	e.end()
	// The client first: the server waits for open watches, for seconds.
	err := e.client.Close()
	e.server.close()
	return err
}
