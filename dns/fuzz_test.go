package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// recorder is a client that keeps what it was sent.
type recorder struct {
	miekg.ResponseWriter
	source net.Addr
	reply  *miekg.Msg
}

func (r *recorder) RemoteAddr() net.Addr { return r.source }

func (r *recorder) WriteMsg(reply *miekg.Msg) error {
	r.reply = reply
	return nil
}

// failing is a log whose errors fail the test: a contained panic is one.
type failing struct {
	slog.Handler
	t *testing.T
}

func (f failing) Enabled(context.Context, slog.Level) bool { return true }

func (f failing) Handle(_ context.Context, record slog.Record) error {
	if record.Level >= slog.LevelError {
		record.Attrs(func(a slog.Attr) bool {
			f.t.Error(record.Message, a)
			return true
		})
	}
	return nil
}

// FuzzHandle feeds any bytes to the handler, as a Machine of acme: it never
// panics, answers what it should, within the size that it should, and tells
// nothing of another network.
func FuzzHandle(f *testing.F) {
	for _, row := range table {
		row, query := row.defaults()
		if wire, err := query.Pack(); err == nil && row.asker == acme {
			f.Add(wire, true)
			f.Add(wire, false)
		}
	}
	snapshots := []*state.Snapshot{world(), crowd(100), street(20)}
	f.Fuzz(func(t *testing.T, wire []byte, udp bool) {
		query := new(miekg.Msg)
		if query.Unpack(wire) != nil {
			return
		}
		for _, snapshot := range snapshots {
			sender := &recorder{source: &net.TCPAddr{IP: client(acme).AsSlice(), Port: 4000}}
			size := 65535
			if udp {
				sender.source = &net.UDPAddr{IP: sender.source.(*net.TCPAddr).IP, Port: 4000}
				size = MaxUDP
			}
			log := slog.New(failing{slog.DiscardHandler, t})
			server := NewServer(Config{Snapshot: func() *state.Snapshot { return snapshot }, Log: log, Forward: Forward{ResolvConf: os.DevNull}})
			server.handle(t.Context(), sender, query, nil)
			server.forward.close()
			if (sender.reply == nil) != query.Response {
				t.Fatalf("the reply to\n%v\nis\n%v", query, sender.reply)
			}
			if sender.reply == nil {
				continue
			}
			check(t, query, sender.reply, size)
		}
	})
}

func check(t *testing.T, query, reply *miekg.Msg, size int) {
	t.Helper()
	packed, err := reply.Pack()
	if err != nil || len(packed) > size {
		t.Fatalf("the reply to\n%v\nhas %d bytes, at most %d allowed, error %v", query, len(packed), size, err)
	}
	if !reply.Response || reply.Id != query.Id {
		t.Fatalf("the reply to\n%v\nis\n%v", query, reply)
	}
	for _, rr := range reply.Answer {
		if rr.Header().Name != query.Question[0].Name || rr.Header().Ttl != ttl {
			t.Fatalf("a record that was not asked for: %v", rr)
		}
		if record, ok := rr.(*miekg.AAAA); ok {
			address, _ := netip.AddrFromSlice(record.AAAA)
			if fields, ok := sixpn.Parse(address); address != netip.IPv6Loopback() && (!ok || fields.Network != acme) {
				t.Fatalf("an address of another network: %v", rr)
			}
		}
	}
}
