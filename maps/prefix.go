package maps

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/sixpn/sixpn/bpf"
)

// rangeKeyBits is the part of a service_range_key before the port: network, VIP and
// protocol.
const rangeKeyBits = 72

// prefix is a block of ports that a longest-prefix match can hold: first is a
// multiple of its size, 2^(16-bits).
type prefix struct {
	first uint16
	bits  uint32 // 0 to 16
}

func (p prefix) last() uint16 { return p.first | uint16(uint32(0xffff)>>p.bits) }

// prefixes cuts first..last into the fewest blocks: at most 30.
func prefixes(first, last uint16) []prefix {
	var blocks []prefix
	for next, end := uint32(first), uint32(last)+1; next < end; {
		// As large as its start allows, and as what is left does.
		size := uint32(1) << min(bits.TrailingZeros32(next|1<<16), bits.Len32(end-next)-1)
		blocks = append(blocks, prefix{uint16(next), 16 - uint32(bits.Len32(size)-1)})
		next += size
	}
	return blocks
}

// bigEndian gives the value whose bytes in memory are v's, most significant first.
func bigEndian(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return *(*uint32)(unsafe.Pointer(&b))
}

func rangeKey(vip VIP, protocol uint8, block prefix) bpf.RouterServiceRangeKey {
	return bpf.RouterServiceRangeKey{
		PrefixLength: rangeKeyBits + block.bits,
		Network:      bigEndian(uint32(vip.Network)),
		Vip:          bigEndian(vip.Number),
		Protocol:     protocol,
		Port:         [2]uint8{uint8(block.first >> 8), uint8(block.first)},
	}
}
