package flycast_test

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// TestCheckLeavesNothing: a Machine that takes connections and says nothing, or takes
// none, holds nothing of the agent beyond the time of its check.
func TestCheckLeavesNothing(t *testing.T) {
	t.Parallel()
	check := state.Check{Type: "http", Timeout: 50 * time.Millisecond, Interval: time.Second}
	secure := check
	secure.Protocol = "https"

	t.Run("a handshake", func(t *testing.T) {
		t.Parallel()
		mute, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { mute.Close() })
		var open, asked atomic.Int32
		go func() {
			for {
				conn, err := mute.Accept()
				if err != nil {
					return
				}
				open.Add(1)
				asked.Add(1)
				go func() {
					defer conn.Close()
					defer open.Add(-1)
					buffer := make([]byte, 4096)
					for err == nil {
						_, err = conn.Read(buffer)
					}
				}()
			}
		}()
		r := newRecords(checked(secure))
		until(t, newProber(t, r, toServer(mute.Addr().String()), nil), "the check failed and its connection is closed", func() bool {
			return asked.Load() > 1 && open.Load() == 0
		})
	})

	t.Run("a connection", func(t *testing.T) {
		t.Parallel()
		var open, asked atomic.Int32
		hang := flycast.Connect(func(ctx context.Context, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
			open.Add(1)
			asked.Add(1)
			defer open.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		r := newRecords(checked(check))
		until(t, newProber(t, r, hang, nil), "the check failed and connects no more", func() bool {
			return asked.Load() > 1 && open.Load() == 0
		})
	})
}
