package api

import (
	"context"
	"io"
	"net/netip"
	"syscall"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// Store is what the API reads and writes; *state.Store is one. Its writes answer
// with the revision that has them.
type Store interface {
	Snapshot() *state.Snapshot
	// Wait returns the first snapshot of a revision after this one.
	Wait(ctx context.Context, after int64) (*state.Snapshot, error)

	CreateOrg(ctx context.Context, slug, name string) (state.Org, int64, error)
	DeleteOrg(ctx context.Context, slug string) (int64, error)
	CreateNetwork(ctx context.Context, org, name string) (state.Network, int64, error)
	DeleteNetwork(ctx context.Context, org, name string) (int64, error)

	CreateApp(ctx context.Context, name, org, network string) (state.App, int64, error)
	MoveApp(ctx context.Context, app, org, network string) (state.App, int64, error)
	DestroyApp(ctx context.Context, app string) (int64, error)
	CreateVIP(ctx context.Context, v state.NewVIP) (state.VIP, int64, error)
	ReleaseVIP(ctx context.Context, app string, addr netip.Addr) (int64, error)

	CreateMachine(ctx context.Context, m state.NewMachine) (state.Machine, int64, error)
	// ChangeMachine changes one whose lease nobody else holds.
	ChangeMachine(ctx context.Context, id, nonce string, change func(*state.Machine) error) (state.Machine, int64, error)
	SetDraining(ctx context.Context, host sixpn.Host, draining bool) (int64, error)
	RemoveHost(ctx context.Context, host sixpn.Host, force bool) (int64, error)

	MigrateMachine(ctx context.Context, id, nonce string, to sixpn.Host) (state.Machine, int64, error)
	AcquireLease(ctx context.Context, id string, r state.LeaseRequest) (state.Lease, int64, error)
	ReleaseLease(ctx context.Context, id, nonce string) (int64, error)
}

// KeyRotator gives this host another key of the mesh.
type KeyRotator interface {
	// RotateKey returns once the other hosts can read the new key in the store, at a revision.
	RotateKey(ctx context.Context) (revision int64, err error)
}

// Inviter lets other hosts into the fleet.
type Inviter interface {
	// Invite makes an invitation for a host in a region, "" for any, and returns the
	// revision that has it.
	Invite(ctx context.Context, region string, life time.Duration) (Invitation, int64, error)
}

// Hosts tells how the hosts of the fleet do, as seen from this one.
type Hosts interface {
	// Seen is what is known of each of these hosts, in their order. With ask each one's
	// agent is asked, all at the same time; the error of one that does not answer is in Err.
	Seen(ctx context.Context, hosts []state.Host, ask bool) []HostSeen
	// Probe tries the way to another host. The error is one of this host, or of ctx.
	Probe(ctx context.Context, host state.Host) (HostProbe, error)
}

// HostSeen is what one host knows of another, or of itself.
type HostSeen struct {
	RoundTrip flycast.RoundTrip // Probes 0: nothing was measured
	Handshake time.Time         // the latest of the mesh, zero: none
	Heard     time.Time         // the last sign of life, zero: none
	Store     StoreMemberRole   // "": it has no member of the store, or it is not known
	Report    *HostReport       // nil: it was not asked, or see Err
	Err       error
}

// HostReport is what a host's agent says of itself.
type HostReport struct {
	Version         string
	Mesh            string // "kernel", "userspace" or "native"
	XDP             string // of a native one, a MeshStatusXdp
	Wanted, Applied int64  // revisions of the store
	Trouble         string // "" if there is none
}

// Keeper looks after the store.
type Keeper interface {
	StoreStatus(ctx context.Context) (StoreStatus, error)
	// Export writes all records, as of one revision.
	Export(ctx context.Context, w io.Writer) error
}

// Machines reaches into the Machines of this host.
type Machines interface {
	// Exec runs a command inside a started Machine and returns its exit code.
	Exec(ctx context.Context, id string, c Command) (int, error)
	// Signal sends a signal to the command of a Machine that runs.
	Signal(ctx context.Context, id string, signal syscall.Signal) error
	// Logs writes what is kept of a Machine's output; if it is to follow it goes on
	// until ctx ends, writes what came until then, and returns nil.
	Logs(ctx context.Context, id string, q LogQuery, w io.Writer) error
}

// LogQuery is how Logs writes.
type LogQuery struct {
	Follow  bool
	Stamped bool // a line begins with the time when it was written, RFC 3339, and a space
	// After is the time of a line, in the same form: what is written begins with the first
	// line of that time, or with the oldest if none is kept. Empty: with the oldest.
	After string
}

// Command is what Exec runs.
type Command struct {
	Exec           []string
	Stdin          io.Reader // nil: nothing
	Stdout, Stderr io.Writer
}

// DataPlane tells what the kernel does.
type DataPlane interface {
	Status(ctx context.Context) (Status, error)
	// Applied returns when the data plane has this revision.
	Applied(ctx context.Context, revision int64) error
	// Live is what this host sees of a Machine of its own.
	Live(ctx context.Context, m state.Machine) (Live, error)
}

// Live is what only a Machine's host knows of it.
type Live struct {
	Port   *PortStatus // nil: it has none
	Drops  []DropStatus
	Checks []state.CheckStatus // empty while they are not asked
	Limits []LimitStatus
}

// Resolver answers questions as the resolver of a network does.
type Resolver interface {
	// Resolve asks as a Machine of the network would: kind is the name of a type,
	// such as AAAA. A name or a kind that cannot be asked for is an error made by
	// Invalid.
	Resolve(ctx context.Context, network sixpn.Network, name, kind string) (DigResult, error)
}

// Pinger sends echo requests from inside a network.
type Pinger interface {
	// Ping reports each reply or timeout when it comes, the summary at last. It ends
	// early with an error of report or of ctx. A target that there is not is an error
	// made by Invalid, before anything is reported.
	Ping(ctx context.Context, network sixpn.Network, e Echo, report func(PingLine) error) error
}

// Echo is what Ping sends.
type Echo struct {
	Target   string // an address or a name; empty: the resolver
	Count    int
	Interval time.Duration // between two requests
	Timeout  time.Duration // for the reply to each
	Size     int           // bytes of data
}
