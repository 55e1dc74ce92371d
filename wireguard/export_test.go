package wireguard

import (
	"context"
	"errors"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/netns"
)

// For the tests outside of the package.
var (
	SocketPath = socketPath
	PortFree   = portFree
)

const (
	KeyFile     = keyFile
	NextKeyFile = nextKeyFile
	PeersFile   = peersFile
	LogFile     = logFile
)

// OpenReaching is Open, which calls reached after each step.
func OpenReaching(ctx context.Context, c Config, reached func(step string)) (*Mesh, error) {
	return open(ctx, c, func(m *Mesh) { m.reached = reached })
}

// EngineProcess is the process id of an agent's engine in the namespace of the
// calling thread, 0 if there is none.
func EngineProcess(agent string) (int, error) {
	home, err := netns.Current()
	if err != nil {
		return 0, err
	}
	defer home.Close()
	p, err := findEngine(DeviceName(agent), home)
	if errors.Is(err, errNoEngine) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer p.close()
	return p.pid, nil
}

// Choose is choose without the kernel. have is the type of the device that is
// there, "" for none.
func Choose(engine, have string, makeKernel func() error) (string, error) {
	var link netlink.Link
	if have != "" {
		link = &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "mesh"}, LinkType: have}
	}
	chosen, err := choose(kind(engine), link, makeKernel)
	return string(chosen), err
}

// LogTo writes lines as an engine does that logs to standard error.
func LogTo(path string, size int64, lines ...string) {
	l := &engineLog{path: path, size: size}
	for _, line := range lines {
		l.printf("%s", line)
	}
}

// LinesASecond is what an engine may log in a second.
const LinesASecond = linesASecond
