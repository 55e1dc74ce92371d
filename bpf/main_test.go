package bpf_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespaceMark names the process that already sits in a namespace of its own.
const namespaceMark = "SIXPN_BPF_TEST_PID"

// devices are network devices that do nothing but exist: BPF_PROG_TEST_RUN takes
// the ifindex of a real one only. The last is in no table.
var devices [10]uint32

func TestMain(m *testing.M) {
	runtime.LockOSThread()
	if err := enterNamespace(); err != nil {
		fmt.Fprintf(os.Stderr, "these tests need root and a network namespace of their own: %v\n", err)
		os.Exit(1)
	}
	runtime.UnlockOSThread()
	os.Exit(m.Run())
}

// enterNamespace puts the whole process, every thread that the runtime will ever
// start, into a new network namespace: a thread that leaves its namespace keeps
// it over exec, and exec ends all other threads. Workers of the fuzzer, being
// processes of their own, do the same again.
func enterNamespace() error {
	pid := strconv.Itoa(os.Getpid())
	if os.Getenv(namespaceMark) != pid {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := os.Setenv(namespaceMark, pid); err != nil {
			return err
		}
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	for i := 0; i < len(devices); i += 2 {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "device" + strconv.Itoa(i)
		peer := "device" + strconv.Itoa(i+1)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: peer}); err != nil {
			return fmt.Errorf("add %s: %w", attributes.Name, err)
		}
		for j, name := range []string{attributes.Name, peer} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("find %s: %w", name, err)
			}
			devices[i+j] = uint32(link.Attrs().Index)
		}
	}
	return nil
}
