package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPath is one way from a client to a server.
type tcpPath struct {
	name           string
	client, server func(func() error) error // call a function in the namespace of either end
	listen, to     netip.AddrPort           // the server's own address, and the one it is called by
	// clock is the processor time of the processes that carry it; nil: it is not asked for.
	clock func() (time.Duration, error)
}

// path is the way through a world to an address of its server, or one that leads to it.
func (w *world) path(to netip.AddrPort) tcpPath {
	return tcpPath{name: w.name, client: w.client.do, server: w.server.do, listen: netip.AddrPortFrom(serverAddr, backendPort), to: to}
}

const bits, requests = "Gb/s", "transactions/s"

// tcpSamples are what paths did: [path][round], Gb/s, transactions/s, and, where there is
// a clock, ms of processor time a MB of the stream.
type tcpSamples struct{ throughput, rate, cpu [][]float64 }

// measurePaths measures throughput and request/response rate, path after path in
// every round, so that what drifts drifts for all of them.
func measurePaths(ctx context.Context, paths []tcpPath, rounds int, each time.Duration, progress func(string)) (tcpSamples, error) {
	s := tcpSamples{make([][]float64, len(paths)), make([][]float64, len(paths)), make([][]float64, len(paths))}
	for _, p := range paths {
		for _, end := range []func(func() error) error{p.client, p.server} {
			if err := end(forgetConnections); err != nil {
				return s, err
			}
		}
	}
	// One round is thrown away: it pages in buffers, fills neighbour tables and warms caches.
	for round := -1; round < rounds; round++ {
		for offset := range paths {
			// Each round begins with another path, so that none is always the first.
			i := (offset + max(round, 0)) % len(paths)
			if err := ctx.Err(); err != nil {
				return s, err
			}
			progress(fmt.Sprintf("tcp %s %s", paths[i].name, paths[i].to))
			bytes, cpu, err := paths[i].timedStream(each)
			if err != nil {
				return s, fmt.Errorf("stream through %s: %w", paths[i].name, err)
			}
			transactions, err := paths[i].requests(each / 2)
			if err != nil {
				return s, fmt.Errorf("requests through %s: %w", paths[i].name, err)
			}
			if round >= 0 {
				s.throughput[i] = append(s.throughput[i], bytes*8/1e9)
				s.rate[i] = append(s.rate[i], transactions)
				s.cpu[i] = append(s.cpu[i], cpu)
			}
		}
	}
	return s, nil
}

// measureTCP measures the ways from one Machine to another of the same host.
func measureTCP(ctx context.Context, rounds int, each time.Duration, progress func(string)) ([]Result, error) {
	o, err := loadObjects()
	if err != nil {
		return nil, err
	}
	defer o.Close()
	router, err := newSixpnWorld(o)
	if err != nil {
		return nil, err
	}
	defer router.close()
	routed, err := newRoutedWorld("routing")
	if err != nil {
		return nil, err
	}
	defer routed.close()
	bridged, err := newBridgedWorld()
	if err != nil {
		return nil, err
	}
	defer bridged.close()

	server := netip.AddrPortFrom(serverAddr, backendPort)
	paths := []tcpPath{router.path(server), router.path(netip.AddrPortFrom(vipAddr, vipPort)), routed.path(server), bridged.path(server)}
	samples, err := measurePaths(ctx, paths, rounds, each, progress)
	if err != nil {
		return nil, err
	}
	throughput, rate := samples.throughput, samples.rate
	return []Result{
		newResult("tcp.throughput", bits, "routing", throughput[0], throughput[2]),
		newResult("tcp.rr", requests, "routing", rate[0], rate[2]),
		newResult("tcp.throughput_bridge", bits, "bridge", throughput[0], throughput[3]),
		newResult("tcp.rr_bridge", requests, "bridge", rate[0], rate[3]),
		newResult("flycast.tcp.throughput", bits, "direct", throughput[1], throughput[0]),
		newResult("flycast.tcp.rr", requests, "direct", rate[1], rate[0]),
	}, nil
}

// forgetConnections has the namespace of the thread begin each connection as if it were
// the first. Else one that met a full queue would slow down all that come after it.
func forgetConnections() error {
	return os.WriteFile("/proc/sys/net/ipv4/tcp_no_metrics_save", []byte("1"), 0)
}

// congestion is the control that Linux has unless told otherwise. One that paces, such as
// bbr, sends by a timer at the rate that it guesses, and would be what is measured.
const congestion = "cubic"

// loseAsUsual has a socket answer to losses like any other, whatever this host's default.
func loseAsUsual(_, _ string, raw syscall.RawConn) error {
	var failure error
	err := raw.Control(func(fd uintptr) {
		failure = os.NewSyscallError("choose "+congestion, unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion))
	})
	return errors.Join(err, failure)
}

// connect makes one connection; serve gets its far end.
func (p tcpPath) connect(serve func(net.Conn)) (client net.Conn, stop func(), err error) {
	var listener net.Listener
	err = p.server(func() error {
		config := net.ListenConfig{Control: loseAsUsual}
		listener, err = config.Listen(context.Background(), "tcp6", p.listen.String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	stopServer := func() {
		listener.Close()
		<-done
	}
	err = p.client(func() error {
		dialer := net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1, Control: loseAsUsual}
		client, err = dialer.Dial("tcp6", p.to.String())
		return err
	})
	if err != nil {
		stopServer()
		return nil, nil, err
	}
	return client, func() { client.Close(); stopServer() }, nil
}

// timedStream is stream, and says how many ms of processor time a MB took, 0 without a clock.
func (p tcpPath) timedStream(each time.Duration) (rate, cpu float64, err error) {
	if p.clock == nil {
		rate, _, err = p.stream(each)
		return rate, 0, err
	}
	before, err := p.clock()
	if err != nil {
		return 0, 0, err
	}
	rate, bytes, err := p.stream(each)
	if err != nil {
		return 0, 0, err
	}
	after, err := p.clock()
	return rate, (after - before).Seconds() * 1e3 / (float64(bytes) / 1e6), err
}

// stream sends for a while and returns bytes a second, and bytes, as the receiver counts them.
func (p tcpPath) stream(each time.Duration) (rate float64, bytes int64, err error) {
	type received struct {
		bytes int64
		took  time.Duration
		err   error
	}
	results := make(chan received, 1)
	client, stop, err := p.connect(func(conn net.Conn) {
		var r received
		start := time.Now()
		buffer := make([]byte, 256<<10)
		for {
			n, err := conn.Read(buffer)
			r.bytes += int64(n)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.err = err
				}
				break
			}
		}
		r.took = time.Since(start)
		results <- r
	})
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	buffer := make([]byte, 256<<10)
	for deadline := time.Now().Add(each); time.Now().Before(deadline); {
		if _, err := client.Write(buffer); err != nil {
			return 0, 0, err
		}
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, 0, err
	}
	r := <-results
	return float64(r.bytes) / r.took.Seconds(), r.bytes, r.err
}

// requests sends one byte and waits for one, over and over: round trips a second.
func (p tcpPath) requests(each time.Duration) (float64, error) {
	client, stop, err := p.connect(func(conn net.Conn) {
		one := make([]byte, 1)
		for {
			if _, err := conn.Read(one); err != nil {
				return
			}
			if _, err := conn.Write(one); err != nil {
				return
			}
		}
	})
	if err != nil {
		return 0, err
	}
	defer stop()
	one := make([]byte, 1)
	count, start := 0, time.Now()
	for time.Since(start) < each {
		if _, err := client.Write(one); err != nil {
			return 0, err
		}
		if _, err := client.Read(one); err != nil {
			return 0, err
		}
		count++
	}
	rate := float64(count) / time.Since(start).Seconds()
	return rate, client.Close()
}
