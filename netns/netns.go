// Package netns makes network namespaces, pins them by path, runs code in them,
// and builds the private namespace that holds the daemon's own sockets.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// nsfsMagic is the file system type of a namespace file (linux/magic.h, NSFS_MAGIC).
const nsfsMagic = 0x6e736673

// Namespace is an open network namespace. It lives as long as it is pinned, open,
// or has a process or a socket in it.
type Namespace struct {
	path string
	file *os.File
}

// Create makes a new network namespace and pins it at path by a bind mount, the
// way `ip netns add` does, or opens the one that is pinned there already. The
// directory of path becomes a shared mount, so that Delete reaches the copies
// of it in other mount namespaces too.
func Create(path string) (*Namespace, error) {
	unlock, err := prepareDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if n, err := Open(path); err == nil {
		return n, nil
	} else if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNotNamespace) {
		return nil, err
	}
	// A plain file is what a killed Create leaves behind: mount over it.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the mount point of a namespace: %w", err)
	}
	_ = file.Close()
	if err := onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace (root is needed): %w", err)
		}
		own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(own, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin the namespace at %s: %w", path, err)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return Open(path)
}

// ErrNotNamespace says that a path exists and is no network namespace.
var ErrNotNamespace = errors.New("not a network namespace")

// Open opens a namespace by path: a pin, or /proc/PID/ns/net. The error wraps
// os.ErrNotExist or ErrNotNamespace where that is the reason.
func Open(path string) (*Namespace, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &stat); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open namespace %s: %w", path, err)
	}
	if stat.Type != nsfsMagic {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotNamespace)
	}
	return &Namespace{path, file}, nil
}

// FromFile takes over an open namespace file, e.g. one received over a socket.
func FromFile(file *os.File) *Namespace { return &Namespace{file.Name(), file} }

// Current opens the network namespace of the calling thread.
func Current() (*Namespace, error) { return Open("/proc/thread-self/ns/net") }

// Path is where the namespace was opened.
func (n *Namespace) Path() string { return n.path }

// File is the namespace's descriptor; it belongs to the Namespace.
func (n *Namespace) File() *os.File { return n.file }

// Close closes the descriptor; the pin and the namespace stay.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs fn on a thread that is inside the namespace, and waits for it.
// Sockets made by fn stay inside; goroutines started by fn do not run inside.
// A nil Namespace is the one of the process: fn runs on the calling thread.
func (n *Namespace) Do(fn func() error) error {
	if n == nil {
		return fn()
	}
	return onNewThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.path, err)
		}
		return fn()
	})
}

// onNewThread runs fn on a thread of its own, which ends with it: whatever fn did
// to the thread's namespaces, no other goroutine ever runs there.
func onNewThread(fn func() error) error {
	err := errors.New("the function called runtime.Goexit in another namespace")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// Only the main thread goes on, and would keep the namespace for ever. Held
			// here, it leaves the work to another.
			defer runtime.UnlockOSThread()
			err = onNewThread(fn)
			return
		}
		err = fn()
	}()
	<-done
	return err
}

// Delete unmounts the pin and removes its file; a missing one is no error. The
// namespace itself ends when nothing is inside any more.
func Delete(path string) error {
	// A pin made twice is mounted twice.
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unpin namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pin of a namespace: %w", err)
	}
	return nil
}

// prepareDirectory makes dir a shared mount point, and holds a lock on it: two
// agents that begin at once would mount it twice and hide each other's pins.
func prepareDirectory(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of namespaces: %w", err)
	}
	// The lock is on the parent: opening dir itself would hold the file below the mount.
	lock, err := os.OpenFile(filepath.Dir(dir), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock the directory of namespaces: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s: %w", filepath.Dir(dir), err)
	}
	unlock = func() { _ = lock.Close() }
	err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is no mount point yet
		if err = unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("make %s a shared mount point: %w", dir, err)
	}
	return unlock, nil
}
