package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/wireguard"
)

// measureEngine starts an engine of the mesh in a namespace of its own, and gives it a
// peer for every other host. None of them is there.
func (g *grown) measureEngine(ctx context.Context, dir string) (err error) {
	n, err := newNamespace()
	if err != nil {
		return err
	}
	defer n.close()
	name := "bench" + strings.ToLower(rand.Text()[:8])
	config := wireguard.Config{Name: name, Dir: dir, Port: plainPort, MTU: mtu, Engine: engineUserspace}
	defer func() {
		err = errors.Join(err, n.do(func() error { _, err := wireguard.Reset(context.WithoutCancel(ctx), config); return err }))
	}()
	var mesh *wireguard.Mesh
	if err := n.do(func() (err error) { mesh, err = wireguard.Open(ctx, config); return err }); err != nil {
		return err
	}
	defer mesh.Close()
	if g.noPeers, err = engineBytes(name); err != nil {
		return err
	}
	var peers []wireguard.Peer
	for i := 1; i < g.hosts; i++ {
		key, err := newMeshKey()
		if err != nil {
			return err
		}
		endpoint := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), plainPort)
		peers = append(peers, wireguard.Peer{Host: tunnelHost + sixpn.Host(i), PublicKey: key, Endpoint: endpoint})
	}
	if err := mesh.SetPeers(ctx, peers); err != nil {
		return err
	}
	g.engine, err = engineBytes(name)
	return err
}

// engineBytes is the memory that the engine of a mesh has for itself.
func engineBytes(name string) (float64, error) {
	pid, err := enginePID(name)
	if err != nil {
		return 0, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kilobytes float64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return kilobytes * 1024, nil
}

// enginePID is the process that answers on the socket of a mesh.
func enginePID(name string) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "/var/run/wireguard/" + wireguard.DeviceName(name) + ".sock", Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failure error
	if err := raw.Control(func(fd uintptr) { peer, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || failure != nil {
		return 0, errors.Join(err, failure)
	}
	return int(peer.Pid), nil
}

// engineClock is the processor time of the engines of meshes, and of this process, which
// is both ends of what they carry.
func engineClock(names ...string) (func() (time.Duration, error), error) {
	pids := []int{os.Getpid()}
	for _, name := range names {
		pid, err := enginePID(name)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return func() (time.Duration, error) { return processTime(pids) }, nil
}
