package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Logs writes what a Machine's command wrote, of all its runs that are still
// kept, to w. With follow it goes on with what comes until ctx ends, which is
// no error, or the Machine is removed. What was written before ctx ended is all
// there: who ends it when a command has ended misses nothing.
func (d *Driver) Logs(ctx context.Context, id string, follow bool, w io.Writer) error {
	return d.readLogs(ctx, id, follow, &logReader{next: -1, w: w})
}

// StampedLogs is Logs with the time before each line when it was written, as RFC 3339 has
// it, in UTC with nine digits of the second, and a space.
func (d *Driver) StampedLogs(ctx context.Context, id string, follow bool, w io.Writer) error {
	return d.readLogs(ctx, id, follow, &logReader{next: -1, w: w, stamped: true})
}

func (d *Driver) readLogs(ctx context.Context, id string, follow bool, r *logReader) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("machine id %q is malformed, expected 1 to 14 of a-z and 0-9", id)
	}
	dir := filepath.Join(d.directory(id), logDirectory)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("machine %s has no logs on this host: %w", id, err)
	}
	r.dir = dir
	defer r.close()
	for {
		if err := r.readAvailable(); err != nil {
			return err
		}
		if !follow {
			return nil
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return r.readAvailable()
		case <-time.After(d.config.FollowInterval):
		}
	}
}

// logReader reads the files of a log in their order while they grow.
type logReader struct {
	dir     string
	w       io.Writer
	file    *os.File // nil before the first
	next    int      // the last file's number
	pending []byte   // the begin of a line that is not whole yet
	stamped bool
	inside  bool // a line, of which a piece was written
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// readAvailable writes all lines that are there.
func (r *logReader) readAvailable() error {
	for {
		// Looked up before reading: when a later file exists by now, the current
		// one gets no more than what the read below finds.
		later, err := r.later()
		if err != nil {
			return err
		}
		if r.file != nil {
			if err := r.drain(); err != nil {
				return err
			}
		}
		if later < 0 {
			return nil
		}
		f, err := os.Open(logPath(r.dir, later))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by the rotation just now
		}
		if err != nil {
			return err
		}
		r.close()
		r.file, r.next, r.pending = f, later, nil
	}
}

// later is the number of the first file after the current one, -1 if none.
func (r *logReader) later() (int, error) {
	numbers, err := logNumbers(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return -1, nil
	}
	for _, n := range numbers {
		if n > r.next {
			return n, err
		}
	}
	return -1, err
}

// drain writes the rest of the current file.
func (r *logReader) drain() error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := r.file.Read(buffer)
		r.pending = append(r.pending, buffer[:n]...)
		if writeErr := r.writeLines(); writeErr != nil {
			return writeErr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *logReader) writeLines() error {
	var out []byte
	for {
		end := bytes.IndexByte(r.pending, '\n')
		if end < 0 {
			break
		}
		at, _, content, full, err := parseLogLine(r.pending[:end])
		if err != nil {
			return err
		}
		if r.stamped && !r.inside {
			out = append(at.AppendFormat(out, logTimeFormat), ' ')
		}
		out, r.inside = append(out, content...), !full
		if full {
			out = append(out, '\n')
		}
		r.pending = r.pending[end+1:]
	}
	if len(out) == 0 {
		return nil
	}
	_, err := r.w.Write(out)
	return err
}
