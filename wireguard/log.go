package wireguard

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// logFile is in Config.Dir.
	logFile = "engine.log"
	// logSize is where an engine's log begins anew; the part before it is kept.
	logSize = 1 << 20
	// What an engine may log in a second: an endpoint that cannot be reached is news
	// once, not for each packet.
	linesASecond = 10
)

// engineLog writes an engine's log to standard error, which is the log's file: the
// runtime's last words end there too.
type engineLog struct {
	path string
	size int64 // where the file begins anew

	mu         sync.Mutex
	second     time.Time
	lines      int
	suppressed int
}

// printf writes one line. It is called by all of the engine's workers.
func (l *engineLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.second) >= time.Second {
		if l.suppressed > 0 {
			l.write(now, fmt.Sprintf("%d more messages in the second before", l.suppressed))
		}
		l.second, l.lines, l.suppressed = now, 0, 0
	}
	if l.lines++; l.lines > linesASecond {
		l.suppressed++
		return
	}
	l.write(now, fmt.Sprintf(format, args...))
}

func (l *engineLog) write(now time.Time, line string) {
	l.rotate()
	fmt.Fprintf(os.Stderr, "%s %s\n", now.UTC().Format(time.RFC3339Nano), line)
}

// rotate begins a new file when the old one is full. An engine goes on without a
// log rather than end: what fails here has nowhere to be said.
func (l *engineLog) rotate() {
	info, err := os.Stderr.Stat()
	if err != nil || info.Size() < l.size {
		return
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return
	}
	f, err := openLog(l.path)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}

// openLog opens a log to write at its end.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}
