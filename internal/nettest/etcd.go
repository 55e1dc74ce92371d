package nettest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/sixpn/sixpn/netns"
)

// EtcdConfig is how an etcd cluster is made; every field but Underlay has a default.
type EtcdConfig struct {
	Underlay   *Underlay
	Members    int      // default 3
	Plain      bool     // without TLS; else clients need a certificate of the cluster's authority
	Executable string   // default "etcd", as Debian's etcd-server has it
	Flags      []string // more of each member's
}

// Etcd is a cluster of real etcd servers, each in a namespace of its own on an
// underlay.
type Etcd struct {
	Members []*Member
	// Files of who may be a client, "" in a plain cluster.
	AuthorityPath, CertificatePath, KeyPath string

	config      EtcdConfig
	dir         string
	scheme      string
	certificate tls.Certificate
	authority   *Authority
}

// Member is one server of a cluster.
type Member struct {
	Name   string
	Uplink *Link

	cluster   *Etcd
	namespace *netns.Namespace
	process   *process
}

// The ports that etcd's own documentation has.
const (
	etcdClientPort = 2379
	etcdPeerPort   = 2380
)

// StartEtcd makes a cluster and returns when each member serves.
func StartEtcd(ctx context.Context, c EtcdConfig) (e *Etcd, err error) {
	setDefault(&c.Members, 3)
	setDefault(&c.Executable, "etcd")
	e = &Etcd{config: c, scheme: "http"}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.dir, err = os.MkdirTemp("", "sixpn-etcd-"); err != nil {
		return nil, err
	}
	for i := range c.Members {
		m := &Member{Name: fmt.Sprintf("etcd-%d", i+1), cluster: e}
		if m.namespace, err = newNamespace(); err != nil {
			return nil, err
		}
		e.Members = append(e.Members, m)
		if m.Uplink, err = c.Underlay.Join(m.namespace); err != nil {
			return nil, err
		}
		// A member also asks itself by 127.0.0.1.
		if err := m.namespace.Do(raiseLoopback); err != nil {
			return nil, err
		}
	}
	if !c.Plain {
		if err := e.certify(); err != nil {
			return nil, err
		}
	}
	return e, e.Start(ctx)
}

// certify writes the certificates of all members and of clients.
func (e *Etcd) certify() (err error) {
	e.scheme = "https"
	if e.authority, err = NewAuthority("etcd"); err != nil {
		return err
	}
	e.AuthorityPath, e.CertificatePath, e.KeyPath = e.path("ca.pem"), e.path("client.pem"), e.path("client-key.pem")
	if e.certificate, err = e.authority.Issue("client"); err != nil {
		return err
	}
	err = errors.Join(writePEM(e.AuthorityPath, "CERTIFICATE", e.authority.certificate.Raw), writePair(e.certificate, e.CertificatePath, e.KeyPath))
	for _, m := range e.Members {
		pair, issueErr := e.authority.Issue(m.Name, m.Uplink.V4, m.Uplink.V6)
		err = errors.Join(err, issueErr, writePair(pair, e.path(m.Name+".pem"), e.path(m.Name+"-key.pem")))
	}
	return err
}

func (e *Etcd) path(name string) string { return filepath.Join(e.dir, name) }

// Endpoints are the URLs for clients on the underlay.
func (e *Etcd) Endpoints() (urls []string) {
	for _, m := range e.Members {
		urls = append(urls, m.url(etcdClientPort))
	}
	return urls
}

func (m *Member) url(port int) string {
	return fmt.Sprintf("%s://%s:%d", m.cluster.scheme, m.Uplink.V4, port)
}

// Start starts the members that do not run, and returns when all serve.
func (e *Etcd) Start(ctx context.Context) error {
	for _, m := range e.Members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range e.Members {
		if err := m.serves(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the member, and returns when it serves.
func (m *Member) Start(ctx context.Context) error {
	if err := m.launch(); err != nil {
		return err
	}
	return m.serves(ctx)
}

func (m *Member) launch() error {
	if m.process != nil {
		return nil
	}
	e := m.cluster
	var all []string
	for _, other := range e.Members {
		all = append(all, other.Name+"="+other.url(etcdPeerPort))
	}
	args := []string{
		"--name", m.Name, "--data-dir", e.path(m.Name + ".data"), "--logger", "zap",
		"--listen-client-urls", m.url(etcdClientPort), "--advertise-client-urls", m.url(etcdClientPort),
		"--listen-peer-urls", m.url(etcdPeerPort), "--initial-advertise-peer-urls", m.url(etcdPeerPort),
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-token", filepath.Base(e.dir),
	}
	if !e.config.Plain {
		for _, prefix := range []string{"", "peer-"} {
			args = append(args, "--"+prefix+"client-cert-auth", "--"+prefix+"trusted-ca-file", e.AuthorityPath,
				"--"+prefix+"cert-file", e.path(m.Name+".pem"), "--"+prefix+"key-file", e.path(m.Name+"-key.pem"))
		}
	}
	log, err := os.OpenFile(m.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(e.config.Executable, append(args, e.config.Flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	m.process, err = begin(m.namespace, cmd)
	return err
}

// LogPath is what the member says of itself.
func (m *Member) LogPath() string { return m.cluster.path(m.Name + ".log") }

// serves waits until the member answers from a cluster with a leader.
func (m *Member) serves(ctx context.Context) error {
	p := m.process
	return Eventually(ctx, m.Name+" serves", func(ctx context.Context) error {
		select {
		case <-p.ended:
			return Final(fmt.Errorf("it ended: %w; %s", p.err, lastLines(m.LogPath())))
		default:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url(etcdClientPort)+"/health", nil)
		if err != nil {
			return err
		}
		client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: m.dial, TLSClientConfig: m.cluster.TLS(),
		}}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(answer.Body)
			return fmt.Errorf("its health is %s: %s", answer.Status, body)
		}
		return nil
	})
}

// TLS is what a client needs; nil in a plain cluster.
func (e *Etcd) TLS() *tls.Config {
	if e.config.Plain {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{e.certificate}, RootCAs: e.authority.Pool()}
}

// dial connects from the member's own namespace.
func (m *Member) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = m.namespace.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Client is one of the whole cluster that asks each member where that is. It is to be
// closed.
func (e *Etcd) Client() (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: e.Endpoints(), TLS: e.TLS(), Logger: zap.NewNop()}
	config.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		for _, m := range e.Members {
			if host, _, _ := net.SplitHostPort(address); host == m.Uplink.V4.String() {
				return m.dial(ctx, "tcp", address)
			}
		}
		return nil, fmt.Errorf("no member has the address %s", address)
	})}
	return clientv3.New(config)
}

// Kill ends the member by SIGKILL, if it runs.
func (m *Member) Kill() error {
	if m.process == nil {
		return nil
	}
	p := m.process
	m.process = nil
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}

// Kill ends all members at once by SIGKILL.
func (e *Etcd) Kill() error {
	var errs []error
	for _, m := range e.Members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

// Wipe ends all members and removes all that they know: what starts next is a new and
// empty cluster under the same addresses.
func (e *Etcd) Wipe() error {
	errs := []error{e.Kill()}
	for _, m := range e.Members {
		errs = append(errs, os.RemoveAll(e.path(m.Name+".data")))
	}
	return errors.Join(errs...)
}

// Close ends the cluster and removes everything of it.
func (e *Etcd) Close() error {
	errs := []error{e.Kill()}
	for _, m := range e.Members {
		if m.Uplink != nil {
			errs = append(errs, m.Uplink.Leave())
		}
		errs = append(errs, m.namespace.Close())
	}
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	return errors.Join(errs...)
}
