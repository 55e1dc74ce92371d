package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/sixpn/sixpn/netns"
)

func inode(t *testing.T, n *netns.Namespace) (name string) {
	t.Helper()
	if err := n.Do(func() (err error) {
		name, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCreateAndDo(t *testing.T) {
	home, config := newHost(t)
	outsideName := inode(t, nil)
	first := inode(t, home)
	if first == outsideName {
		t.Fatal("Do did not enter the namespace")
	}
	if again := inode(t, nil); again != outsideName {
		t.Errorf("after Do the process is in %s, expected %s", again, outsideName)
	}
	again, err := netns.Create(home.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := inode(t, again); got != first {
		t.Errorf("Create made %s, expected the existing %s", got, first)
	}
	// What a Create that was killed before its mount leaves behind.
	if err := os.WriteFile(config.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(config.Path); !errors.Is(err, netns.ErrNotNamespace) {
		t.Errorf("Open of a plain file: %v, expected ErrNotNamespace", err)
	}
	healed, err := netns.Create(config.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer healed.Close()
	if got := inode(t, healed); got == first || got == outsideName {
		t.Errorf("Create over a plain file gave %s, which is not new", got)
	}
	if _, err := netns.Open(filepath.Join(filepath.Dir(config.Path), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing: %v, expected os.ErrNotExist", err)
	}
}

func TestCreateAtOnce(t *testing.T) {
	home, _ := newHost(t)
	dir := filepath.Join(filepath.Dir(filepath.Dir(home.Path())), "at-once")
	path := filepath.Join(dir, "one")
	var group sync.WaitGroup
	names := make([]string, 8)
	for i := range names {
		group.Go(func() {
			n, err := netns.Create(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer n.Close()
			_ = n.Do(func() (err error) { names[i], err = os.Readlink("/proc/thread-self/ns/net"); return err })
		})
	}
	group.Wait()
	for _, name := range names[1:] {
		if name != names[0] {
			t.Errorf("two namespaces at one path: %s and %s", name, names[0])
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	}
	// The directory is a mount point as well.
	if err := netns.Delete(dir); err != nil {
		t.Error(err)
	}
}

func TestDoReportsErrorsAndExits(t *testing.T) {
	home, _ := newHost(t)
	want := errors.New("mine")
	if err := home.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do: %v, expected %v", err, want)
	}
	if err := home.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do took a Goexit for success")
	}
}
