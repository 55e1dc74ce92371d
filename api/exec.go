package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/google/shlex"
)

func (o *operations) ExecMachine(ctx context.Context, r ExecMachineRequestObject) (ExecMachineResponseObject, error) {
	words, err := commandOf(*r.Body)
	if err != nil {
		return nil, err
	}
	stdin, encode, err := encodingOf(*r.Body)
	if err != nil {
		return nil, err
	}
	m, err := o.started(ctx, r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	limited := ctx
	if r.Body.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, time.Duration(r.Body.Timeout)*time.Second)
		defer cancel()
	}
	stdout, stderr := &head{limit: o.config.MaxOutput}, &head{limit: o.config.MaxOutput}
	command := Command{Exec: words, Stdout: stdout, Stderr: stderr}
	if len(stdin) > 0 {
		command.Stdin = bytes.NewReader(stdin)
	}
	code, err := o.config.Machines.Exec(limited, m.ID, command)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil, refuse(http.StatusRequestTimeout, StatusDeadline, "timeout",
			"%s was killed, it had not ended after %d seconds", words[0], r.Body.Timeout)
	case err != nil && ctx.Err() == nil:
		return nil, refuse(http.StatusUnprocessableEntity, StatusFailedPrecondition, "", "%v", err)
	case err != nil:
		return nil, err
	}
	return ExecMachine200JSONResponse(ExecResult{
		ExitCode: code, Stdout: encode(stdout.Bytes()), Stderr: encode(stderr.Bytes()),
		Truncated: stdout.cut || stderr.cut, Encoding: r.Body.Encoding,
	}), nil
}

// commandOf is the words that a request wants run.
func commandOf(r ExecRequest) ([]string, error) {
	switch {
	case r.Container != "":
		return nil, invalid("container", "container is %q, expected nothing: a Machine has no containers", r.Container)
	case r.Timeout < 0:
		return nil, invalid("timeout", "timeout is %d, expected 0 (none) or seconds", r.Timeout)
	case len(r.Command) > 0 && r.Cmd != "":
		return nil, invalid("cmd", "there are both cmd and command, expected one of them")
	}
	words := r.Command
	if r.Cmd != "" {
		var err error
		if words, err = shlex.Split(r.Cmd); err != nil {
			return nil, invalid("cmd", "cmd cannot be split into words: %v; use command instead", err)
		}
	}
	if len(words) == 0 || words[0] == "" {
		return nil, invalid("command", "there is no command, expected its words")
	}
	return words, nil
}

// encodingOf is what a command reads, and how what it writes is answered.
func encodingOf(r ExecRequest) (stdin []byte, encode func([]byte) string, err error) {
	switch r.Encoding {
	case "":
		return []byte(r.Stdin), func(b []byte) string { return string(b) }, nil
	case "base64":
		stdin, err := base64.StdEncoding.DecodeString(r.Stdin)
		if err != nil {
			return nil, nil, invalid("stdin", "stdin is not base64, as encoding says: %v", err)
		}
		return stdin, base64.StdEncoding.EncodeToString, nil
	}
	return nil, nil, invalid("encoding", "encoding is %q, expected base64 or nothing, which is text", r.Encoding)
}

// head keeps the first bytes written to it.
type head struct {
	bytes.Buffer
	limit int
	cut   bool
}

func (h *head) Write(b []byte) (int, error) {
	keep := min(len(b), h.limit-h.Len())
	h.cut = h.cut || keep < len(b)
	h.Buffer.Write(b[:keep])
	return len(b), nil
}
