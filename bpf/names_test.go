package bpf_test

import (
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

func TestNames(t *testing.T) {
	for want, named := range map[string]interface{ String() string }{
		"machine": bpf.RouterPortKindPORT_MACHINE, "uplink": bpf.RouterPortKindPORT_UPLINK, "kind_99": bpf.RouterPortKind(99),
		"refuse": bpf.RouterServiceActionSERVICE_REFUSE, "wake": bpf.RouterServiceActionSERVICE_WAKE, "action_99": bpf.RouterServiceAction(99),
	} {
		if got := named.String(); got != want {
			t.Errorf("%#v is %q, expected %q", named, got, want)
		}
	}
}
