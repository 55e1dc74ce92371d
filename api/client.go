package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// DefaultName is the name of an agent that was given none.
const DefaultName = "default"

// SocketPath is where an agent of this name listens.
func SocketPath(name string) string { return "/run/sixpn/" + name + ".sock" }

// NewSocketClient returns a client of the agent that listens on a unix socket.
// Nobody listens there while an agent starts, so it tries again for as long as
// patience lasts. Give each of its answers to Check.
func NewSocketClient(socket string, patience time.Duration) (*ClientWithResponses, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialSocket(ctx, socket, patience)
			return conn, explainDial(socket, err)
		},
	}
	return NewClientWithResponses("http://sixpn", WithHTTPClient(&http.Client{Transport: transport}))
}

func dialSocket(ctx context.Context, socket string, patience time.Duration) (net.Conn, error) {
	giveUp := time.Now().Add(patience)
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if !nobodyListens(err) || !time.Now().Before(giveUp) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(dialInterval):
		}
	}
}

// dialInterval is between two tries to reach an agent that is not there yet.
const dialInterval = 20 * time.Millisecond

func nobodyListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// noAgent is that nobody listens.
type noAgent struct {
	message string
	cause   error
}

func (e *noAgent) Error() string { return e.message }
func (e *noAgent) Unwrap() error { return e.cause }

func explainDial(socket string, err error) error {
	switch {
	case err == nil:
		return nil
	case nobodyListens(err):
		return &noAgent{fmt.Sprintf("no agent listens on %s; start one with: %s", socket, startCommand(socket)), err}
	case errors.Is(err, fs.ErrPermission):
		return &noAgent{fmt.Sprintf("the agent's socket %s belongs to root and you are user %d; use sudo", socket, os.Getuid()), err}
	}
	return err
}

// startCommand starts the agent whose socket this is.
func startCommand(socket string) string {
	name, ours := strings.CutSuffix(path.Base(socket), ".sock")
	if !ours || name == DefaultName || socket != SocketPath(name) {
		return "sixpn agent"
	}
	return "sixpn agent --name " + name
}

// Answer is what every method of ClientWithResponses returns.
type Answer interface {
	StatusCode() int
	GetBody() []byte
	GetJSONDefault() *Failure
}

// Check turns an answer that is no success into an *Error, and an error of the
// transport into one that says what to do about it.
func Check(answer Answer, err error) error {
	if err != nil {
		var none *noAgent
		if errors.As(err, &none) {
			return none
		}
		return err
	}
	if answer.StatusCode() < http.StatusBadRequest {
		return nil
	}
	return failureOf(answer.StatusCode(), answer.GetBody())
}

// CheckResponse is Check for the methods that leave the body to be read.
func CheckResponse(r *http.Response, err error) error {
	if err != nil {
		return Check(nil, err)
	}
	if r.StatusCode < http.StatusBadRequest {
		return nil
	}
	defer r.Body.Close()
	var failure Failure
	if err := json.NewDecoder(r.Body).Decode(&failure); err != nil {
		return fmt.Errorf("the agent answered %s, and why cannot be read: %w", r.Status, err)
	}
	return &Error{r.StatusCode, failure}
}

func failureOf(code int, body []byte) error {
	var failure Failure
	if err := json.Unmarshal(body, &failure); err != nil {
		return fmt.Errorf("the agent answered %d, and why cannot be read: %w", code, err)
	}
	return &Error{code, failure}
}
