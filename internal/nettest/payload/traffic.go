package payload

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Traffic is what "traffic" saw, by the name that the caller gave each target.
type Traffic struct {
	Seconds  float64              `json:"seconds"`
	Numbered map[string]*Numbered `json:"numbered"`
	Streams  map[string]*Stream   `json:"streams"`
	Opened   map[string]*Opened   `json:"opened"`
	// Overflows counts datagrams that the network delivered to this namespace and
	// a full socket buffer then lost.
	Overflows uint64 `json:"overflows"`
	// Starved is the longest time, in seconds, in which this process did not come to run
	// when it wanted to: what was silent no longer may have been this process itself.
	Starved float64 `json:"starved"`
}

// String is what was slow, for a log.
func (t *Traffic) String() string {
	said := fmt.Sprintf("in %.1f s the process had to wait for %.2f s at most", t.Seconds, t.Starved)
	for _, name := range slices.Sorted(maps.Keys(t.Streams)) {
		said += fmt.Sprintf("; stream %s was silent for %.2f s", name, t.Streams[name].Silent)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Opened)) {
		said += fmt.Sprintf("; a connection to %s took %.2f s", name, t.Opened[name].Slow)
	}
	return said
}

// Numbered is a series of numbered datagrams, each answered by an echo.
type Numbered struct {
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"` // each number once
	Repeated uint64 `json:"repeated"`
	Missing  uint64 `json:"missing"`
	Rate     uint64 `json:"rate"` // sent a second
	Error    string `json:"error,omitempty"`
}

// Stream is one TCP connection that carries a known pattern to and fro.
type Stream struct {
	Sent uint64 `json:"sent"`
	Back uint64 `json:"back"` // bytes, all of them right
	// Silent is the longest time, in seconds, without a byte that came back.
	Silent float64 `json:"silent"`
	Error  string  `json:"error,omitempty"`
}

// Opened counts connections that were opened one after the other meanwhile.
type Opened struct {
	OK     int            `json:"ok"`
	Failed int            `json:"failed"`
	Slow   float64        `json:"slow"` // seconds that the slowest one took
	Errors map[string]int `json:"errors"`
}

type trafficSettings struct {
	rate, flows  int
	speed        int // bytes a second of a stream
	every, after time.Duration
}

// traffic sends until the process is told to end, then waits for what is still
// under way, and prints a line "result" followed by the object.
//
//	traffic [-numbered NAME=ADDRESS:PORT]… [-stream NAME=ADDRESS:PORT]… [-open NAME=ADDRESS:PORT]…
//	        [-rate N] [-flows N] [-speed N] [-every D] [-after D]
//
// Each numbered target gets -rate datagrams a second, dealt out over -flows
// sockets, so that no socket's buffer decides the outcome.
func traffic(ctx context.Context, args []string, out io.Writer) error {
	numbered, streams, opened := map[string]string{}, map[string]string{}, map[string]string{}
	var settings trafficSettings
	if _, err := flags(args, 0, "no argument", func(set *flag.FlagSet) {
		set.Func("numbered", "", named(numbered))
		set.Func("stream", "", named(streams))
		set.Func("open", "", named(opened))
		set.IntVar(&settings.rate, "rate", 10000, "")
		set.IntVar(&settings.flows, "flows", 8, "")
		set.IntVar(&settings.speed, "speed", 4<<20, "")
		set.DurationVar(&settings.every, "every", 50*time.Millisecond, "")
		set.DurationVar(&settings.after, "after", 3*time.Second, "")
	}); err != nil {
		return err
	}
	result := Traffic{Numbered: map[string]*Numbered{}, Streams: map[string]*Stream{}, Opened: map[string]*Opened{}}
	began := time.Now()
	var running sync.WaitGroup
	for name, address := range numbered {
		r := &Numbered{}
		result.Numbered[name] = r
		running.Go(func() {
			if err := r.run(ctx, address, settings); err != nil {
				r.Error = err.Error()
			}
		})
	}
	for name, address := range streams {
		r := &Stream{}
		result.Streams[name] = r
		running.Go(func() {
			if err := r.run(ctx, address, settings); err != nil {
				r.Error = kind(err)
			}
		})
	}
	for name, address := range opened {
		r := &Opened{Errors: map[string]int{}}
		result.Opened[name] = r
		running.Go(func() { r.run(ctx, address, settings) })
	}
	fmt.Fprintln(out, "sending")
	measured, measure := make(chan time.Duration), make(chan struct{})
	go func() { measured <- starved(measure) }()
	running.Wait()
	close(measure)
	result.Starved = (<-measured).Seconds()
	result.Seconds = time.Since(began).Seconds()
	result.Overflows, _ = overflows()
	fmt.Fprint(out, "result ")
	return report(out, result)
}

// starved is how late, at worst, a goroutine ran that wanted to all the time until done.
func starved(done <-chan struct{}) (worst time.Duration) {
	const tick = 10 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-done:
			return worst
		case <-ticker.C:
		}
		now := time.Now()
		worst = max(worst, now.Sub(last)-tick)
		last = now
	}
}

// named parses NAME=VALUE into a map.
func named(into map[string]string) func(string) error {
	return func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("expected NAME=ADDRESS:PORT")
		}
		into[name] = value
		return nil
	}
}

// overflows is Udp6RcvbufErrors of this network namespace.
func overflows() (uint64, error) {
	return pairCounter("/proc/self/net/snmp6", "Udp6RcvbufErrors")
}

// run sends at an even pace and marks the numbers that come back.
func (r *Numbered) run(ctx context.Context, address string, s trafficSettings) error {
	sockets := make([]*net.UDPConn, s.flows)
	sent := make([]uint64, s.flows)
	seen := make([]map[uint64]bool, s.flows)
	repeated := make([]uint64, s.flows)
	var reading sync.WaitGroup
	for i := range sockets {
		conn, err := net.Dial("udp6", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		sockets[i], seen[i] = conn.(*net.UDPConn), map[uint64]bool{}
		if err := sockets[i].SetReadBuffer(socketBuffer); err != nil {
			return err
		}
		reading.Go(func() { repeated[i] = readNumbers(sockets[i], seen[i], math.MaxInt) })
	}
	began := time.Now()
	total, err := send(ctx, sockets, sent, s.rate)
	r.Rate = uint64(float64(total) / time.Since(began).Seconds())
	for _, socket := range sockets {
		_ = socket.SetReadDeadline(time.Now().Add(s.after))
	}
	reading.Wait()
	// One that is under way so long is late, and not lost.
	for i, socket := range sockets {
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		reading.Go(func() { repeated[i] += readNumbers(socket, seen[i], int(sent[i])) })
	}
	reading.Wait()
	for i := range sockets {
		r.Sent += sent[i]
		r.Repeated += repeated[i]
		for number := range sent[i] {
			if seen[i][number] {
				r.Received++
			}
		}
	}
	r.Missing = r.Sent - r.Received
	return err
}

// send deals numbered datagrams out over the sockets until ctx ends.
func send(ctx context.Context, sockets []*net.UDPConn, sent []uint64, rate int) (total uint64, err error) {
	const tick = 2 * time.Millisecond
	// A process that was kept off its CPU catches up, but in several bursts.
	most := uint64(20 * rate * int(tick) / int(time.Second))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	began := time.Now()
	var message [8]byte
	for {
		select {
		case <-ctx.Done():
			return total, nil
		case <-ticker.C:
		}
		due := uint64(time.Since(began).Seconds()*float64(rate)) - total
		for range min(due, most) {
			i := int(total) % len(sockets)
			binary.BigEndian.PutUint64(message[:], sent[i])
			if _, err := sockets[i].Write(message[:]); err != nil {
				return total, err
			}
			sent[i]++
			total++
		}
	}
}

// readNumbers marks what arrives until there are so many, or the socket's deadline.
func readNumbers(socket *net.UDPConn, seen map[uint64]bool, enough int) (repeated uint64) {
	buffer := make([]byte, 2048)
	for len(seen) < enough {
		n, err := socket.Read(buffer)
		if err != nil {
			if kind(err) == "timeout" || errors.Is(err, net.ErrClosed) {
				return repeated
			}
			continue // an ICMPv6 error: the datagram will be missing
		}
		space := bytes.IndexByte(buffer[:n], ' ')
		if space < 0 || n-space-1 != 8 {
			repeated++ // nothing that was sent looks so
			continue
		}
		number := binary.BigEndian.Uint64(buffer[space+1 : n])
		if seen[number] {
			repeated++
		}
		seen[number] = true
	}
	return repeated
}

// run sends the pattern until ctx ends, and compares what comes back.
func (r *Stream) run(ctx context.Context, address string, s trafficSettings) error {
	const piece = 32 << 10
	conn, err := net.DialTimeout("tcp6", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader, _, _, err := greeting(conn)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- r.compare(reader, piece) }()
	ticker := time.NewTicker(time.Duration(float64(piece) / float64(s.speed) * float64(time.Second)))
	defer ticker.Stop()
	for {
		select {
		case err := <-failed:
			return errors.Join(err, io.ErrUnexpectedEOF)
		case <-ticker.C:
			if _, err := conn.Write(pattern(r.Sent, piece)); err != nil {
				return err
			}
			r.Sent += piece
			continue
		case <-ctx.Done():
		}
		break
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if err := <-failed; err != nil {
		return err
	}
	if r.Back != r.Sent {
		return fmt.Errorf("%d bytes of %d came back", r.Back, r.Sent)
	}
	return nil
}

func (r *Stream) compare(reader io.Reader, piece int) error {
	buffer := make([]byte, piece)
	for last := time.Now(); ; {
		n, err := reader.Read(buffer)
		now := time.Now()
		r.Silent = max(r.Silent, now.Sub(last).Seconds())
		last = now
		if !bytes.Equal(buffer[:n], pattern(r.Back, n)) {
			return errWrongBytes
		}
		r.Back += uint64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *Opened) run(ctx context.Context, address string, s trafficSettings) {
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// One that has begun is brought to its end.
		began := time.Now()
		_, _, err := exchange(context.WithoutCancel(ctx), address, patience)
		r.Slow = max(r.Slow, time.Since(began).Seconds())
		if err != nil {
			r.Failed++
			r.Errors[kind(err)]++
			continue
		}
		r.OK++
	}
}
