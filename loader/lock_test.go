package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// held is a lock that a process of a number has, or a child that it had just begun to
// start when it was killed.
func held(t *testing.T, pid int) (dir string, letGo func()) {
	t.Helper()
	dir = t.TempDir()
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err == nil {
		_, err = fmt.Fprintln(file, pid)
	}
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return dir, func() { _ = file.Close() }
}

// ended is the number of a process that is no more.
func ended(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestLockOfAKilledAgentIsWaitedFor(t *testing.T) {
	dir, letGo := held(t, ended(t))
	waits := 0
	mine, err := lock(dir, func() bool {
		waits++
		if waits == 3 {
			letGo()
		}
		return true
	})
	if err != nil || waits != 3 {
		t.Fatalf("after %d waits: %v, expected to have it after 3", waits, err)
	}
	if err := mine.Close(); err != nil {
		t.Error(err)
	}
}

func TestLockIsNotWaitedForInVain(t *testing.T) {
	for name, row := range map[string]struct{ pid, waits int }{
		"of an agent that runs":         {os.Getpid(), 0},
		"of a child that never lets go": {ended(t), 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := held(t, row.pid)
			waits := 0
			_, err := lock(dir, func() bool { waits++; return false })
			if !errors.Is(err, ErrLocked) || waits != row.waits {
				t.Errorf("after %d waits: %v, expected %v after %d", waits, err, ErrLocked, row.waits)
			}
		})
	}
}
