package main

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/api"
)

// source is what one Machine wrote, at the line that comes next.
type source struct {
	machine api.Machine
	body    io.Closer
	lines   *bufio.Reader
	at      time.Time
	line    []byte
}

// sources are a heap, the earliest line first, of one moment those of the first Machine.
type sources []*source

func (s sources) Len() int { return len(s) }
func (s sources) Less(i, j int) bool {
	if s[i].at.Equal(s[j].at) {
		return s[i].machine.ID < s[j].machine.ID
	}
	return s[i].at.Before(s[j].at)
}
func (s sources) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)   { *s = append(*s, x.(*source)) }

func (s *sources) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// merge shows what Machines wrote until now in the order of time, as their hosts' clocks
// have it.
func (l *appLogs) merge(ctx context.Context, machines []api.Machine) error {
	var next sources
	defer func() {
		for _, s := range next {
			s.body.Close()
		}
	}()
	for _, m := range machines {
		s, err := l.open(ctx, m)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		next = append(next, s)
		if err := s.advance(); errors.Is(err, io.EOF) {
			s.body.Close()
			next = next[:len(next)-1]
		} else if err != nil {
			return err
		}
	}
	heap.Init(&next)
	for len(next) > 0 {
		first := next[0]
		if err := l.print(first.machine, first.line); err != nil {
			return err
		}
		switch err := first.advance(); {
		case errors.Is(err, io.EOF):
			first.body.Close()
			heap.Pop(&next)
		case err != nil:
			return err
		default:
			heap.Fix(&next, 0)
		}
	}
	return nil
}

// open begins to read what a Machine wrote; nil: it is gone.
func (l *appLogs) open(ctx context.Context, m api.Machine) (*source, error) {
	answer, err := l.client.MachineLogs(ctx, l.app, m.ID, &api.MachineLogsParams{Timestamps: true})
	err = api.CheckResponse(answer, err)
	if api.IsStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &source{machine: m, body: answer.Body, lines: bufio.NewReader(answer.Body)}, nil
}

// advance reads the next line, however long it is.
func (s *source) advance() error {
	line, err := s.lines.ReadBytes('\n')
	if len(line) == 0 {
		if errors.Is(err, io.EOF) {
			return err
		}
		return brokeOff(s.machine.ID, err)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return brokeOff(s.machine.ID, err)
	}
	stamp, rest, _ := bytes.Cut(line, []byte(" "))
	if s.at, err = time.Parse(time.RFC3339, string(stamp)); err != nil {
		return fmt.Errorf("the agent's answer cannot be read: %w", err)
	}
	s.line = rest
	return nil
}
