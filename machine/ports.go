package machine

import (
	"context"
	"net"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Ports connects Machines to the router. All methods may be called from several
// goroutines and may be called again with what is so already.
type Ports interface {
	// Add makes a device a port: drop filter on, kernel tables filled, program
	// attached and pinned, then raised, in this order. When it returns the
	// Machine can be reached. With Port.Adopted the device is a port already
	// and carries traffic: nothing of it may go down or be interrupted.
	Add(ctx context.Context, p Port) error
	// Remove takes a Machine's port away: the device down first if it is still
	// there. It is no error if there is none.
	Remove(ctx context.Context, machineID string) error
	// Applied returns when the kernel's tables have this revision of the state.
	Applied(ctx context.Context, revision int64) error
}

// Port is the host side of a Machine's device and whom it belongs to.
type Port struct {
	MachineID string
	Device    string
	Ifindex   uint32
	Network   sixpn.Network
	Host      sixpn.Host
	Number    sixpn.Machine
	MTU       uint16
	GuestMAC  net.HardwareAddr
	RouterMAC net.HardwareAddr
	Peer      bool // a veth whose other side is in another namespace
	Adopted   bool // an earlier agent made it a port, and the Machine has run since
}

// Store is what the Manager needs of the state. It writes only to the records
// of its host's Machines, and of these, but for migrations, only State, ExitCode, Message, Restarts,
// Relayed, Pending and, for AutoDestroy, Desired.
type Store interface {
	// Machines returns all Machines of this host as soon as the state is newer
	// than revision after (0: at once), and the revision they are of.
	Machines(ctx context.Context, after int64) ([]state.Machine, int64, error)
	// UpdateMachine changes one record by compare and swap, and returns it with
	// the revision of the write.
	UpdateMachine(ctx context.Context, id string, change func(*state.Machine) error) (state.Machine, int64, error)
	// DestroyMachine removes one record.
	DestroyMachine(ctx context.Context, id string) (int64, error)
	// HandOver makes one that does not run the host's that it is to migrate to, and
	// HandBack that of the host that it came from; either may leave it here, and say why
	// in its record.
	HandOver(ctx context.Context, id string) (state.Machine, int64, error)
	HandBack(ctx context.Context, id, why string) (state.Machine, int64, error)
}
