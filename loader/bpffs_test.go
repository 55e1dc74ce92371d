package loader

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inOwnMounts runs fn on a thread with a mount namespace of its own.
func inOwnMounts(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its mounts
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

func TestAbsentFileSystemIsMounted(t *testing.T) {
	if err := inOwnMounts(func() error {
		for isBPF(bpffs) {
			if err := unix.Unmount(bpffs, unix.MNT_DETACH); err != nil {
				return err
			}
		}
		root := filepath.Join(bpffs, "sixpn", "test")
		for range 2 {
			if err := ensureRoot(root); err != nil {
				return err
			}
		}
		same(t, "it is a bpf file system", isBPF(root), true)
		stat, err := os.Stat(root)
		if err == nil {
			same(t, "mode", stat.Mode().Perm(), os.FileMode(0o700))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherFileSystemIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := ensureRoot(filepath.Join(dir, "sixpn", "test")); err == nil {
		t.Error("a directory on no bpf file system was taken")
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "what was made there", len(left), 0)
}
