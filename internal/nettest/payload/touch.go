package payload

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Touched says of each attempt whether it succeeded; what was refused has its
// error in Refused.
type Touched struct {
	Succeeded []string          `json:"succeeded"`
	Refused   map[string]string `json:"refused"`
}

// touchHost tries what nobody inside a Machine may do to its host.
//
//	touch-host -secret PATH -device NAME -pins DIR -pid N
//
// PATH is a file of the host's root, NAME a network device of the host, DIR the
// agent's directory of pinned eBPF objects, N a process of the host. What works
// is undone at once, so that it can be tried outside a Machine too.
func touchHost(_ context.Context, args []string, out io.Writer) error {
	var secret, device, pins string
	var pid int
	if _, err := flags(args, 0, "no argument", func(set *flag.FlagSet) {
		set.StringVar(&secret, "secret", "", "")
		set.StringVar(&device, "device", "", "")
		set.StringVar(&pins, "pins", "", "")
		set.IntVar(&pid, "pid", 0, "")
	}); err != nil {
		return err
	}
	attempts := []struct {
		name string
		try  func() error
	}{
		{"read a file of the host's root", func() error { _, err := os.ReadFile(secret); return err }},
		{"write to a file of the host's root", func() error {
			f, err := os.OpenFile(secret, os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"signal a process of the host", func() error { return syscall.Kill(pid, 0) }},
		{"see a network device of the host", func() error { _, err := net.InterfaceByName(device); return err }},
		{"list the pinned eBPF objects", func() error {
			found, err := filepath.Glob(filepath.Join(pins, "*"))
			if err == nil && len(found) == 0 {
				err = os.ErrNotExist
			}
			return err
		}},
		{"make an eBPF map", makeMap},
		{"make a device node", func() error {
			path := filepath.Join(os.TempDir(), "sixpn-touch-host")
			defer os.Remove(path)
			return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))
		}},
	}
	result := Touched{Succeeded: []string{}, Refused: map[string]string{}}
	for _, attempt := range attempts {
		if err := attempt.try(); err != nil {
			result.Refused[attempt.name] = err.Error()
			continue
		}
		result.Succeeded = append(result.Succeeded, attempt.name)
	}
	return report(out, result)
}

// makeMap asks the kernel for the smallest eBPF map there is.
func makeMap() error {
	// The beginning of union bpf_attr for BPF_MAP_CREATE: type array, key and value
	// of 4 bytes, one element.
	attr := [4]uint32{2, 4, 4, 1}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return os.NewSyscallError("bpf BPF_MAP_CREATE", errno)
	}
	return unix.Close(int(fd))
}
