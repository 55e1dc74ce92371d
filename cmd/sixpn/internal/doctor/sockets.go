package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// private is where a Machine has directories of its own instead of the host's.
var private = []string{"run", "tmp", "var/tmp", "dev", "proc", "sys"}

// sockets looks for unix sockets of the host that a Machine can connect to: it sees the
// host's file system read-only, which keeps nobody from a socket.
func (c *Config) sockets() []Finding {
	const check = "sockets"
	table, err := c.read("proc/net/unix")
	if err != nil {
		return []Finding{warn(check, "mount -t proc proc /proc", "unix sockets cannot be listed: %v", err)}
	}
	var open []string
	for line := range strings.Lines(table) {
		if path := listening(line); path != "" && c.openToAll(path) {
			open = append(open, path)
		}
	}
	if len(open) == 0 {
		return []Finding{ok(check, "none of the host's is open to Machines")}
	}
	slices.Sort(open)
	return []Finding{warn(check, "take the right to write from others (chmod o-w), or have its server make it below /run, which each Machine has of its own",
		"Machines can connect to %s: everybody may write to it", strings.Join(slices.Compact(open), ", "))}
}

// listening is the path of a line of /proc/net/unix if it is a server's, else "".
func listening(line string) string {
	const accepts, datagram = 1 << 16, 2 // __SO_ACCEPTCON, SOCK_DGRAM
	fields := strings.Fields(line)
	if len(fields) < 8 || !filepath.IsAbs(fields[7]) {
		return "" // the title, or one without a name, or with one of this network namespace's
	}
	flags, err := strconv.ParseUint(fields[3], 16, 64)
	if err != nil || flags&accepts == 0 && fields[4] != "000"+strconv.Itoa(datagram) {
		return ""
	}
	return strings.TrimSuffix(line[strings.Index(line, fields[7]):], "\n") // it may have spaces
}

// openToAll says whether everybody can reach a socket and write to it, where Machines see it.
func (c *Config) openToAll(path string) bool {
	root, err := filepath.EvalSymlinks(c.Root)
	if err != nil {
		return false
	}
	place, err := filepath.EvalSymlinks(c.path(path))
	if err != nil {
		return false // it is gone
	}
	for _, dir := range private {
		if strings.HasPrefix(place, filepath.Join(root, dir)+"/") {
			return false
		}
	}
	const write, search = 0o002, 0o001
	for wanted := os.FileMode(write); len(place) > len(root); place, wanted = filepath.Dir(place), search {
		info, err := os.Stat(place)
		if err != nil || info.Mode()&wanted == 0 {
			return false
		}
	}
	return true
}
