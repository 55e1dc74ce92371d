package agent

import (
	"context"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

const (
	// probeTries is how many rounds of small echo requests a host gets: the first may
	// wait for a handshake.
	probeTries = 4
	// probeWatch is how long a host that does not answer is watched for a sign, in units
	// of the call timeout: WireGuard tries a handshake every five seconds.
	probeWatch = 3
)

// Probe is api.Hosts. It sends what it needs and writes nothing.
func (h hosts) Probe(ctx context.Context, host state.Host) (api.HostProbe, error) {
	if h.mesh == nil && h.native == nil {
		return api.HostProbe{}, api.NotReady("other hosts do not reach this one: start its agent with --underlay ADDRESS")
	}
	p := &prober{hosts: h, host: host, probe: api.HostProbe{Host: host.Name, Way: api.HostProbeWayNone, MTU: int(h.largestPacket())}}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		p.call(ctx)
	}()
	err := p.echo(ctx)
	<-asked
	if err == nil && p.probe.Way != api.HostProbeWayBoth {
		err = p.watch(ctx)
	}
	p.probe.HandshakeAt = h.meshPeer(host.ID).LastHandshake.UTC()
	return p.probe, err
}

// largestPacket is that of Machines that go by the configuration, as far as the mesh takes it.
func (a *agent) largestPacket() uint16 { return min(a.config.MTU, a.meshPort().MTU) }

// prober is one Probe.
type prober struct {
	hosts
	host  state.Host
	probe api.HostProbe

	received uint64 // by this host's mesh device from the other, before the first request
	first    *call  // before or while requests were sent, nil: not answered
}

// call asks the agent: once to know whether it answers, and again, on the connection
// that there is now, for its clock.
func (p *prober) call(ctx context.Context) {
	first, err := p.ask(ctx, p.host)
	if err != nil {
		p.probe.Error = err.Error()
		return
	}
	p.first, p.probe.Answers = &first, true
	second, err := p.ask(ctx, p.host)
	if err != nil {
		second = first
	}
	took := second.answered.Sub(second.sent)
	answer, wrong := milliseconds(took), milliseconds(took/2)
	// The other clock was read between the two, at a moment that is not known.
	offset := milliseconds(second.Time.Sub(second.sent.Add(took / 2)))
	p.probe.AnswerMs, p.probe.ClockOffsetMs, p.probe.ClockErrorMs = &answer, &offset, &wrong
	p.probe.Version, p.probe.Message = second.Version, second.Trouble
	p.probe.WantedRevision, p.probe.AppliedRevision = second.Wanted, second.Applied
	p.probe.CertificateFrom, p.probe.CertificateUntil = second.certificateFrom.UTC(), second.certificateUntil.UTC()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// echo tries small packets until one comes back, then large ones.
func (p *prober) echo(ctx context.Context) error {
	e, err := p.newEchoes(ctx, p.host.ID)
	if err != nil {
		return err
	}
	defer e.close()
	p.received = p.meshPeer(p.host.ID).Received
	for range probeTries {
		passed, took, err := e.round(ctx, echoOverhead)
		if err != nil {
			return err
		}
		if !passed[echoOverhead] {
			continue
		}
		way := milliseconds(took)
		p.probe.Way, p.probe.RoundTripMs = api.HostProbeWayBoth, &way
		p.probe.Passes, err = e.largest(ctx, echoOverhead, p.probe.MTU)
		return err
	}
	return nil
}

// watch finds out which way packets pass, of a host that answers no echo request: both
// mesh devices count what they get from the other, handshakes too. A native mesh does not.
func (p *prober) watch(ctx context.Context) error {
	if p.mesh == nil {
		return nil
	}
	for end := time.Now().Add(probeWatch * p.config.Timeouts.Call); ; {
		in := p.meshPeer(p.host.ID).Received > p.received
		out := false
		if p.first != nil {
			now, err := p.ask(ctx, p.host)
			out = err == nil && now.Received > p.first.Received
		}
		switch {
		case in && out:
			p.probe.Way = api.HostProbeWayUnanswered
		case in:
			p.probe.Way = api.HostProbeWayIn
		case out:
			p.probe.Way = api.HostProbeWayOut
		}
		// One way is known at once, both may take until the other side tries again.
		if in && (out || p.first == nil) || time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(p.config.Timeouts.Call / 8):
		}
	}
}
