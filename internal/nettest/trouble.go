package nettest

import (
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CutUDPTo is CutTo for UDP alone, as by a firewall: TCP still passes.
func (l *Link) CutUDPTo(other *Link) error {
	return l.underlay.change(true, path{from: l, to: other, udp: true})
}

// onlyUDP matches packets of UDP.
func onlyUDP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
	}
}

// SetMTU has the underlay's end of a link lose what is larger, silently: the host's own
// end stays as it is.
func (l *Link) SetMTU(mtu int) error {
	return l.underlay.namespace.Do(func() error {
		device, err := netlink.LinkByName(l.port)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(device, mtu)
	})
}
