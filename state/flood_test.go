package state_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/strangers"
	"github.com/sixpn/sixpn/state"
)

// crowd is strangers at the ports of a member of the store, who never show who they are.
type crowd struct {
	opened, open atomic.Int64
	group        sync.WaitGroup
}

func (c *crowd) come(t *testing.T, to netip.AddrPort, hello bool) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.3")}, Timeout: deadline}
	conn, err := dialer.Dial("tcp4", to.String())
	if err != nil {
		return err
	}
	t.Cleanup(func() { conn.Close() })
	c.opened.Add(1)
	c.open.Add(1)
	if hello {
		// The half of a handshake that costs the gate most: it waits for a certificate.
		go func() { _ = tls.Client(&deaf{conn}, &tls.Config{InsecureSkipVerify: true}).Handshake() }() // ends with the connection
	}
	c.group.Go(func() {
		_, _ = io.Copy(io.Discard, conn) // until the gate closes it
		c.open.Add(-1)
	})
	return nil
}

// deaf never hears an answer.
type deaf struct{ net.Conn }

func (*deaf) Read([]byte) (int, error) { select {} }

// At both ports: while an address opens all the connections that it can, hosts come and go
// as ever, and no more than a few of these connections stay.
func TestFloodAtTheGates(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l := a.listen(t)
	l.Strangers = strangers.Limits{All: 16, Each: 4, Life: time.Hour}
	e := startListening(t, directory(t), l)
	t.Cleanup(func() { must(t, e.Close()) })
	host := a.admitted(t, e, "host")
	for offset := uint16(1); offset <= 2; offset++ {
		for _, hello := range []bool{false, true} {
			c := &crowd{}
			to := netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+offset)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				var err error
				for ctx.Err() == nil && err == nil {
					err = c.come(t, to, hello)
				}
				ended <- err
			}()
			eventually(t, "the flood begins", func() bool { return c.opened.Load() > 40 })
			_, err := connect(t, l, offset, host)
			stop()
			must(t, err)
			must(t, <-ended)
			eventually(t, "few stay", func() bool { return c.open.Load() <= 4 })
		}
	}
	remote(t, state.RemoteConfig{Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: host})
}

func TestStrangersDoNotStayAtTheGates(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	l := a.listen(t)
	l.Strangers.Life = 200 * time.Millisecond
	e := startListening(t, directory(t), l)
	t.Cleanup(func() { must(t, e.Close()) })
	c := &crowd{}
	for offset := uint16(1); offset <= 2; offset++ {
		to := netip.AddrPortFrom(l.Underlay.Addr(), l.Underlay.Port()+offset)
		must(t, c.come(t, to, false))
		must(t, c.come(t, to, true))
	}
	eventually(t, "strangers are sent away", func() bool { return c.open.Load() == 0 })
}
