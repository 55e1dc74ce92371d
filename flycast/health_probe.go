package flycast

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/sixpn/sixpn/state"
)

const (
	maxOutput  = 512      // bytes of an answer that are kept
	maxHeaders = 16 << 10 // bytes of an answer's header that are read
)

// probe asks one check.
type probe struct {
	check     state.Check
	local     netip.Addr
	remote    netip.AddrPort
	connect   Connect
	transport *http.Transport // of http
}

func newProbe(c ProberConfig, local netip.Addr, remote netip.AddrPort, check state.Check) *probe {
	p := &probe{check: check, local: local, remote: remote, connect: c.Connect}
	if check.Type != "http" {
		return p
	}
	p.transport = &http.Transport{
		// A connection for each probe: it also tells whether new ones are taken.
		DisableKeepAlives:  true,
		DisableCompression: true,
		// The transport would dial on, and shake hands by TLS, long after the probe has
		// ended: it gets a connection that ends with the probe.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(connection{}).(net.Conn), nil
		},
		TLSClientConfig: &tls.Config{
			RootCAs:            c.Roots,
			ServerName:         p.serverName(),
			InsecureSkipVerify: check.TLSSkipVerify, // the user's wish, for certificates of their own
		},
		MaxResponseHeaderBytes: maxHeaders,
	}
	return p
}

// connection is the key of a probe's connection in the context of its request.
type connection struct{}

// host is what the check's own header says, else the address.
func (p *probe) host() string {
	for _, header := range p.check.Headers {
		if strings.EqualFold(header.Name, "Host") && len(header.Values) > 0 {
			return header.Values[0]
		}
	}
	return p.remote.String()
}

func (p *probe) serverName() string {
	name := p.host()
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return cmp.Or(p.check.TLSServerName, name)
}

// ask probes once. output is for people, also when there is an error; an error is a
// check that failed.
func (p *probe) ask(ctx context.Context) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.check.Timeout)
	defer cancel()
	if p.check.Port == 0 {
		return "the check has no port: give it one", errors.New("no port")
	}
	if p.transport != nil {
		output, err = p.request(ctx)
	} else {
		output, err = p.open(ctx)
	}
	switch {
	case err == nil || output != "":
		return printable(output), err
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no answer of %s within %v", p.remote, p.check.Timeout), err
	}
	return printable(err.Error()), err
}

// open is a check by TCP: the connection is all that is asked for.
func (p *probe) open(ctx context.Context) (string, error) {
	began := time.Now()
	conn, err := p.connect(ctx, p.local, p.remote)
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	return fmt.Sprintf("connected to %s in %v", p.remote, took.Round(100*time.Microsecond)), conn.Close()
}

// request is a check by HTTP or HTTPS: a status of 200 to 299 passes. A redirect is
// not followed: it is the answer.
func (p *probe) request(ctx context.Context) (string, error) {
	path := p.check.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	conn, err := p.connect(ctx, p.local, p.remote)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	address := p.check.Protocol + "://" + p.remote.String() + path
	request, err := http.NewRequestWithContext(context.WithValue(ctx, connection{}, conn), p.check.Method, address, nil)
	if err != nil {
		return "", err
	}
	request.Host = p.host()
	request.Header.Set("User-Agent", "sixpn-health-check")
	for _, header := range p.check.Headers {
		if strings.EqualFold(header.Name, "Host") {
			continue
		}
		request.Header.Del(header.Name)
		for _, value := range header.Values {
			request.Header.Add(header.Name, value)
		}
	}
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	// What the body says is for people: an answer without all of it is an answer.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxOutput))
	output := fmt.Sprintf("%s %s: %s", p.check.Method, address, response.Status)
	if len(body) > 0 {
		output += ": " + string(body)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return output, fmt.Errorf("status %d, expected 200 to 299", response.StatusCode)
	}
	return output, nil
}

// printable is text as records and terminals can carry it.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return -1
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > maxOutput {
		s = strings.ToValidUTF8(s[:maxOutput], "")
	}
	return s
}
