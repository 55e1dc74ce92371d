package state_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/state"
)

// writerDirectory makes this test binary a process that only writes to a store.
const writerDirectory = "SIXPN_TEST_WRITER_DIRECTORY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDirectory); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeForever creates orgs and prints the slug of each that is acknowledged.
func writeForever(dir string) error {
	ctx, log := context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil))
	e, err := state.StartEmbedded(ctx, state.EmbeddedConfig{Dir: dir, Log: log})
	if err != nil {
		return err
	}
	s, err := state.Open(ctx, e.Client(), log)
	if err != nil {
		return err
	}
	for i := len(s.Snapshot().Orgs); ; i++ {
		slug := fmt.Sprintf("org-%d", i)
		if _, _, err := s.CreateOrg(ctx, slug, ""); err != nil {
			return err
		}
		fmt.Println(slug)
	}
}

// TestKilledAtAnyInstant kills a writing process after times that cover its first
// start, its later starts and its writing.
func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	var acknowledged []string
	for i := range 14 {
		acknowledged = append(acknowledged, killedWriter(t, dir, time.Duration(i+1)*70*time.Millisecond)...)
	}
	s := open(t, startClosing(t, dir))
	snapshot := s.Snapshot()
	if len(acknowledged) == 0 {
		t.Fatal("no process lived long enough to write: nothing was tested")
	}
	for _, slug := range acknowledged {
		if _, ok := snapshot.Orgs[slug]; !ok {
			t.Errorf("%s was acknowledged and is gone", slug)
		}
		if _, ok := snapshot.NetworkNamed(slug, ""); !ok {
			t.Errorf("%s has lost its network", slug)
		}
	}
	t.Logf("%d orgs acknowledged, %d there", len(acknowledged), len(snapshot.Orgs))
}

// killedWriter runs a writer for a while and returns what it acknowledged.
func killedWriter(t *testing.T, dir string, life time.Duration) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), life)
	defer cancel()
	var errors bytes.Buffer
	// The end of ctx is a SIGKILL.
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), writerDirectory+"="+dir)
	cmd.Stderr = &errors
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var slugs []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		slugs = append(slugs, lines.Text())
	}
	if err := cmd.Wait(); ctx.Err() == nil {
		t.Fatalf("the writer ended by itself: %v\n%s", err, &errors)
	}
	return slugs
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	e := start(t, dir)
	w := populate(t, open(t, e))
	ctx := within(t)
	m := w.machine(t, "web-1")
	_, _, err := w.AllocateVIP(ctx, "web", "", "")
	must(t, err)
	before := open(t, e).Snapshot()
	must(t, e.Close())

	s := open(t, startClosing(t, dir))
	after := s.Snapshot()
	if diff := cmp.Diff(before, after, cmpopts.IgnoreUnexported(state.Snapshot{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("the snapshot changed (-before +after):\n%s", diff)
	}
	w.Store = s
	if second := w.machine(t, "web-2"); second.Number != m.Number+1 {
		t.Errorf("the second Machine has number %v, want the one after %v", second.Number, m.Number)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	startClosing(t, dir)
	_, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t)})
	refused(t, err, state.Conflict, "state directory")
}

func TestTwoStoresSideBySide(t *testing.T) {
	t.Parallel()
	for range 2 {
		populate(t, open(t, startClosing(t, directory(t))))
	}
}

// TestEveryStoreIsItsOwn: members of two stores must never take each other for one of
// theirs, and a store stays who it is.
func TestEveryStoreIsItsOwn(t *testing.T) {
	t.Parallel()
	type id struct{ cluster, member uint64 }
	idOf := func(dir string) id {
		e := start(t, dir)
		defer func() { must(t, e.Close()) }()
		answer, err := e.Client().Get(within(t), "any")
		must(t, err)
		return id{answer.Header.ClusterId, e.MemberID()}
	}
	dir := directory(t)
	first := idOf(dir)
	if again := idOf(dir); again != first {
		t.Errorf("after a start it is %x, was %x", again, first)
	}
	if other := idOf(directory(t)); other.cluster == first.cluster || other.member == first.member {
		t.Errorf("another one is %x, as the first, %x", other, first)
	}
}

func TestLongPathIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(directory(t), strings.Repeat("x", 100))
	_, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t)})
	refused(t, err, state.Invalid, "state directory")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory was made all the same: %v", err)
	}
}

func TestDamagedFilesAreAnError(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	must(t, start(t, dir).Close())
	must(t, os.WriteFile(filepath.Join(dir, "etcd", "member", "snap", "db"), bytes.Repeat([]byte("damage"), 10000), 0o600))
	_, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	refused(t, err, state.Unavailable, "state directory")
}

func TestWaitTellsThatTheServerStopped(t *testing.T) {
	t.Parallel()
	e := start(t, directory(t))
	ended := make(chan error, 1)
	go func() { ended <- e.Wait(within(t)) }()
	must(t, e.Close())
	refused(t, <-ended, state.Unavailable, "")
}

// TestFullStore fills it with Machines; what is there can still be read and removed.
func TestFullStore(t *testing.T) {
	t.Parallel()
	e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: directory(t), Log: logTo(t), Quota: 1 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, e.Close()) })
	w := populate(t, open(t, e))
	n := w.newMachine("")
	n.Config.Env["A"] = strings.Repeat("a", 60<<10)
	var last state.Machine
	for {
		m, _, err := w.CreateMachine(within(t), n)
		if err != nil {
			refused(t, err, state.Exhausted, "")
			break
		}
		last = m
	}
	if _, ok := open(t, e).Snapshot().Machines[last.ID]; !ok {
		t.Error("what was acknowledged cannot be read")
	}
	_, err = w.DestroyMachine(within(t), last.ID)
	must(t, err)
}

// TestOnlyUnixSockets looks at every socket of a process of its own that runs a store.
func TestOnlyUnixSockets(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDirectory+"="+dir)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}()
	if lines := bufio.NewScanner(stdout); !lines.Scan() {
		t.Fatal("the writer did not write")
	}
	inodes := socketsOf(t, cmd.Process.Pid)
	if len(inodes) == 0 {
		t.Fatal("the process has no socket at all: nothing was tested")
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", cmd.Process.Pid, table))
		must(t, err)
		for line := range strings.Lines(string(content)) {
			if f := strings.Fields(line); len(f) > 9 && inodes[f[9]] {
				t.Errorf("it has a %s socket: %s", table, line)
			}
		}
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "etcd.sock"))
	must(t, err)
	must(t, conn.Close())
}

func socketsOf(t *testing.T, pid int) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}
