package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const bpffs = "/sys/fs/bpf"

// loopback is the ifindex of lo in every namespace.
const loopback = 1

// probe asks for the feature rather than the version: distributions backport.
func probe() error {
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("ask the kernel for its tcx programs (root, or CAP_BPF and CAP_NET_ADMIN, is needed): %w", err)
	default:
		return fmt.Errorf("%w: %w", ErrKernel, err)
	}
}

// ensureRoot makes the directory of pins, after mounting bpffs where it is absent.
// The mount ends with the mount namespace: an agent that has one of its own needs
// bpffs mounted outside before it starts, or its pins end with it.
func ensureRoot(root string) error {
	if below(root, bpffs) && !isBPF(bpffs) {
		if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
		}
	}
	existing := root
	for {
		if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
			break
		}
		existing = filepath.Dir(existing)
	}
	if !isBPF(existing) {
		return fmt.Errorf("%s is on no bpf file system: mount one there (mount -t bpf bpf DIR), or use a directory below %s", root, bpffs)
	}
	for _, dir := range []string{linksDir, xdpDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return fmt.Errorf("make the directory of pins: %w", err)
		}
	}
	return nil
}

func isBPF(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && uint32(stat.Type) == unix.BPF_FS_MAGIC
}

func below(path, dir string) bool {
	return strings.HasPrefix(filepath.Clean(path)+"/", dir+"/")
}

// pinner is what maps, programs and links have in common.
type pinner interface {
	Pin(string) error
	Close() error
}

// pinCopy pins a second reference: pinning the object itself would move its pin.
func pinCopy(copied pinner, path string) error {
	err := copied.Pin(path)
	if closed := copied.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	return nil
}
