package payload

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Connections is what "connect" saw.
type Connections struct {
	OK       int            `json:"ok"`
	Failed   int            `json:"failed"`
	Answers  map[string]int `json:"answers"` // connections by the server's machine id
	Clients  map[string]int `json:"clients"` // by the client's address, as the server saw it
	Errors   map[string]int `json:"errors"`  // by what went wrong, see kind
	Segments uint64         `json:"segments"`
}

// connect opens connections one after the other, or several at once, checks the
// echo on each and closes it.
//
//	connect [-count N] [-parallel N] [-timeout D] ADDRESS:PORT
//
// Segments counts the TCP segments that left this network namespace meanwhile.
func connect(ctx context.Context, args []string, out io.Writer) error {
	var count, parallel int
	var timeout time.Duration
	rest, err := flags(args, 1, "ADDRESS:PORT", func(set *flag.FlagSet) {
		set.IntVar(&count, "count", 1, "")
		set.IntVar(&parallel, "parallel", 1, "")
		set.DurationVar(&timeout, "timeout", patience, "")
	})
	if err != nil {
		return err
	}
	before, err := sentSegments()
	if err != nil {
		return err
	}
	result := Connections{Answers: map[string]int{}, Clients: map[string]int{}, Errors: map[string]int{}}
	var mu sync.Mutex
	var workers sync.WaitGroup
	tickets := make(chan struct{}, count)
	for range count {
		tickets <- struct{}{}
	}
	close(tickets)
	for range parallel {
		workers.Go(func() {
			for range tickets {
				server, client, err := exchange(ctx, rest[0], timeout)
				mu.Lock()
				if err != nil {
					result.Failed++
					result.Errors[kind(err)]++
				} else {
					result.OK++
					result.Answers[server]++
					result.Clients[client]++
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	after, err := sentSegments()
	if err != nil {
		return err
	}
	result.Segments = after - before
	return report(out, result)
}

// exchange makes one connection and checks its echo.
func exchange(ctx context.Context, address string, timeout time.Duration) (server, client string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp6", address)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", "", err
	}
	reader, server, client, err := greeting(conn)
	if err != nil {
		return "", "", err
	}
	sent := []byte(rand.Text())
	if _, err := conn.Write(sent); err != nil {
		return "", "", err
	}
	echoed := make([]byte, len(sent))
	if _, err := io.ReadFull(reader, echoed); err != nil {
		return "", "", err
	}
	if !bytes.Equal(sent, echoed) {
		return "", "", errWrongBytes
	}
	return server, client, nil
}

var errWrongBytes = errors.New("the echo has wrong bytes")

// greeting reads a server's first line: its id, and the client as it sees it.
func greeting(conn net.Conn) (reader *bufio.Reader, server, client string, err error) {
	reader = bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, "", "", err
	}
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return nil, "", "", fmt.Errorf("the server's first line is %q, expected its id and the client", line)
	}
	host, _, err := net.SplitHostPort(fields[1])
	return reader, fields[0], host, err
}

// kind is an error in one word, for counting.
func kind(err error) string {
	switch {
	case errors.Is(err, errWrongBytes):
		return "wrong"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return err.Error()
}

// sentSegments is how many TCP segments this network namespace has sent, all
// retransmissions included: RFC 4022, tcpOutSegs and tcpRetransSegs, which Linux
// counts into the former.
func sentSegments() (uint64, error) { return counter("/proc/self/net/snmp", "Tcp:", "OutSegs") }

// counter reads one number of a file of pairs of lines, names above values.
func counter(path, group, name string) (value uint64, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != group {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i := range min(len(names), len(fields)) {
			if names[i] == name {
				_, err := fmt.Sscan(fields[i], &value)
				return value, err
			}
		}
	}
	return 0, fmt.Errorf("%s has no %s %s", path, group, name)
}

// pairCounter reads one number of a file with a name and a number on each line.
func pairCounter(path, name string) (value uint64, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			_, err := fmt.Sscan(fields[1], &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
