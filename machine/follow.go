package machine

import (
	"bufio"
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
	return d.LogsAfter(ctx, id, "", false, follow, w)
}

// LogsAfter is Logs from the first line that was written at a time, which stamped lines
// have, or from the oldest if none of that time is kept; empty: from the oldest. stamped
// has each line begin with the time when it was written, as RFC 3339 has it, in UTC with
// nine digits of the second, and a space.
func (d *Driver) LogsAfter(ctx context.Context, id, after string, stamped, follow bool, w io.Writer) error {
	r := &logReader{next: -1, w: w, stamped: stamped}
	if !idPattern.MatchString(id) {
		return fmt.Errorf("machine id %q is malformed, expected 1 to 14 of a-z and 0-9", id)
	}
	dir := filepath.Join(d.directory(id), logDirectory)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("machine %s has no logs on this host: %w", id, err)
	}
	r.dir = dir
	defer r.close()
	if after != "" {
		if err := r.seek(after); err != nil {
			return err
		}
	}
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

// seek goes to the first line of a time, if there is one.
func (r *logReader) seek(stamp string) error {
	numbers, err := logNumbers(r.dir)
	if err != nil {
		return err
	}
	inside := false // a line of which a piece was read
	for _, number := range numbers {
		f, err := os.Open(logPath(r.dir, number))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by the rotation just now
		}
		if err != nil {
			return err
		}
		at, found, err := findStamp(f, stamp, &inside)
		if err == nil && found {
			_, err = f.Seek(at, io.SeekStart)
			r.file, r.next = f, number
			return err
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// findStamp is where in a file the first line of a time begins. inside is whether the
// file goes on with a line of the one before.
func findStamp(f io.Reader, stamp string, inside *bool) (at int64, found bool, err error) {
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		if !*inside && bytes.HasPrefix(line, []byte(stamp+" ")) {
			return at, true, nil
		}
		_, _, full, err := parseLogLine(line[:len(line)-1])
		if err != nil {
			return 0, false, err
		}
		*inside = !full
		at += int64(len(line))
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
		at, content, full, err := parseLogLine(r.pending[:end])
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
