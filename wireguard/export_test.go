package wireguard

import (
	"context"
	"errors"

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
