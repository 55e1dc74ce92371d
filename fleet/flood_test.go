package fleet_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/internal/strangers"
	"github.com/sixpn/sixpn/state"
)

// handshake is that of a stranger.
func handshake(conn net.Conn, protocols ...string) (*tls.Conn, error) {
	shown := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	return shown, shown.Handshake()
}

// says is a stranger that stops in the middle of a request.
func says(part string) func(net.Conn) error {
	return func(conn net.Conn) error {
		shown, err := handshake(conn)
		if err == nil {
			_, err = io.WriteString(shown, part)
		}
		return err
	}
}

// idlers are the ways to keep a connection for nothing.
var idlers = map[string]func(net.Conn) error{
	"silent":           func(net.Conn) error { return nil },
	"half a hello":     func(conn net.Conn) error { _, err := conn.Write([]byte{22, 3, 1, 2, 0, 1}); return err },
	"no request":       says(""),
	"half a header":    says("POST /v1/join HTTP/1.1\r\nHost: "),
	"no body":          says("POST /v1/join HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{"),
	"HTTP/2, no frame": func(conn net.Conn) error { _, err := handshake(conn, "h2"); return err },
	"HTTP/2, no request": func(conn net.Conn) error {
		shown, err := handshake(conn, "h2")
		if err == nil {
			_, err = io.WriteString(shown, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		}
		return err
	},
}

// crowd is connections of strangers, from wherever they are opened.
type crowd struct {
	h            *home
	opened, open atomic.Int64
	group        sync.WaitGroup
}

func (h *home) crowd() *crowd {
	c := &crowd{h: h}
	h.t.Cleanup(c.group.Wait)
	return c
}

// come opens one, which counts until the service closes it.
func (c *crowd) come(from string, do func(net.Conn) error) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: deadline}
	conn, err := dialer.Dial("tcp4", c.h.service.String())
	if err != nil {
		return err
	}
	c.h.t.Cleanup(func() { conn.Close() })
	c.opened.Add(1)
	c.open.Add(1)
	_ = do(conn) // the service may have closed it by now
	c.group.Go(func() {
		_, _ = io.Copy(io.Discard, conn) // until it does
		c.open.Add(-1)
	})
	return nil
}

// await waits for a condition.
func (h *home) await(what string, is func() bool) {
	h.t.Helper()
	for ctx := within(h.t); !is(); {
		select {
		case <-ctx.Done():
			h.t.Fatal(what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// asIfNothingWere is that a host joins and another one is answered.
func (h *home) asIfNothingWere() {
	h.t.Helper()
	must(h.t, h.newcomer().Join(within(h.t), h.invite("", time.Hour), anywhere))
	if code, err := h.get(clientOf(h.fleet)); err != nil || code != http.StatusOK {
		h.t.Errorf("a host is answered %d, %v", code, err)
	}
}

// quiet is a service whose hosts are answered, with limits for strangers.
func quiet(t *testing.T, l strangers.Limits) *home {
	t.Helper()
	h := newHome(t, func(c *fleet.ServiceConfig) {
		c.Strangers, c.Handler = l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	})
	h.register(h.fleet, "host-1")
	return h
}

// While one address opens all the connections that it can, a host joins and others are
// answered, and no more of them stay than may.
func TestFloodFromOneAddress(t *testing.T) {
	t.Parallel()
	h := quiet(t, strangers.Limits{All: 16, Each: 4, Life: time.Hour})
	for name, idle := range idlers {
		t.Run(name, func(t *testing.T) {
			c := h.crowd()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() {
				var err error
				for ctx.Err() == nil && err == nil {
					err = c.come("127.0.0.3", idle)
				}
				ended <- err
			}()
			h.await("the flood does not begin", func() bool { return c.opened.Load() > 40 })
			h.asIfNothingWere()
			stop()
			must(t, <-ended)
			h.await("too many stay", func() bool { return c.open.Load() <= 4 })
			h.asIfNothingWere()
		})
	}
}

func TestFloodFromManyAddresses(t *testing.T) {
	t.Parallel()
	h := quiet(t, strangers.Limits{All: 8, Each: 2, Life: time.Hour})
	c := h.crowd()
	for i := range 30 {
		must(t, c.come(fmt.Sprintf("127.0.1.%d", i+1), idlers["no request"]))
	}
	h.asIfNothingWere()
	h.await("too many stay", func() bool { return c.open.Load() <= 8 })
}

// Without any flood a stranger has its time, and no longer.
func TestStrangersDoNotStay(t *testing.T) {
	t.Parallel()
	h := quiet(t, strangers.Limits{Life: 300 * time.Millisecond})
	c := h.crowd()
	for _, idle := range idlers {
		must(t, c.come("127.0.0.3", idle))
	}
	h.await("strangers stay", func() bool { return c.open.Load() == 0 })
}

// What a stranger is told ends its connection.
func TestStrangersAskOnce(t *testing.T) {
	t.Parallel()
	h := quiet(t, strangers.Limits{Life: time.Hour})
	ended := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &heard{Conn: conn, ended: ended}, err
		},
	}}
	if code, err := h.get(client); err != nil || code != http.StatusUnauthorized {
		t.Errorf("by HTTP/2 a stranger is answered %d, %v", code, err)
	}
	conn, err := net.Dial("tcp4", h.service.String())
	must(t, err)
	defer conn.Close()
	shown, err := handshake(conn)
	must(t, err)
	_, err = io.WriteString(shown, "GET /v1/whatever HTTP/1.1\r\nHost: h\r\n\r\n")
	must(t, err)
	plain := make(chan struct{})
	go func() {
		defer close(plain)
		_, _ = io.Copy(io.Discard, shown) // which never closes it
	}()
	for protocol, ended := range map[string]chan struct{}{"HTTP/1.1": plain, "HTTP/2": ended} {
		select {
		case <-ended:
		case <-within(t).Done():
			t.Errorf("%s: the connection stays after its answer", protocol)
		}
	}
}

// heard tells when the other end has closed a connection, or had this one do it.
type heard struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

func (c *heard) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

// slowStore has the use of an invitation wait.
type slowStore struct {
	*state.Store
	begun, goOn chan struct{}
}

func (s *slowStore) UseInvitation(ctx context.Context, u state.UseOfInvitation) (state.Invitation, error) {
	close(s.begun)
	<-s.goOn
	return s.Store.UseInvitation(ctx, u)
}

// Who has shown the secret of an invitation gives way to nobody.
func TestWhoMayJoinIsServed(t *testing.T) {
	t.Parallel()
	slow := &slowStore{begun: make(chan struct{}), goOn: make(chan struct{})}
	h := newHome(t, func(c *fleet.ServiceConfig) {
		slow.Store = c.Store.(*state.Store)
		c.Store, c.Strangers = slow, strangers.Limits{All: 2, Each: 2, Life: time.Hour}
	})
	joined := make(chan error, 1)
	f, token := h.newcomer(), h.invite("", time.Hour)
	go func() { joined <- f.Join(within(t), token, anywhere) }()
	<-slow.begun
	c := h.crowd()
	for range 10 {
		must(t, c.come("127.0.0.1", idlers["no request"]))
	}
	close(slow.goOn)
	must(t, <-joined)
}

// Whoever has no valid secret is told the same, whatever it says of itself: not whether
// there is a host of a name, a region or an invitation.
func TestGuessesLearnNothing(t *testing.T) {
	t.Parallel()
	h := newHome(t, nil)
	h.register(h.fleet, "taken")
	good, used := h.invite("ams", time.Hour), h.invite("", time.Hour)
	expired := h.invite("", time.Nanosecond)
	must(t, h.newcomer().Join(within(t), used, anywhere))
	guess := func(token string) string {
		return forge(t, token, func(says map[string]any) { says["s"] = []byte("guess") })
	}
	unknown := forge(t, good, func(says map[string]any) { says["i"] = "AAAAAAAA" })
	var same string
	for _, row := range []struct{ name, token, host, region string }{
		{"a new host", guess(good), "host-3", "ams"},
		{"a name that is taken", guess(good), "taken", "ams"},
		{"no name of a host", guess(good), "Host 3", "ams"},
		{"another region", guess(good), "host-3", "fra"},
		{"no region", guess(good), "host-3", "moon"},
		{"an invitation that was used", guess(used), "host-3", "ams"},
		{"one that has expired", guess(expired), "host-3", "ams"},
		{"one that there is not", unknown, "host-3", "ams"},
		{"one that there is not, and a name that is taken", unknown, "taken", "ams"},
	} {
		f, err := fleet.Open(fleet.Config{Dir: t.TempDir(), Name: row.host, Underlay: h.service, Log: logTo(t)})
		must(t, err)
		err = f.Join(within(t), row.token, fleet.Newcomer{Region: row.region})
		if err == nil {
			t.Fatalf("%s: joined by a guess", row.name)
		}
		said := strings.ReplaceAll(err.Error(), fmt.Sprintf("%q", idOf(t, row.token)), "ID")
		if same == "" {
			same = said
		}
		if said != same || !strings.Contains(said, "forged or damaged") {
			t.Errorf("%s: %q, expected %q", row.name, said, same)
		}
	}
}

// idOf is the invitation that a token is of.
func idOf(t *testing.T, token string) (id string) {
	t.Helper()
	forge(t, token, func(says map[string]any) { id = says["i"].(string) })
	return id
}
