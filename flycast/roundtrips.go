package flycast

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// RoundTripsConfig is what RoundTrips work with.
type RoundTripsConfig struct {
	Host     sixpn.Host // this one
	Region   string     // of this one
	Snapshot func() *state.Snapshot
	// Open makes a socket that sends and receives ICMPv6 messages, the checksum being
	// the kernel's, from this host's address among hosts: fdaa:0:0:<host>::1.
	Open func(ctx context.Context) (net.PacketConn, error)
	// OnDistances is called when the distances are others than before. It must not
	// block. nil: nobody wants to know.
	OnDistances func()
	// OnReach is called when a host becomes silent, or is heard again. It must not
	// block. nil: nobody wants to know.
	OnReach func()

	// Interval is the time between two requests to a host. With many hosts it is longer,
	// so that there are no more requests than one each Gap. 0: 2 s and 10 ms.
	Interval, Gap time.Duration
	Timeout       time.Duration // for an answer; 0: 1 s
	Patience      int           // requests without an answer that make a host silent, at most 32; 0: 3
	Retry         time.Duration // before a socket that failed is opened again; 0: 1 s
	Log           *slog.Logger
}

// RoundTrips measures the way to every other host of the fleet by echo requests over
// the mesh, which the other host's data plane answers: they tell whether packets pass
// there, whatever its agent does.
type RoundTrips struct {
	config    RoundTripsConfig
	id        uint16 // of its echo requests
	distances atomic.Pointer[state.Distances]

	mu       sync.Mutex
	hosts    map[sixpn.Host]*roundTrip
	waiting  map[uint16]request // by sequence
	sequence uint16
	times    regionTimes
}

// request is one that has no answer yet.
type request struct {
	host sixpn.Host
	sent time.Time
}

// NewRoundTrips fills in the settings that were left out.
func NewRoundTrips(c RoundTripsConfig) (*RoundTrips, error) {
	if c.Snapshot == nil || c.Open == nil || c.Log == nil {
		return nil, errors.New("flycast: round trips need Snapshot, Open and Log")
	}
	c.Interval = cmp.Or(c.Interval, 2*time.Second)
	c.Gap = cmp.Or(c.Gap, 10*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	c.Retry = cmp.Or(c.Retry, time.Second)
	c.Patience = min(cmp.Or(c.Patience, 3), lossWindow)
	r := &RoundTrips{
		config: c, id: uint16(rand.UintN(math.MaxUint16 + 1)),
		hosts: map[sixpn.Host]*roundTrip{}, waiting: map[uint16]request{},
	}
	r.distances.Store(state.NewDistances(c.Region, nil))
	return r, nil
}

// Distances is how far regions are from this host, the same pointer until that changes.
func (r *RoundTrips) Distances() *state.Distances { return r.distances.Load() }

// Hosts is what is known of the way to every other host, by number.
func (r *RoundTrips) Hosts() []RoundTrip {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []RoundTrip
	for _, host := range slices.Sorted(maps.Keys(r.hosts)) {
		all = append(all, r.hosts[host].seen(host))
	}
	return all
}

// Host is what is known of the way to one host; false if none was measured.
func (r *RoundTrips) Host(host sixpn.Host) (RoundTrip, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	trip := r.hosts[host]
	if trip == nil || trip.probes == 0 {
		return RoundTrip{}, false
	}
	return trip.seen(host), true
}

// Silent is whether the latest requests to a host, as many as Patience says, had no
// answer: packets do not pass there, or not back. A host that was not asked so often is
// not silent.
func (r *RoundTrips) Silent(host sixpn.Host) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	trip := r.hosts[host]
	return trip != nil && r.silent(trip)
}

func (r *RoundTrips) silent(trip *roundTrip) bool { return trip.lostInARow() >= r.config.Patience }

// Run measures until ctx ends, and returns nil then. A socket that fails is opened
// again; meanwhile nothing is known anew.
func (r *RoundTrips) Run(ctx context.Context) error {
	failed := ""
	for ctx.Err() == nil {
		err := r.measure(ctx)
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != failed {
			failed = text
			r.config.Log.Warn("the way to other hosts cannot be measured", "error", err)
		}
		wait(ctx, r.config.Retry)
	}
	return nil
}

// measure works with one socket until ctx ends or that fails.
func (r *RoundTrips) measure(ctx context.Context) error {
	conn, err := r.config.Open(ctx)
	if err != nil {
		return fmt.Errorf("open the socket: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		cancel(r.listen(conn))
	}()
	defer func() {
		_ = conn.Close() // ends listen
		<-listening
	}()
	for ctx.Err() == nil {
		hosts, young := r.others()
		pause := r.config.Interval
		if young {
			pause = min(pause, firstInterval)
		}
		if len(hosts) > 0 {
			pause = max(pause/time.Duration(len(hosts)), r.config.Gap)
		}
		for _, host := range hosts {
			r.ask(conn, host)
			wait(ctx, pause)
			r.expire(time.Now())
			if ctx.Err() != nil {
				break
			}
		}
		if len(hosts) == 0 {
			wait(ctx, pause)
		}
		r.publish()
	}
	return context.Cause(ctx)
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// firstInterval is Interval, if that is longer, until each host was asked as often as
// makes a time to go by: an agent that begins again shall soon know what it did before.
const firstInterval = 100 * time.Millisecond

// others is every host but this one, by number; young is whether one was asked too
// seldom so far. What was known of those that are no more is forgotten.
func (r *RoundTrips) others() (hosts []sixpn.Host, young bool) {
	snapshot := r.config.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.hosts, func(host sixpn.Host, _ *roundTrip) bool {
		_, there := snapshot.Hosts[host]
		return !there
	})
	for host := range snapshot.Hosts {
		if host != r.config.Host && r.hosts[host] == nil {
			r.hosts[host] = &roundTrip{}
		}
	}
	for host, trip := range r.hosts {
		hosts, young = append(hosts, host), young || trip.probes < enoughAnswers
	}
	slices.Sort(hosts)
	return hosts, young
}

// ask sends a request. One that cannot be sent is lost.
func (r *RoundTrips) ask(conn net.PacketConn, host sixpn.Host) {
	r.mu.Lock()
	r.sequence++
	sequence := r.sequence
	r.waiting[sequence] = request{host, time.Now()}
	r.mu.Unlock()
	message := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: int(r.id), Seq: int(sequence)}}
	packet, err := message.Marshal(nil)
	if err == nil {
		_, err = conn.WriteTo(packet, &net.IPAddr{IP: sixpn.AgentAddr(0, host).AsSlice()})
	}
	if err != nil {
		r.config.Log.Debug("an echo request was not sent", "host", host, "error", err)
	}
}

// expire counts what has waited too long as lost.
func (r *RoundTrips) expire(now time.Time) {
	changed := false
	r.mu.Lock()
	for sequence, q := range r.waiting {
		if now.Sub(q.sent) < r.config.Timeout {
			continue
		}
		delete(r.waiting, sequence)
		if trip := r.hosts[q.host]; trip != nil {
			before := r.silent(trip)
			trip.lose()
			changed = changed || r.silent(trip) != before
		}
	}
	r.mu.Unlock()
	r.tell(changed)
}

func (r *RoundTrips) tell(changed bool) {
	if changed && r.config.OnReach != nil {
		r.config.OnReach()
	}
}

// listen takes answers until the socket ends.
func (r *RoundTrips) listen(conn net.PacketConn) error {
	buffer := make([]byte, math.MaxUint16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		at := time.Now()
		if err != nil {
			return fmt.Errorf("receive echo replies: %w", err)
		}
		r.take(buffer[:n], from, at)
	}
}

// take counts an answer, if it is one: of the host that was asked, to what waits.
func (r *RoundTrips) take(message []byte, from net.Addr, at time.Time) {
	const head = 8 // id and sequence of an echo are at 4 and 6, RFC 4443
	sender, ok := from.(*net.IPAddr)
	if !ok || len(message) < head || ipv6.ICMPType(message[0]) != ipv6.ICMPTypeEchoReply || binary.BigEndian.Uint16(message[4:]) != r.id {
		return
	}
	address, _ := netip.AddrFromSlice(sender.IP)
	sequence := binary.BigEndian.Uint16(message[6:])
	r.tell(r.answered(sequence, address, at))
}

// answered is whether a silent host was heard again.
func (r *RoundTrips) answered(sequence uint16, from netip.Addr, at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, waits := r.waiting[sequence]
	if !waits || from != sixpn.AgentAddr(0, q.host) || at.Sub(q.sent) >= r.config.Timeout {
		return false
	}
	delete(r.waiting, sequence)
	trip := r.hosts[q.host]
	if trip == nil {
		return false
	}
	before := r.silent(trip)
	trip.answer(at.Sub(q.sent), at)
	return before
}

// publish makes distances of what was measured, if they are others than before.
func (r *RoundTrips) publish() {
	snapshot := r.config.Snapshot()
	now := map[string]time.Duration{}
	r.mu.Lock()
	for host, trip := range r.hosts {
		region := snapshot.Hosts[host].Region
		if trip.answers < enoughAnswers || region == r.config.Region {
			continue
		}
		if shortest, ok := now[region]; !ok || trip.smoothed < shortest {
			now[region] = trip.smoothed
		}
	}
	changed := r.times.update(now)
	if changed {
		r.distances.Store(state.NewDistances(r.config.Region, r.times.said))
	}
	r.mu.Unlock()
	if changed && r.config.OnDistances != nil {
		r.config.OnDistances()
	}
}
