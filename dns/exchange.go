package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	// strangers is how many datagrams that are no answer to the question are passed
	// over before the upstream is asked over TCP, where none can be slipped in.
	strangers = 16
	// largest is the datagram that is read, bytes, though less is asked for.
	largest = 4096
)

// errOverTCP says that the answer has to be fetched over TCP.
var errOverTCP = errors.New("the answer over UDP is none that could be used")

// ask is one question and its answer, over UDP and, if need be, TCP. A server that
// does not know EDNS is asked without.
func (u *upstream) ask(ctx context.Context, asked key) (*miekg.Msg, error) {
	message, err := u.overBoth(ctx, newQuestion(asked, true))
	if err == nil && (message.Rcode == miekg.RcodeFormatError || message.Rcode == miekg.RcodeNotImplemented) && message.IsEdns0() == nil {
		return u.overBoth(ctx, newQuestion(asked, false))
	}
	return message, err
}

// newQuestion is the message for an upstream: of the asker's own it has the
// question and two bits, so that nothing else of the asker gets out, such as the
// address that a client subnet option would tell (RFC 7871). The id and the case
// of the letters are at random: whoever forges an answer has to guess them.
func newQuestion(asked key, edns bool) *miekg.Msg {
	query := new(miekg.Msg).SetQuestion(spellAtRandom(asked.name), asked.rrtype)
	query.CheckingDisabled = asked.disabled
	query.AuthenticatedData = true // tells that the bit in the answer is understood (RFC 6840)
	if edns {
		query.SetEdns0(MaxUDP, asked.dnssec)
	}
	return query
}

func spellAtRandom(name string) string {
	letters := []byte(name)
	var bits uint64
	for i, c := range letters {
		if i%64 == 0 {
			bits = rand.Uint64()
		}
		if c >= 'a' && c <= 'z' && bits&1 == 1 {
			letters[i] = c - 'a' + 'A'
		}
		bits >>= 1
	}
	return string(letters)
}

// overBoth tries UDP, and TCP if that said so.
func (u *upstream) overBoth(ctx context.Context, query *miekg.Msg) (*miekg.Msg, error) {
	message, err := u.over(ctx, "udp", query, askDatagram)
	if errors.Is(err, errOverTCP) {
		message, err = u.over(ctx, "tcp", query, askStream)
	}
	return message, err
}

// over is one exchange with a socket, and so a port, of its own.
func (u *upstream) over(ctx context.Context, network string, query *miekg.Msg, ask func(net.Conn, *miekg.Msg) (*miekg.Msg, error)) (message *miekg.Msg, err error) {
	began := time.Now()
	if u.of.observer != nil {
		defer func() {
			ok := err == nil || errors.Is(err, errOverTCP)
			u.of.observer.Exchanged(Exchanged{Upstream: u.address, OK: ok, Transport: network, Duration: time.Since(began)})
		}()
	}
	ctx, cancel := context.WithTimeout(ctx, u.of.config.Timeout)
	defer cancel()
	conn, err := u.of.config.Dial(ctx, network, u.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// A deadline in the past wakes whoever reads.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	message, err = ask(conn, query)
	if err != nil && !errors.Is(err, errOverTCP) {
		return nil, fmt.Errorf("ask %s over %s: %w", u.address, network, err)
	}
	return message, err
}

// askDatagram reads until the answer comes. The socket is connected: it receives
// from the upstream's address only.
func askDatagram(conn net.Conn, query *miekg.Msg) (*miekg.Msg, error) {
	wire, err := query.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buffer := make([]byte, largest)
	for range strangers {
		size, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		message := new(miekg.Msg)
		if err := message.Unpack(buffer[:size]); err != nil {
			// A record that was cut through is a sign of truncation too.
			if cut(buffer[:size], query.Id) {
				return nil, errOverTCP
			}
			continue
		}
		switch {
		case !answers(message, query):
		case message.Truncated, message.Question[0].Name != query.Question[0].Name:
			// A server may not keep the case, or somebody did not know it.
			return nil, errOverTCP
		default:
			return message, nil
		}
	}
	return nil, errOverTCP
}

// cut says whether a message that cannot be read is a truncated answer.
func cut(wire []byte, id uint16) bool {
	const isReply, isCut = 1 << 15, 1 << 9
	return len(wire) >= 12 && binary.BigEndian.Uint16(wire) == id && binary.BigEndian.Uint16(wire[2:])&(isReply|isCut) == isReply|isCut
}

// askStream is the same over TCP, where the first message is the answer.
func askStream(conn net.Conn, query *miekg.Msg) (*miekg.Msg, error) {
	stream := &miekg.Conn{Conn: conn}
	if err := stream.WriteMsg(query); err != nil {
		return nil, err
	}
	message, err := stream.ReadMsg()
	if err != nil {
		return nil, err
	}
	if !answers(message, query) {
		return nil, errors.New("the answer is to another question")
	}
	return message, nil
}

// answers says whether a message is the answer to a query, whatever the case of
// the name.
func answers(message, query *miekg.Msg) bool {
	if !message.Response || message.Id != query.Id || message.Opcode != miekg.OpcodeQuery || len(message.Question) != 1 {
		return false
	}
	got, want := message.Question[0], query.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
