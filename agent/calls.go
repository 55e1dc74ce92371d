package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

// openCalls makes what calls other hosts, once this one has a certificate that they know.
func (a *agent) openCalls(context.Context) error {
	if a.fleet != nil {
		a.calling = a.fleet.Client()
		a.closers = append(a.closers, func() error { a.calling.CloseIdleConnections(); return nil })
	}
	return nil
}

// calls is what other hosts may ask of this one, beside letting them in.
func (a *agent) calls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+reportPath, a.serveReport)
	return mux
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
	sent, answered time.Time
	certificateEnd time.Time // of the other host's
}

// ask has another host's agent report, within the time that the configuration gives it.
func (a *agent) ask(ctx context.Context, h state.Host) (call, error) {
	at, err := netip.ParseAddrPort(h.Endpoint)
	if err != nil || a.calling == nil {
		return call{}, fmt.Errorf("host %s has no address that other hosts reach: start its agent with --underlay ADDRESS", h.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeouts.Call)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at.String()+reportPath, nil)
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
	c.certificateEnd = response.TLS.PeerCertificates[0].NotAfter
	return c, nil
}
