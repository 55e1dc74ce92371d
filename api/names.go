package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

func (o *operations) Dig(ctx context.Context, r DigRequestObject) (DigResponseObject, error) {
	network, err := o.networkFrom(ctx, r.Params.HostName, r.OrgSlug, r.Params.Network)
	if err != nil {
		return nil, err
	}
	if r.Params.Name == "" {
		return nil, invalid("name", "there is no name, expected one such as web.internal")
	}
	result, err := o.config.Resolver.Resolve(ctx, network.ID, r.Params.Name, cmp.Or(r.Params.Type, "AAAA"))
	if err != nil {
		return nil, err
	}
	result.Answers, result.Authority = filled(result.Answers), filled(result.Authority)
	return Dig200JSONResponse(result), nil
}

// networkFrom finds a network as a host knows it; elsewhere, if that is another one.
func (s *Server) networkFrom(ctx context.Context, host, org, name string) (state.Network, error) {
	return latest(ctx, s, func(snapshot *state.Snapshot) (state.Network, error) {
		network, err := s.network(snapshot, org, name)
		if err != nil || host == "" {
			return network, err
		}
		at, err := s.host(snapshot, host)
		if err == nil && at.ID != s.config.Host {
			err = &elsewhere{at.ID}
		}
		return network, err
	})
}

// What a ping may ask for, and what it gets if it does not say.
const (
	pingCount    = 4
	pingSize     = 56
	pingInterval = time.Second
	pingTimeout  = 2 * time.Second

	maxPingCount    = 1000
	maxPingSize     = 8952 // with the headers of IPv6 and ICMPv6 the largest MTU of a Machine
	minPingInterval = 10 * time.Millisecond
	maxPingTime     = time.Minute // of an interval and of a timeout
)

func (o *operations) Ping(ctx context.Context, r PingRequestObject) (PingResponseObject, error) {
	network, err := o.networkFrom(ctx, r.Params.HostName, r.OrgSlug, r.Body.Network)
	if err != nil {
		return nil, err
	}
	echo := Echo{
		Target:   r.Body.Target,
		Count:    cmp.Or(r.Body.Count, pingCount),
		Interval: cmp.Or(time.Duration(r.Body.Interval), pingInterval),
		Timeout:  cmp.Or(time.Duration(r.Body.Timeout), pingTimeout),
		Size:     pingSize,
	}
	if r.Body.Size != nil {
		echo.Size = *r.Body.Size
	}
	if err := echo.check(); err != nil {
		return nil, err
	}
	return &pingStream{ctx: ctx, pinger: o.config.Pinger, network: network.ID, echo: echo}, nil
}

func (e Echo) check() error {
	switch {
	case e.Count < 1 || e.Count > maxPingCount:
		return invalid("count", "count is %d, expected 1 to %d", e.Count, maxPingCount)
	case e.Size < 0 || e.Size > maxPingSize:
		return invalid("size", "size is %d, expected 0 to %d", e.Size, maxPingSize)
	case e.Interval < minPingInterval || e.Interval > maxPingTime:
		return invalid("interval", "interval is %v, expected %v to %v", e.Interval, minPingInterval, maxPingTime)
	case e.Timeout < minPingInterval || e.Timeout > maxPingTime:
		return invalid("timeout", "timeout is %v, expected %v to %v", e.Timeout, minPingInterval, maxPingTime)
	}
	return nil
}

// pingStream answers with a line for each reply when it comes.
type pingStream struct {
	ctx     context.Context
	pinger  Pinger
	network sixpn.Network
	echo    Echo
}

func (p *pingStream) VisitPingResponse(w http.ResponseWriter) error {
	return stream(w, "application/x-ndjson", func(out *flushWriter) error {
		return p.pinger.Ping(p.ctx, p.network, p.echo, func(line PingLine) error {
			return json.NewEncoder(out).Encode(line)
		})
	})
}
