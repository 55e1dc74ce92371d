package dns

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// evil is a connection to an upstream that answers every question with the same
// bytes; with their first two replaced by the question's id if it is to be
// believed, and all of the question put in.
type evil struct {
	net.Conn
	stream  bool
	content []byte
	asked   []byte
	pending []byte
}

func (e *evil) Write(wire []byte) (int, error) {
	e.asked = append([]byte(nil), wire...)
	if e.stream {
		e.asked = e.asked[min(2, len(wire)):]
	}
	reply := append([]byte(nil), e.content...)
	if question := e.question(); len(reply) >= 12 {
		// The header's flags and counts and what follows the question stay as they are.
		copy(reply, e.asked[:2])
		reply[2] |= 0x80
		binary.BigEndian.PutUint16(reply[4:], 1)
		reply = append(append(reply[:12:12], question...), reply[12:]...)
	}
	if e.stream {
		reply = append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
	}
	e.pending = reply
	return len(wire), nil
}

// question is the question as it was put.
func (e *evil) question() []byte {
	at := 12
	for at < len(e.asked) && e.asked[at] != 0 {
		at += 1 + int(e.asked[at])
	}
	return e.asked[12:min(at+5, len(e.asked))]
}

func (e *evil) Read(buffer []byte) (int, error) {
	if e.pending == nil {
		return 0, io.ErrUnexpectedEOF
	}
	size := copy(buffer, e.pending)
	if e.pending = e.pending[size:]; !e.stream || len(e.pending) == 0 {
		e.pending = nil
	}
	return size, nil
}

func (e *evil) Close() error                     { return nil }
func (e *evil) SetDeadline(time.Time) error      { return nil }
func (e *evil) SetReadDeadline(time.Time) error  { return nil }
func (e *evil) SetWriteDeadline(time.Time) error { return nil }

// FuzzForward has an upstream say anything: what a client gets is a message of its
// own question, which can be sent, with nothing in it that is between resolvers.
func FuzzForward(f *testing.F) {
	for _, records := range [][]string{
		{"@ 60 IN AAAA 2001:db8::1"}, {"@ 60 IN CNAME a.example.", "a.example. 30 IN AAAA 2001:db8::1"},
		{"@ 4294967295 IN TXT \"x\" \"y\""}, {"@ 60 CH TXT \"x\""}, {"@ 1 IN SVCB 1 . alpn=h2 ipv6hint=2001:db8::1"}, {"@ 1 IN NSEC a.example. A AAAA"},
	} {
		message := new(miekg.Msg).SetQuestion("example.com.", miekg.TypeAAAA)
		message.Response, message.Question = true, nil
		for _, text := range records {
			message.Answer = append(message.Answer, record(text))
		}
		message.SetEdns0(4096, true).IsEdns0().Option = []miekg.EDNS0{
			&miekg.EDNS0_EDE{InfoCode: 3, ExtraText: "old"}, &miekg.EDNS0_SUBNET{Code: miekg.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0)},
		}
		for _, rcode := range []int{0, miekg.RcodeNameError, miekg.RcodeServerFailure, miekg.RcodeBadVers} {
			message.Rcode = rcode
			if wire, err := message.Pack(); err == nil {
				f.Add(wire, uint16(miekg.TypeAAAA), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, content []byte, rrtype uint16, edns bool) {
		config := Forward{Upstreams: []string{first}, Timeout: time.Second, ProbeFirst: time.Hour}
		config.Dial = func(_ context.Context, network, _ string) (net.Conn, error) {
			return &evil{stream: network == "tcp", content: content}, nil
		}
		forwarder := newForwarder(config, nil, slog.New(failing{slog.DiscardHandler, t}))
		defer forwarder.close()
		query := ask("eXample.com.", rrtype)
		if edns {
			query.SetEdns0(MaxUDP, false)
		}
		for range 2 { // from the upstream, then perhaps from what was kept
			reply, source := forwarder.put(query)
			for _, udp := range []bool{true, false} {
				sent := reply.Copy()
				Fit(sent, query, udp)
				wire, err := sent.Pack()
				if err != nil {
					t.Fatalf("the reply cannot be sent: %v\n%v", err, sent)
				}
				if limit := capacity(query, udp); len(wire) > limit {
					t.Fatalf("%d bytes, at most %d allowed", len(wire), limit)
				}
			}
			if !reply.Response || reply.Id != query.Id || len(reply.Question) != 1 || reply.Question[0] != query.Question[0] || reply.Authoritative {
				t.Fatalf("from %s the reply is\n%v", source, reply)
			}
			for _, rr := range append(append(reply.Answer, reply.Ns...), reply.Extra...) {
				header := rr.Header()
				if header.Rrtype == miekg.TypeOPT {
					continue
				}
				if header.Class != miekg.ClassINET || time.Duration(header.Ttl)*time.Second > forwarder.config.MaxTTL {
					t.Fatalf("a record that should not be passed on: %v", rr)
				}
			}
			opt := reply.IsEdns0()
			if (opt != nil) != edns {
				t.Fatalf("OPT record: %v", opt)
			}
			if opt != nil {
				for _, option := range opt.Option {
					if option.Option() != miekg.EDNS0EDE {
						t.Fatalf("an option between resolvers: %v", option)
					}
				}
			}
		}
	})
}
