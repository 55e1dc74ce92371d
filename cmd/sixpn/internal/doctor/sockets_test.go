package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Which sockets of the host Machines can connect to.
func TestSockets(t *testing.T) {
	const (
		title = "Num       RefCount Protocol Flags    Type St Inode Path\n"
		line  = "0000000000000000: 00000002 00000000 %s %s 01 4711 %s\n"
	)
	for name, row := range map[string]struct {
		path        string
		flags, kind string // of the line
		socket, dir os.FileMode
		open        bool
	}{
		"everybody's":         {path: "/srv/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755, open: true},
		"of datagrams":        {path: "/srv/db/a socket", flags: "00000000", kind: "0002", socket: 0o777, dir: 0o755, open: true},
		"a client's":          {path: "/srv/db/a socket", flags: "00000000", kind: "0001", socket: 0o777, dir: 0o755},
		"its owner's":         {path: "/srv/db/a socket", flags: "00010000", kind: "0001", socket: 0o775, dir: 0o755},
		"behind a door":       {path: "/srv/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o750},
		"below /run":          {path: "/run/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755},
		"by a link into /run": {path: "/var/run/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755},
		"of a longer name":    {path: "/running/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755, open: true},
		"abstract":            {path: "@/srv/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755},
		"below /var/tmp":      {path: "/var/tmp/db/a socket", flags: "00010000", kind: "0001", socket: 0o777, dir: 0o755},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Root: t.TempDir()}
			for _, dir := range []string{"run", "var"} {
				must(t, os.MkdirAll(c.path(dir), 0o755))
			}
			must(t, os.Symlink("../run", c.path("var/run")))
			file := c.path(strings.TrimPrefix(row.path, "@"))
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			must(t, os.WriteFile(file, nil, 0o600))
			must(t, os.Chmod(file, row.socket))
			must(t, os.Chmod(filepath.Dir(file), row.dir))
			must(t, os.MkdirAll(c.path("proc/net"), 0o755))
			must(t, os.WriteFile(c.path("proc/net/unix"), []byte(title+fmt.Sprintf(line, row.flags, row.kind, row.path)), 0o600))
			findings := c.sockets()
			if len(findings) != 1 || (findings[0].Status == Warn) != row.open || row.open && (findings[0].Remedy == "" || !strings.Contains(findings[0].Message, row.path)) {
				t.Errorf("%+v, expected a warning of it: %t", findings, row.open)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
