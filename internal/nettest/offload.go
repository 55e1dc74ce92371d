package nettest

import "github.com/sixpn/sixpn/netns"

// OffloadUplink has the uplink of the thread's namespace leave segments and checksums
// to the wire, as most network cards do. What other tests look at then is not as it
// would be on a wire; what is measured then does not pay for what a card would do.
func OffloadUplink() error { return netns.SetFeature(Uplink, netns.TxChecksum, true) }
