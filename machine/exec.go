package machine

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// ExecRequest is a command to run inside a running Machine. It gets the
// Machine's environment, users, namespaces and cgroup.
type ExecRequest struct {
	Exec    []string
	Env     []string // KEY=VALUE, added to the Machine's
	WorkDir string   // default the Machine's
	// Stdin may be nil: nothing to read. A *os.File of any of the three is
	// handed over as it is, anything else is copied through a pipe.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil: thrown away
}

// Exec runs a command inside and returns its exit code, 128+signal if a signal
// ended it. The error says why it could not run. When ctx ends first the
// command is killed and the error is ctx's.
func (p *Process) Exec(ctx context.Context, r ExecRequest) (int, error) {
	s := &execStreams{}
	defer s.close()
	files, err := s.open(r)
	if err != nil {
		return 0, fmt.Errorf("machine %s: exec: %w", p.ID(), err)
	}
	for _, f := range s.theirs {
		// So that the command may open /dev/stdout and the like again.
		if err := f.Chown(int(p.record.FirstID), int(p.record.FirstID)); err != nil {
			return 0, fmt.Errorf("machine %s: exec: %w", p.ID(), err)
		}
	}
	reply, received, err := p.request(ctx, message{Op: opExec, Exec: &execSpec{Exec: r.Exec, Env: r.Env, WorkDir: r.WorkDir}}, files...)
	closeAll(received)
	s.drain(p.driver.config.ExecDrain)
	if err != nil {
		return 0, err
	}
	return reply.Code, s.failure
}

// execStreams connects a command's standard streams to readers and writers.
type execStreams struct {
	theirs  []*os.File // pipe ends that the command gets
	nulls   []*os.File
	outputs []*os.File // read ends of what it writes
	input   *os.File   // write end of what it reads

	copying sync.WaitGroup
	mu      sync.Mutex
	failure error
}

// open returns the three descriptors for the command.
func (s *execStreams) open(r ExecRequest) ([]*os.File, error) {
	stdin, err := s.openInput(r.Stdin)
	if err != nil {
		return nil, err
	}
	stdout, err := s.openOutput(r.Stdout)
	if err != nil {
		return nil, err
	}
	if r.Stderr != nil && r.Stderr == r.Stdout {
		return []*os.File{stdin, stdout, stdout}, nil
	}
	stderr, err := s.openOutput(r.Stderr)
	if err != nil {
		return nil, err
	}
	return []*os.File{stdin, stdout, stderr}, nil
}

func (s *execStreams) openInput(r io.Reader) (*os.File, error) {
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	if r == nil {
		return s.null(os.O_RDONLY)
	}
	theirs, mine, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.theirs = append(s.theirs, theirs)
	s.input = mine
	go func() {
		// Not waited for: a reader such as a terminal may never end. It fails
		// when the command's end is closed, which is none of our business.
		_, _ = io.Copy(mine, r)
		mine.Close()
	}()
	return theirs, nil
}

func (s *execStreams) openOutput(w io.Writer) (*os.File, error) {
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	if w == nil {
		return s.null(os.O_WRONLY)
	}
	mine, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.theirs = append(s.theirs, theirs)
	s.outputs = append(s.outputs, mine)
	s.copying.Go(func() {
		_, err := io.Copy(w, mine)
		if err != nil && !os.IsTimeout(err) {
			s.mu.Lock()
			s.failure = err
			s.mu.Unlock()
		}
	})
	return theirs, nil
}

func (s *execStreams) null(flag int) (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err == nil {
		s.nulls = append(s.nulls, f)
	}
	return f, err
}

// drain waits until the output has ended, for at most d once the command has.
func (s *execStreams) drain(d time.Duration) {
	closeAll(s.theirs)
	for _, f := range s.outputs {
		_ = f.SetReadDeadline(time.Now().Add(d))
	}
	s.copying.Wait()
}

func (s *execStreams) close() {
	closeAll(s.theirs)
	closeAll(s.nulls)
	closeAll(s.outputs)
	if s.input != nil {
		s.input.Close()
	}
	s.copying.Wait()
}
