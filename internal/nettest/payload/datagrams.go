package payload

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
)

// Datagrams is what "datagrams" and "ping" saw.
type Datagrams struct {
	Sent     int            `json:"sent"`
	Received int            `json:"received"`
	Answers  map[string]int `json:"answers"` // datagrams by the server's machine id
	Errors   map[string]int `json:"errors"`  // by what went wrong, see kind
}

// datagrams sends numbered datagrams and waits for the answers.
//
//	datagrams [-count N] [-flows N] [-timeout D] ADDRESS:PORT
//
// Each flow has a socket of its own; the datagrams are dealt out over the flows.
// All are sent at once, then all answers are awaited until the timeout.
func datagrams(_ context.Context, args []string, out io.Writer) error {
	var count, flows int
	var timeout time.Duration
	rest, err := flags(args, 1, "ADDRESS:PORT", func(set *flag.FlagSet) {
		set.IntVar(&count, "count", 1, "")
		set.IntVar(&flows, "flows", 1, "")
		set.DurationVar(&timeout, "timeout", patience, "")
	})
	if err != nil {
		return err
	}
	result := Datagrams{Answers: map[string]int{}, Errors: map[string]int{}}
	sockets := make([]net.Conn, flows)
	for i := range sockets {
		if sockets[i], err = net.Dial("udp6", rest[0]); err != nil {
			return err
		}
		defer sockets[i].Close()
	}
	var message [8]byte
	for i := range count {
		binary.BigEndian.PutUint64(message[:], uint64(i))
		if _, err := sockets[i%flows].Write(message[:]); err != nil {
			result.Errors[kind(err)]++
			continue
		}
		result.Sent++
	}
	deadline := time.Now().Add(timeout)
	seen := map[uint64]bool{}
	for i, socket := range sockets {
		_ = socket.SetReadDeadline(deadline)
		mine := count / flows
		if i < count%flows {
			mine++
		}
		buffer := make([]byte, maxDatagram)
		for range mine {
			n, err := socket.Read(buffer)
			if err != nil {
				result.Errors[kind(err)]++
				if errors.Is(err, net.ErrClosed) || kind(err) == "timeout" {
					break
				}
				continue
			}
			server, number, ok := strings.Cut(string(buffer[:n]), " ")
			if !ok || len(number) != len(message) || seen[binary.BigEndian.Uint64([]byte(number))] {
				result.Errors["wrong"]++
				continue
			}
			seen[binary.BigEndian.Uint64([]byte(number))] = true
			result.Answers[server]++
			result.Received++
		}
	}
	return report(out, result)
}

// ping sends ICMPv6 echo requests and counts the answers.
//
//	ping [-count N] [-timeout D] ADDRESS
func ping(_ context.Context, args []string, out io.Writer) error {
	var count int
	var timeout time.Duration
	rest, err := flags(args, 1, "ADDRESS", func(set *flag.FlagSet) {
		set.IntVar(&count, "count", 1, "")
		set.DurationVar(&timeout, "timeout", patience, "")
	})
	if err != nil {
		return err
	}
	target, err := net.ResolveIPAddr("ip6", rest[0])
	if err != nil {
		return err
	}
	socket, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	defer socket.Close()
	// All other ICMPv6 of the Machine would come here too.
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeEchoReply)
	if err := socket.IPv6PacketConn().SetICMPFilter(&filter); err != nil {
		return err
	}
	result := Datagrams{Answers: map[string]int{}, Errors: map[string]int{}}
	id := int(time.Now().UnixNano() & 0xffff)
	for i := range count {
		message := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: id, Seq: i, Data: []byte("sixpn")}}
		raw, err := message.Marshal(nil) // the kernel writes the checksum
		if err != nil {
			return err
		}
		if _, err := socket.WriteTo(raw, target); err != nil {
			result.Errors[kind(err)]++
			continue
		}
		result.Sent++
	}
	_ = socket.SetReadDeadline(time.Now().Add(timeout))
	buffer := make([]byte, maxDatagram)
	for result.Received < result.Sent {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			result.Errors[kind(err)]++
			break
		}
		message, err := icmp.ParseMessage(ipv6.ICMPTypeEchoReply.Protocol(), buffer[:n])
		if err != nil {
			continue
		}
		if body, ok := message.Body.(*icmp.Echo); ok && body.ID == id {
			result.Received++
			result.Answers[from.String()]++
		}
	}
	return report(out, result)
}
