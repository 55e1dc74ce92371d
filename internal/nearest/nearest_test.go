package nearest_test

import (
	"testing"

	"github.com/sixpn/sixpn/internal/nearest"
)

func TestOf(t *testing.T) {
	known := []string{"mtu", "vm", "latitude", "longitude"}
	for _, c := range []struct{ name, want string }{
		{"mtu", "mtu"},
		{"mut", "mtu"},
		{"Mtu", "mtu"},
		{"mt", "mtu"},
		{"altitude", "latitude"},
		{"longtude", "longitude"},
		{"xy", ""},
		{"abc", ""},
		{"nameservers", ""},
		{"", ""},
	} {
		if got := nearest.Of(c.name, known); got != c.want {
			t.Errorf("%q: got %q, want %q", c.name, got, c.want)
		}
	}
}
