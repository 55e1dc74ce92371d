package wireguard_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/wireguard"
)

const (
	port = 51821
	// The first argument of this program as an agent that opens a mesh.
	agentArgument = "mesh-agent"
	echoReply     = 129 // ICMPv6
)

func TestMain(m *testing.M) {
	wireguard.Main()
	if len(os.Args) > 1 && os.Args[1] == agentArgument {
		if err := agentMain(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == logArgument {
		logMain(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// agentMain opens the mesh of a configuration, sets peers, says so, and runs, or
// rotates the key if its peers are null. It kills itself at a step, if one is named.
func agentMain(args []string) error {
	var c wireguard.Config
	var peers []wireguard.Peer
	if err := errors.Join(json.Unmarshal([]byte(args[0]), &c), json.Unmarshal([]byte(args[1]), &peers)); err != nil {
		return err
	}
	m, err := wireguard.OpenReaching(context.Background(), c, func(step string) {
		if step == args[2] {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	})
	if err != nil {
		return err
	}
	if peers == nil {
		_, err := m.RotateKey(context.Background())
		return err
	}
	if err := m.SetPeers(context.Background(), peers); err != nil {
		return err
	}
	fmt.Println("open")
	return m.Run(context.Background())
}

// host is one of a fleet: a network namespace with an underlay address.
type host struct {
	t         *testing.T
	number    sixpn.Host
	namespace *netns.Namespace
	underlay  netip.Addr
	config    wireguard.Config
	mesh      *wireguard.Mesh
}

// newNamespace makes one that lives as long as the test.
func newNamespace(t *testing.T) *netns.Namespace {
	t.Helper()
	var n *netns.Namespace
	err := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		e := unix.Unshare(unix.CLONE_NEWNET)
		if e == nil {
			n, e = netns.Current()
		}
		err <- e
	}()
	if err := <-err; err != nil {
		t.Fatal("these tests need root:", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// newHost makes a host without an underlay and without a mesh.
func newHost(t *testing.T, number sixpn.Host) *host {
	t.Helper()
	h := &host{t: t, number: number, namespace: newNamespace(t)}
	h.config = wireguard.Config{
		Name: strings.ToLower(rand.Text()[:10]), Dir: t.TempDir(), Port: port,
		Engine: "userspace", RestoreInterval: 10 * time.Millisecond,
	}
	h.in(func() error { return raise("lo") })
	t.Cleanup(func() {
		h.in(func() error {
			_, err := wireguard.Reset(context.Background(), h.config)
			return err
		})
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(h.config.Dir, wireguard.LogFile))
			t.Logf("engine of host %d: %s", number, b)
		}
	})
	return h
}

func raise(device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// in runs a function in the host's namespace.
func (h *host) in(f func() error) {
	h.t.Helper()
	if err := h.namespace.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) open() *wireguard.Mesh {
	h.t.Helper()
	h.in(func() (err error) {
		h.mesh, err = wireguard.Open(await.Context(h.t), h.config)
		return err
	})
	mesh := h.mesh
	h.t.Cleanup(func() { mesh.Close() })
	return h.mesh
}

// connect gives the mesh device an address, and raises it, as the loader does.
func (h *host) connect() {
	h.t.Helper()
	h.in(func() error {
		link, err := netlink.LinkByName(wireguard.DeviceName(h.config.Name))
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: h.inside().AsSlice(), Mask: net.CIDRMask(16, 128)}, Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(link, address); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

// inside is the host's own address on the mesh, rotated as all are there.
func (h *host) inside() netip.Addr {
	return sixpn.Fields{Network: sixpn.Network(h.number), Machine: 1, Low: 1}.Addr()
}

func (h *host) peer() wireguard.Peer {
	return wireguard.Peer{Host: h.number, PublicKey: h.mesh.PublicKey(), Endpoint: netip.AddrPortFrom(h.underlay, port)}
}

func (h *host) setPeers(peers ...wireguard.Peer) {
	h.t.Helper()
	if err := h.mesh.SetPeers(await.Context(h.t), peers); err != nil {
		h.t.Fatal(err)
	}
}

// status is what the mesh knows of another host.
func (h *host) status(number sixpn.Host) wireguard.PeerStatus {
	h.t.Helper()
	peers, err := h.mesh.Peers()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range peers {
		if p.Host == number {
			return p
		}
	}
	h.t.Fatalf("host %d has no peer %d, only %v", h.number, number, peers)
	return wireguard.PeerStatus{}
}

func (h *host) engine() (pid int) {
	h.t.Helper()
	h.in(func() (err error) {
		pid, err = wireguard.EngineProcess(h.config.Name)
		return err
	})
	return pid
}

func (h *host) ifindex() (index int) {
	h.t.Helper()
	h.in(func() error {
		link, err := netlink.LinkByName(wireguard.DeviceName(h.config.Name))
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// agent starts a process that opens the host's mesh. step is where it is to kill
// itself, "" for nowhere; then agent returns when its mesh is open.
func (h *host) agent(step string, peers ...wireguard.Peer) *exec.Cmd {
	h.t.Helper()
	return h.process(step, append([]wireguard.Peer{}, peers...))
}

// rotate starts a process that rotates the host's key and kills itself at a step.
func (h *host) rotate(step string) *exec.Cmd {
	h.t.Helper()
	cmd := h.process(step, nil)
	_ = cmd.Wait()
	return cmd
}

func (h *host) process(step string, peers []wireguard.Peer) *exec.Cmd {
	h.t.Helper()
	config, err := json.Marshal(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	list, err := json.Marshal(peers)
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", agentArgument, string(config), string(list), step)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.in(cmd.Start)
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := make([]byte, 5)
	n, err := out.Read(said)
	if got := string(said[:n]); step == "" && got != "open\n" || step != "" && n > 0 {
		h.t.Fatalf("the agent said %q (%v)", got, err)
	}
	return cmd
}

// ping says whether one echo request is answered in time.
func (h *host) ping(to netip.Addr, in time.Duration) bool {
	h.t.Helper()
	var c *icmp.PacketConn
	h.in(func() (err error) {
		c, err = icmp.ListenPacket("ip6:ipv6-icmp", "::")
		return err
	})
	defer c.Close()
	token := rand.Text()
	request, err := (&icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: 1, Seq: 1, Data: []byte(token)}}).Marshal(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(in)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := c.WriteTo(request, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return false
	}
	b := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return false
		}
		if b[0] == echoReply && strings.Contains(string(b[:n]), token) {
			return true
		}
	}
}

func (h *host) reach(other *host) {
	h.t.Helper()
	await.True(h.t, fmt.Sprintf("host %d reaches host %d", h.number, other.number), func() bool { return h.ping(other.inside(), 100*time.Millisecond) })
}

// openError is the error of an Open that is not to succeed.
func (h *host) openError() (err error) {
	h.t.Helper()
	h.in(func() error {
		var m *wireguard.Mesh
		if m, err = wireguard.Open(await.Context(h.t), h.config); err == nil {
			return m.Close()
		}
		return nil
	})
	return err
}

// cgroup is a directory for one that does not exist yet.
func cgroup(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " - cgroup2 ") {
			return filepath.Join(strings.Fields(line)[4], "sixpn-test-"+strings.ToLower(rand.Text()[:8]))
		}
	}
	t.Fatal("no cgroup2 file system is mounted")
	return ""
}
