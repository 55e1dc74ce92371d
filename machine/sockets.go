package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The states of sockets that take what comes from anywhere, as the kernel writes them:
// TCP_LISTEN, and the TCP_CLOSE of UDP sockets that are not connected.
var openStates = map[string]string{"tcp": "0A", "udp": "07"}

// openSockets lists the local addresses of all sockets of the calling thread's
// network namespace that take what comes from anywhere, IPv4 and IPv6. One of IPv6
// that is bound to a mapped IPv4 address takes IPv4 only, and is listed with that.
func openSockets(protocol string) (all []netip.AddrPort, err error) {
	for _, table := range []string{protocol + "6", protocol} {
		// That of the thread: /proc/net is that of the process.
		f, err := os.Open("/proc/thread-self/net/" + table)
		if errors.Is(err, os.ErrNotExist) && table != protocol {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		found, err := readSockets(f, protocol)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read the sockets of %s: %w", table, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// readSockets reads a socket table of /proc: "sl local_address rem_address st …", the
// inode in the tenth column. The kernel goes on by position from one read to the next,
// so a socket is listed twice when another was opened in between.
func readSockets(table io.Reader, protocol string) (found []netip.AddrPort, err error) {
	seen := map[string]bool{}
	lines := bufio.NewScanner(table)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			return nil, fmt.Errorf("line %q has %d fields, expected at least 10", lines.Text(), len(fields))
		}
		inode := fields[9]
		if seen[inode] {
			continue
		}
		seen[inode] = true
		if fields[3] != openStates[protocol] {
			if protocol == "tcp" {
				break // the listening come first, and the others can be many
			}
			continue
		}
		local, err := parseSocketAddress(fields[1])
		if err != nil {
			return nil, err
		}
		found = append(found, local)
	}
	return found, lines.Err()
}

// parseSocketAddress reads ADDRESS:PORT in hexadecimal: the address in words of 32
// bits, each in the byte order of the host, the port as a number.
func parseSocketAddress(s string) (netip.AddrPort, error) {
	malformed := fmt.Errorf("the local address %q of a socket is malformed", s)
	address, hexPort, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(hexPort, 16, 16)
	if err != nil || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}, malformed
	}
	raw := make([]byte, 0, 16)
	for ; len(address) > 0; address = address[8:] {
		word, err := strconv.ParseUint(address[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, malformed
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// serves says whether a socket bound to local takes what is sent to a Machine at
// addr: bound to all of IPv6, or to an address of the Machine's /112.
func serves(local, addr netip.Addr) bool {
	return local == netip.IPv6Unspecified() || netip.PrefixFrom(addr, 112).Contains(local)
}

// null opens /dev/null, as a standard stream for a process that has none.
func null() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR|unix.O_CLOEXEC, 0) }
