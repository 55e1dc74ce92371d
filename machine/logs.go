package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// LogLimits bounds what is kept of a Machine's output. Zero is the default.
//
// Output is kept in files <n>.log with rising n. Each line is
//
//	2006-01-02T15:04:05.000000000Z stdout F what the command wrote
//
// in UTC, with F for a full line and P for a piece of one that goes on: the
// format of the Kubernetes container runtime interface.
type LogLimits struct {
	MaxBytes int64 `json:"max_bytes,omitempty"` // of one file; default 10 MiB
	MaxFiles int   `json:"max_files,omitempty"` // the oldest beyond are removed; default 5
}

const (
	defaultLogBytes = 10 << 20
	defaultLogFiles = 5
	maxLogLine      = 16 << 10 // longer lines are kept in pieces
	logTimeFormat   = "2006-01-02T15:04:05.000000000Z"
)

// logWriter appends to a Machine's log. Several streams may be copied at once.
type logWriter struct {
	dir    string
	limits LogLimits

	mu     sync.Mutex
	file   *os.File
	number int
	size   int64
}

// newLogWriter continues the newest file of dir.
func newLogWriter(dir string, limits LogLimits) (*logWriter, error) {
	setDefault(&limits.MaxBytes, defaultLogBytes)
	setDefault(&limits.MaxFiles, defaultLogFiles)
	numbers, err := logNumbers(dir)
	if err != nil {
		return nil, err
	}
	w := &logWriter{dir: dir, limits: limits}
	if len(numbers) > 0 {
		w.number = numbers[len(numbers)-1]
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	// A crash of the host can leave half a line, which nothing may be added to.
	if w.size > 0 && !endsWithNewline(w.file.Name()) {
		return w, w.rotate()
	}
	return w, nil
}

// open continues or begins file number w.number.
func (w *logWriter) open() error {
	f, err := os.OpenFile(logPath(w.dir, w.number), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, info.Size()
	return nil
}

// rotate begins the next file and removes those beyond the limit.
func (w *logWriter) rotate() error {
	old := w.file
	w.number++
	if err := w.open(); err != nil {
		w.number--
		return err
	}
	old.Close()
	numbers, err := logNumbers(w.dir)
	if err != nil {
		return err
	}
	for len(numbers) > w.limits.MaxFiles {
		if err := os.Remove(logPath(w.dir, numbers[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		numbers = numbers[1:]
	}
	return nil
}

// copyFrom keeps what a stream brings until it ends or its deadline passes. It
// reads on when writing fails, so that a full disk does not stop the command,
// and returns the first failure at the end.
func (w *logWriter) copyFrom(stream string, r io.Reader) error {
	var failure error
	buffer := make([]byte, 0, 2*maxLogLine)
	for {
		n, err := r.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		lines, rest := splitLines(buffer, err != nil)
		if writeErr := w.write(stream, lines); failure == nil {
			failure = writeErr
		}
		buffer = buffer[:copy(buffer, rest)]
		if err != nil {
			return failure
		}
	}
}

// logLine is a line, or a piece of one.
type logLine struct {
	content []byte
	full    bool
}

// splitLines cuts b at newlines and at the longest length. What is left is the
// begin of a line that may go on, nothing if final. Lines point into b.
func splitLines(b []byte, final bool) (lines []logLine, rest []byte) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		switch {
		case end >= 0 && end <= maxLogLine:
			lines = append(lines, logLine{b[:end], true})
			b = b[end+1:]
		case len(b) >= maxLogLine:
			lines = append(lines, logLine{b[:maxLogLine], false})
			b = b[maxLogLine:]
		case final:
			return append(lines, logLine{b, true}), nil
		default:
			return lines, b
		}
	}
	return lines, nil
}

func (w *logWriter) write(stream string, lines []logLine) error {
	if len(lines) == 0 {
		return nil
	}
	prefix := time.Now().UTC().Format(logTimeFormat) + " " + stream
	var out []byte
	for _, line := range lines {
		tag := " P "
		if line.full {
			tag = " F "
		}
		out = append(append(append(append(out, prefix...), tag...), line.content...), '\n')
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size > 0 && w.size+int64(len(out)) > w.limits.MaxBytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(out)
	w.size += int64(n)
	return err
}

func (w *logWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.file.Sync(), w.file.Close())
}

func logPath(dir string, number int) string {
	return filepath.Join(dir, strconv.Itoa(number)+".log")
}

// logNumbers lists the files of a log, oldest first.
func logNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func endsWithNewline(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var last [1]byte
	if _, err := f.Seek(-1, io.SeekEnd); err != nil {
		return false
	}
	_, err = io.ReadFull(f, last[:])
	return err == nil && last[0] == '\n'
}

// parseLogLine takes a kept line (without its newline) apart.
func parseLogLine(line []byte) (at time.Time, content []byte, full bool, err error) {
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) != 4 || (string(parts[2]) != "F" && string(parts[2]) != "P") {
		return time.Time{}, nil, false, fmt.Errorf("log line %q is malformed, expected \"time stream F|P content\"", line)
	}
	at, err = time.Parse(logTimeFormat, string(parts[0]))
	return at, parts[3], string(parts[2]) == "F", err
}
