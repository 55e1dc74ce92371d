package loader

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another agent uses the state directory.
var ErrLocked = errors.New("another agent uses this state directory")

const (
	// orphanPatience is how long what an agent that is no more had begun may take.
	orphanPatience = 5 * time.Second
	orphanInterval = 5 * time.Millisecond
)

// Lock takes the state directory for this process, before any pin is opened. The
// kernel lets go of it when the process ends, however it ends; but should it be killed
// while it starts another program, then only when that has taken its place in the
// child, which has all that the parent had until then. So a lock whose holder is no
// more is waited for.
func Lock(dir string) (io.Closer, error) {
	end := time.Now().Add(orphanPatience)
	return lock(dir, func() bool {
		time.Sleep(orphanInterval)
		return time.Now().Before(end)
	})
}

// lock calls pause, as long as that is true, before it tries again.
func lock(dir string, pause func() bool) (io.Closer, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		holder := holderOf(file)
		if errors.Is(err, unix.EWOULDBLOCK) && !isProcess(holder) && pause() {
			continue
		}
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by process %s; stop it, or give this agent another --state-dir",
				ErrLocked, path, holder)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// Whoever is refused needs the number.
	if err := errors.Join(file.Truncate(0), func() error { _, err := fmt.Fprintln(file, os.Getpid()); return err }()); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return file, nil
}

// holderOf is what the holder of a lock has written.
func holderOf(file *os.File) string {
	content := make([]byte, 20)
	n, _ := file.ReadAt(content, 0)
	return strings.TrimSpace(string(content[:n]))
}

// isProcess says whether a number is that of a process, as far as can be seen from
// here: in another PID namespace there may be one that is not.
func isProcess(number string) bool {
	pid, err := strconv.Atoi(number)
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
