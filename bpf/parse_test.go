package bpf_test

import (
	"slices"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

// tables are all packet tables; TestEveryReasonHasARow reads them.
func tables() []table {
	return slices.Concat(parseTables())
}

func TestPackets(t *testing.T) {
	for _, c := range tables() {
		t.Run(c.name, c.run)
	}
}

func parseTables() []table {
	return []table{{
		name: "tcp",
		shot: func(w *world) shot {
			return from(w.client, w.server.addr(), protocolTCP, tcp(40000, 80, flagSYN, 1, 0, 1, 2, 3))
		},
		to: toServer,
		rows: []row{
			{name: "not ipv6 by type", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: func(_ *world, s *shot) { s.frame[offsetType+1] = 0xde }},
			{name: "not ipv6 by version", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: func(_ *world, s *shot) { s.frame[offsetIP] = 0x40 }},
			{name: "payload shorter", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) { s.frame[offsetPayload+1]-- }},
		},
	}}
}
