package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// openCalls makes what calls other hosts, once this one has a certificate that they know.
func (a *agent) openCalls(context.Context) error {
	if a.fleet != nil {
		a.calling = &http.Client{Transport: a.fleet.Transport(fleet.CallConfig{
			Find: a.findHost, Dial: a.config.Timeouts.Connect, Silence: a.config.Timeouts.Silence,
		})}
		a.closers = append(a.closers, func() error { a.calling.CloseIdleConnections(); return nil })
	}
	return nil
}

// carrier has the agents of other hosts answer by the API; nil for a host that is alone.
func (a *agent) carrier() http.RoundTripper {
	if a.calling == nil {
		return nil
	}
	return a.calling.Transport
}

// findHost is another host, as its record is now.
func (a *agent) findHost(name string) (state.Host, error) {
	host, ok := a.store.Snapshot().HostNamed(name)
	if !ok {
		return state.Host{}, errors.New("there is no such host in the fleet any more")
	}
	return host, nil
}

// calls is what other hosts may ask of this one, beside letting them in.
func (a *agent) calls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+reportPath, a.serveReport)
	mux.Handle("/", a.forHosts())
	return mux
}

// forHosts is the API for the agents of other hosts, once this one knows what runs here.
func (a *agent) forHosts() http.Handler {
	answers := a.api.ForHosts(fleet.Caller)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.settled:
			answers.ServeHTTP(w, r)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(api.Failure{ // who asked has gone
				Status: api.StatusUnavailable, Error: fmt.Sprintf("the agent of host %s is starting, and does not know yet what runs there: try again in a moment", a.host.Name),
			})
		}
	})
}

func (a *agent) serveReport(w http.ResponseWriter, r *http.Request) {
	asker, _ := a.store.Snapshot().HostNamed(fleet.Caller(r.Context()))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.report(asker.ID)) // who asked has gone
}

// maxReport is far more than a report has, bytes.
const maxReport = 64 << 10

// call is one that another host has answered.
type call struct {
	report
	sent, answered                    time.Time
	certificateFrom, certificateUntil time.Time // of the other host's
}

// ask has another host's agent report, within the time that the configuration gives it.
func (a *agent) ask(ctx context.Context, h state.Host) (call, error) {
	at, err := netip.ParseAddrPort(h.Endpoint)
	if err != nil || a.calling == nil {
		return call{}, fmt.Errorf("host %s has no address that other hosts reach: start its agent with --underlay ADDRESS", h.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeouts.Call)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.Name+reportPath, nil)
	if err != nil {
		return call{}, err
	}
	c := call{sent: time.Now()}
	response, err := a.calling.Do(request)
	if err != nil {
		return call{}, fmt.Errorf("the agent of %s does not answer at %v: %w", h.Name, at, withoutURL(err))
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxReport))
	c.answered = time.Now()
	switch {
	case err != nil:
		return call{}, fmt.Errorf("the answer of %s's agent cannot be read: %w", h.Name, err)
	case response.StatusCode == http.StatusNotFound:
		return call{}, fmt.Errorf("the agent of %s is of a build that does not report: give it this one's", h.Name)
	case response.StatusCode != http.StatusOK:
		return call{}, fmt.Errorf("the agent of %s refuses to answer: %s %.200s", h.Name, response.Status, content)
	}
	if err := json.Unmarshal(content, &c.report); err != nil {
		return call{}, fmt.Errorf("the answer of %s's agent cannot be read: %w", h.Name, err)
	}
	if c.Host != h.ID {
		return call{}, fmt.Errorf("at %v, where %s is said to be, host %v answers", at, h.Name, c.Host)
	}
	if response.TLS != nil && len(response.TLS.PeerCertificates) > 0 { // it has, as it was verified
		certificate := response.TLS.PeerCertificates[0]
		c.certificateFrom, c.certificateUntil = certificate.NotBefore, certificate.NotAfter
	}
	return c, nil
}
