package netns_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/netns"
)

func TestWhole(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		answers []error // the last one for ever
		want    error
		calls   int
	}{
		"at once":                      {[]error{nil}, nil, 1},
		"interrupted, then whole":      {[]error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, nil, 3},
		"another error is not retried": {[]error{broken}, broken, 1},
		"interrupted for ever":         {[]error{netlink.ErrDumpInterrupted}, netlink.ErrDumpInterrupted, 100},
	} {
		calls := 0
		got, err := netns.Whole(func() ([]int, error) {
			answer := c.answers[min(calls, len(c.answers)-1)]
			calls++
			return []int{calls}, answer
		})
		if !errors.Is(err, c.want) || calls != c.calls || len(got) != 1 || got[0] != calls {
			t.Errorf("%s: %v, %v after %d calls, want %v after %d", name, got, err, calls, c.want, c.calls)
		}
	}
}
