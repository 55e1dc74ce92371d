package bench

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
)

// isolatedNetworks is how many tenants the nftables baseline tells apart.
const isolatedNetworks = 1000

// isolate puts the isolation that one would write in nftables on a routed world:
// forwarding is dropped unless the /48 of source and destination are a pair of a
// set, one look-up for all networks.
func (w *world) isolate(networks int) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(w.host.handle)))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	drop := nftables.ChainPolicyDrop
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: "isolation"})
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	keyType, err := nftables.ConcatSetType(nftables.TypeIP6Addr, nftables.TypeIP6Addr)
	if err != nil {
		return err
	}
	set := &nftables.Set{Table: table, Name: "pairs", KeyType: keyType, Concatenation: true}
	var elements []nftables.SetElement
	for i := range networks {
		prefix := sixpn.NetworkPrefix(network + sixpn.Network(i)).Addr().AsSlice()
		elements = append(elements, nftables.SetElement{Key: append(append([]byte{}, prefix...), prefix...)})
	}
	if err := conn.AddSet(set, elements); err != nil {
		return fmt.Errorf("nftables set: %w", err)
	}
	mask, zero := net.CIDRMask(48, 128), make([]byte, 16)
	rule := []expr.Any{}
	for i, offset := range []uint32{8, 24} { // source and destination of the IPv6 header
		register := uint32(unix.NFT_REG_1 + i)
		rule = append(rule,
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 16},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 16, Mask: mask, Xor: zero})
	}
	rule = append(rule,
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set.Name, SetID: set.ID},
		&expr.Verdict{Kind: expr.VerdictAccept})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables rules: %w", err)
	}
	return nil
}

// neighbour fixes the link-layer address of a neighbour.
func (n *namespace) neighbour(link netlink.Link, addr netip.Addr, mac net.HardwareAddr) error {
	return n.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac,
	})
}
