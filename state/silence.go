package state

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What members of a store say to each other goes through TCP connections that etcd
// dials and accepts itself, without a limit for a silent other end: after an outage of
// the network each direction would wait for the kernel's next retransmission, which by
// then is as far away as the outage was long, and none of the members would be elected.
// The kernel is told a limit for each of them; etcd dials anew then, several times a
// second.
const (
	// sightInterval is how soon a new connection is seen.
	sightInterval = 500 * time.Millisecond
	// An idle connection is asked for a sign of life after the first, and every second.
	peerIdleSeconds, peerProbeSeconds = 2, 1
)

// silence gives up connections between members.
type silence struct {
	server *server
	own    netip.AddrPort // where this member hears the others
	log    *slog.Logger
	seen   map[uint64]bool // sockets, by inode, that need no second look
}

// watch limits every connection between members until the context ends.
func (s *silence) watch(ctx context.Context) {
	ticker := time.NewTicker(sightInterval)
	defer ticker.Stop()
	failing := false
	for {
		err := s.look()
		if err != nil && !failing {
			s.log.Warn("connections between members of the store have no limit: after an outage of the network the store may take long to return", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look limits the connections that are new.
func (s *silence) look() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	members := s.members()
	next := make(map[uint64]bool, len(s.seen))
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, _ := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64) // the kernel's own
		if s.seen[inode] {
			next[inode] = true
			continue
		}
		fd, _ := strconv.Atoi(entry.Name()) // likewise
		if done, err := s.limit(fd, members); err != nil {
			return err
		} else if done {
			next[inode] = true
		}
	}
	s.seen = next
	return nil
}

// members is where the others hear this one.
func (s *silence) members() map[netip.AddrPort]bool {
	at := map[netip.AddrPort]bool{}
	for _, m := range s.server.Server.Cluster().Members() {
		for _, u := range m.PeerURLs {
			if parsed, err := url.Parse(u); err == nil {
				if a, err := netip.ParseAddrPort(parsed.Host); err == nil && a != s.own {
					at[a] = true
				}
			}
		}
	}
	return at
}

// limit gives one socket its limit, if it is of a connection between members. It returns
// false when that may still come: a socket that is being dialed has no address yet, and
// who it leads to may be a member that is heard of a moment later.
func (s *silence) limit(fd int, members map[netip.AddrPort]bool) (done bool, err error) {
	// A descriptor of its own: the number may be another file's at any moment.
	held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false, nil // closed meanwhile
	}
	defer unix.Close(held)
	if protocol, err := unix.GetsockoptInt(held, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
		return true, nil
	}
	local, _ := unix.Getsockname(held)
	remote, err := unix.Getpeername(held)
	if err != nil {
		return false, nil
	}
	if addrPort(local) != s.own && !members[addrPort(remote)] {
		return false, nil
	}
	for _, option := range []struct{ name, value int }{
		{unix.TCP_USER_TIMEOUT, int(silenceLimit / time.Millisecond)},
		{unix.TCP_KEEPIDLE, peerIdleSeconds},
		{unix.TCP_KEEPINTVL, peerProbeSeconds},
	} {
		if err := unix.SetsockoptInt(held, unix.IPPROTO_TCP, option.name, option.value); err != nil {
			return false, os.NewSyscallError("setsockopt", err)
		}
	}
	return true, os.NewSyscallError("setsockopt", unix.SetsockoptInt(held, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
