package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

const (
	away    = 5 * time.Second // how long there is no agent
	running = time.Second     // before and after
	rate    = 10000           // datagrams a second, each way
)

// killAgent: the agent is killed and comes back, and no packet is lost: plain and
// through a VIP, datagrams, streams, and connections that are opened meanwhile.
func killAgent(ctx context.Context, w *world) (string, error) {
	plain, vip := w.web[0].Addr, w.webVIP
	m, err := w.host.Run(ctx, appClient, nettest.Options{Name: "client-traffic", Linger: 20 * time.Second}, w.host.Payload("traffic",
		"-rate", fmt.Sprint(rate),
		"-numbered", "plain="+at(plain, udpPort), "-numbered", "vip="+at(vip, udpPort),
		"-stream", "plain="+at(plain, tcpPort), "-stream", "vip="+at(vip, vipPort),
		"-open", "plain="+at(plain, tcpPort), "-open", "vip="+at(vip, vipPort))...)
	if err != nil {
		return "", err
	}
	pause(ctx, running)
	if err := w.host.KillAgent(); err != nil {
		return "", err
	}
	pause(ctx, away)
	began := time.Now()
	if err := w.startAgent(ctx); err != nil {
		return "", err
	}
	back := time.Since(began)
	pause(ctx, running)
	if err := m.Stop(ctx); err != nil {
		return "", err
	}
	if err := m.Wait(ctx, "stopped"); err != nil {
		return "", err
	}
	log, err := m.Logs(ctx)
	if err != nil {
		return "", err
	}
	_, text, ok := strings.Cut(log, "result ")
	if !ok {
		return "", fmt.Errorf("the traffic left no result, its log is %q", log)
	}
	var seen payload.Traffic
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		return "", err
	}
	if err := lossless(seen); err != nil {
		return "", err
	}
	p, v := seen.Numbered["plain"], seen.Numbered["vip"]
	return fmt.Sprintf("agent killed, away %v, back in %.1f s: %d+%d datagrams at %d/s, none missing; %d+%d MB of TCP, no byte wrong; %d+%d new connections, none lost",
		away, back.Seconds(), p.Sent, v.Sent, min(p.Rate, v.Rate), seen.Streams["plain"].Back>>20, seen.Streams["vip"].Back>>20,
		seen.Opened["plain"].OK, seen.Opened["vip"].OK), nil
}

// lossless says what of the traffic was lost.
func lossless(t payload.Traffic) error {
	var errs []error
	for name, n := range t.Numbered {
		if n.Missing > 0 || n.Repeated > 0 || n.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %d of %d datagrams are missing, %d repeated (%d lost by full sockets) %s",
				name, n.Missing, n.Sent, n.Repeated, t.Overflows, n.Error))
		}
		if n.Rate < rate/2 { // a busy host cannot send them all; fewer prove nothing
			errs = append(errs, fmt.Errorf("%s: this host could send only %d datagrams a second, expected %d", name, n.Rate, rate))
		}
	}
	for name, s := range t.Streams {
		if s.Error != "" || s.Back != s.Sent || s.Sent == 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d bytes of the stream came back: %s", name, s.Back, s.Sent, s.Error))
		}
	}
	for name, o := range t.Opened {
		if o.Failed > 0 || o.OK == 0 {
			errs = append(errs, fmt.Errorf("%s: of the new connections %d came through and %d failed: %v", name, o.OK, o.Failed, o.Errors))
		}
	}
	return errors.Join(errs...)
}

// pause lets time pass, less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
