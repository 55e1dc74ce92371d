package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// etcdProcess is an etcd at one address that can be killed, and started with other data.
type etcdProcess struct {
	t            *testing.T
	client, peer string
	cmd          *exec.Cmd
	output       strings.Builder
}

func newEtcd(t *testing.T) *etcdProcess {
	port := freePorts(t)
	p := &etcdProcess{t: t, client: fmt.Sprintf("http://%v", port), peer: fmt.Sprintf("http://127.0.0.1:%d", port.Port()+1)}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("etcd said:\n%s", &p.output)
		}
	})
	return p
}

// start runs it until kill. Another token makes another cluster.
func (p *etcdProcess) start(dir, token string) {
	p.t.Helper()
	p.cmd = exec.Command("/usr/bin/etcd",
		"--name", "one", "--data-dir", dir, "--listen-client-urls", p.client, "--advertise-client-urls", p.client,
		"--listen-peer-urls", p.peer, "--initial-advertise-peer-urls", p.peer, "--initial-cluster", "one="+p.peer,
		"--initial-cluster-token", token)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	must(p.t, p.cmd.Start())
}

func (p *etcdProcess) kill() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // killed
	p.cmd = nil
}

// connect is a client that does not wait for the server.
func (p *etcdProcess) connect() *clientv3.Client {
	p.t.Helper()
	client, err := state.OpenRemote(within(p.t), state.RemoteConfig{Endpoints: []string{p.client}, Lazy: true})
	must(p.t, err)
	p.t.Cleanup(func() { _ = client.Close() })
	return client
}

// keepingFile is a store that keeps its last state, and does all of it quickly.
func (p *etcdProcess) keepingFile(file string) state.StoreConfig {
	return state.StoreConfig{
		Client: p.connect(), Log: logTo(p.t), File: file,
		SaveInterval: time.Millisecond, Patience: 500 * time.Millisecond, ProbeInterval: 20 * time.Millisecond,
	}
}

func openWith(t *testing.T, c state.StoreConfig) *state.Store {
	t.Helper()
	s, err := state.OpenStore(within(t), c)
	must(t, err)
	return s
}

// runUntil is run for a store that must end before the test does.
func runUntil(t *testing.T, s *state.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want the context's error", err)
		}
	}
}

// retrying repeats what fails while the store comes up.
func retrying(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	ctx := within(t)
	for {
		err := do(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil || state.KindOf(err) != state.Unavailable {
			t.Fatal(err)
		}
	}
}

// eventually waits for what no revision announces.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := within(t)
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// outage is a fleet whose store has just gone, and what a host of it kept on disk.
type outage struct {
	etcd     *etcdProcess
	dir      string // of etcd
	file     string
	snapshot *state.Snapshot // before
	machine  state.Machine
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	o := &outage{dir: filepath.Join(directory(t), "etcd"), file: filepath.Join(directory(t), "last.json")}
	o.etcd = newEtcd(t) // after its directory, so that it ends before that goes
	o.etcd.start(o.dir, "known")
	var s *state.Store
	config := o.etcd.keepingFile(o.file)
	retrying(t, func(ctx context.Context) (err error) { s, err = state.OpenStore(ctx, config); return err })
	stop := runUntil(t, s)
	w := populate(t, s)
	o.machine = w.machine(t, "web-1")
	_, revision, err := w.AllocateVIP(within(t), "web", "", "")
	must(t, err)
	o.snapshot = at(t, s, revision)
	stop() // which writes the last state
	o.etcd.kill()
	return o
}

// same checks that a snapshot is that of before the outage.
func (o *outage) same(t *testing.T, s *state.Snapshot) {
	t.Helper()
	encode := func(s *state.Snapshot) string {
		encoded, err := json.MarshalIndent([]any{s.Orgs, s.Networks, s.Apps, s.Machines, s.Hosts, len(s.VIPs), s.AppMachines("web"), s.AppVIPs("web")}, "", " ")
		must(t, err)
		return string(encoded)
	}
	if got, want := encode(s), encode(o.snapshot); got != want {
		t.Errorf("the state is\n%s\nwant\n%s", got, want)
	}
}

// TestAStartWithoutTheStore goes on with the last state, and converges once the store is
// back, by watch or, after a compaction, by reading everything.
func TestAStartWithoutTheStore(t *testing.T) {
	t.Parallel()
	for name, compacted := range map[string]bool{"by watch": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			config := o.etcd.keepingFile(o.file)
			began := time.Now()
			s := openWith(t, config)
			o.same(t, s.Snapshot())
			if _, away := s.Contact(); away == nil {
				t.Error("the store is there: nothing is tested")
			}
			if s.Snapshot().Revision != o.snapshot.Revision || s.Snapshot().Alarm() != "" {
				t.Errorf("revision %d, alarm %q; want %d and none", s.Snapshot().Revision, s.Snapshot().Alarm(), o.snapshot.Revision)
			}
			ctx, cancel := context.WithTimeout(within(t), config.Patience)
			_, _, err := s.CreateOrg(ctx, "unheard", "")
			cancel()
			refused(t, err, state.Unavailable, "")
			kv := watchKV(config.Client)
			defer runUntil(t, s)()

			o.etcd.start(o.dir, "known")
			other := o.etcd.connect()
			var writer *state.Store
			retrying(t, func(ctx context.Context) (err error) { writer, err = state.Open(ctx, other, logTo(t)); return err })
			if compacted {
				o.etcd.kill() // so that s does not see what follows
				o.etcd.start(o.dir, "known")
			}
			_, err = writer.DestroyMachine(within(t), o.machine.ID)
			must(t, err)
			_, revision, err := writer.CreateApp(within(t), "shop", "acme", "")
			must(t, err)
			after := at(t, s, revision)
			if _, ok := after.Apps["shop"]; !ok || len(after.Machines) != 0 {
				t.Errorf("after the outage there are apps %v, Machines %v", after.Apps, after.Machines)
			}
			if reads := kv.fullReads.Load(); reads != 0 && !compacted {
				t.Errorf("everything was read %d times, although a watch does", reads)
			}
			eventually(t, "the store answers", func() bool { at, away := s.Contact(); return away == nil && at.After(began) })
		})
	}
}

// TestACompactedStoreIsReadAnew: by a host that begins with a state that is older than
// what the store remembers.
func TestACompactedStoreIsReadAnew(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	config := o.etcd.keepingFile(o.file)
	s := openWith(t, config) // without the store
	o.etcd.start(o.dir, "known")
	client := o.etcd.connect()
	var writer *state.Store
	retrying(t, func(ctx context.Context) (err error) { writer, err = state.Open(ctx, client, logTo(t)); return err })
	_, err := writer.DestroyMachine(within(t), o.machine.ID)
	must(t, err)
	_, revision, err := writer.CreateApp(within(t), "shop", "acme", "")
	must(t, err)
	compactAway(t, client)
	kv := watchKV(config.Client)
	defer runUntil(t, s)()
	if after := at(t, s, revision); len(after.Machines) != 0 || len(after.Apps) != 2 {
		t.Errorf("there are apps %v, Machines %v", after.Apps, after.Machines)
	}
	if kv.fullReads.Load() == 0 {
		t.Error("nothing was read anew: nothing is tested")
	}
}

// TestAnotherStoreIsRefused: what it does not have is not gone, and nothing is written
// to it. When the known store is back, all goes on.
func TestAnotherStoreIsRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		token string
		fill  func(t *testing.T, o *outage, client *clientv3.Client) // the other one
		alarm string
	}{
		"wiped": {"known", func(*testing.T, *outage, *clientv3.Client) {}, "fleet -"},
		"wiped, and as far by now": {"known", func(t *testing.T, o *outage, client *clientv3.Client) {
			for range o.snapshot.Revision + 10 {
				_, err := client.Put(within(t), "/sixpn/v1/orgs/other", `{"slug":"other"}`)
				must(t, err)
			}
		}, "fleet -"},
		"wiped, with another fleet": {"known", func(t *testing.T, _ *outage, client *clientv3.Client) {
			s, err := state.Open(within(t), client, logTo(t))
			must(t, err)
			for i := range 10 {
				_, _, err = s.RegisterHost(within(t), fmt.Sprint("other-", i), "fra", 0)
				must(t, err)
			}
		}, "fleet "},
		"restored from a backup": {"known", func(t *testing.T, o *outage, client *clientv3.Client) {
			fleet := ""
			for _, line := range strings.Split(string(read(t, o.file)), "\n") {
				var head struct{ Fleet string }
				if json.Unmarshal([]byte(line), &head) == nil && head.Fleet != "" {
					fleet = head.Fleet
				}
			}
			_, err := client.Put(within(t), "/sixpn/v1/fleet", fleet)
			must(t, err)
		}, "revision "},
		"another cluster": {"other", func(*testing.T, *outage, *clientv3.Client) {}, "cluster "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			// One host is at work when the store is replaced, the other one begins afterwards.
			o.etcd.start(o.dir, "known")
			var working *state.Store
			config := o.etcd.keepingFile(o.file + ".working")
			retrying(t, func(ctx context.Context) (err error) { working, err = state.OpenStore(ctx, config); return err })
			defer runUntil(t, working)()
			eventually(t, "the file is there", func() bool { _, err := os.Stat(config.File); return err == nil })
			o.etcd.kill()
			o.etcd.start(filepath.Join(filepath.Dir(o.dir), "another"), row.token)
			client := o.etcd.connect()
			retrying(t, func(ctx context.Context) (err error) { _, err = state.Open(ctx, client, logTo(t)); return err })
			row.fill(t, o, client)
			beginning := openWith(t, o.etcd.keepingFile(o.file))
			defer runUntil(t, beginning)()

			for what, s := range map[string]*state.Store{"the one at work": working, "the one that begins": beginning} {
				eventually(t, what+" raises the alarm", func() bool { return strings.Contains(s.Snapshot().Alarm(), row.alarm) })
				o.same(t, s.Snapshot())
				_, _, err := s.CreateOrg(within(t), "unheard", "")
				if state.KindOf(err) != state.Unavailable {
					// The number of writes may be right by chance; the probe is what finds that out.
					t.Logf("%s: a write ended with %v", what, err)
				}
				ctx, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
				if err := s.KeepAlive(ctx, o.machine.Host, fast); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: KeepAlive ended with %v", what, err)
				}
				cancel()
			}
			for _, file := range []string{o.file, config.File} {
				if !strings.Contains(string(read(t, file)), o.machine.ID) {
					t.Errorf("%s has lost the state", file)
				}
			}
			o.etcd.kill()
			o.etcd.start(o.dir, "known")
			_, revision, err := createdSoon(t, o.etcd.connect())
			must(t, err)
			for _, s := range []*state.Store{working, beginning} {
				if after := at(t, s, revision); len(after.Machines) != 1 || len(after.Apps) != 2 {
					t.Errorf("with the known store there are apps %v, Machines %v", after.Apps, after.Machines)
				}
				eventually(t, "the alarm ends", func() bool { return s.Snapshot().Alarm() == "" })
			}
		})
	}
}

// createdSoon makes an app once the store is up.
func createdSoon(t *testing.T, client *clientv3.Client) (app state.App, revision int64, err error) {
	t.Helper()
	var s *state.Store
	retrying(t, func(ctx context.Context) (err error) { s, err = state.Open(ctx, client, logTo(t)); return err })
	return s.CreateApp(within(t), "shop", "acme", "")
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	must(t, err)
	return content
}

// TestAStoreThatMovedIsTaken up by a host that begins again, if nothing that it has seen
// was left behind.
func TestAStoreThatMovedIsTaken(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		later      int64  // revision of the export, from that of the host
		key, value string // written after the import
		taken      bool
	}{
		"all of it":                {taken: true},
		"exported later":           {later: 5, taken: true},
		"exported before":          {later: -1},
		"the import has not ended": {key: "import", value: "sum"},
		"of another fleet":         {key: "fleet", value: "OTHER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			o.etcd.start(o.dir, "known")
			client := o.etcd.connect()
			var file strings.Builder
			retrying(t, func(ctx context.Context) error {
				file.Reset()
				_, err := state.Export(ctx, client, &file)
				return err
			})
			exported, err := state.ReadExport(strings.NewReader(file.String()))
			must(t, err)
			o.etcd.kill()
			target := startClosing(t, directory(t))
			exported.Revision = o.snapshot.Revision + row.later
			must(t, exported.Import(within(t), target.Client()))
			if row.key != "" {
				_, err := target.Client().Put(within(t), "/sixpn/v1/"+row.key, row.value)
				must(t, err)
			}

			config := o.etcd.keepingFile(o.file)
			config.Client = target.Client()
			s := openWith(t, config)
			o.same(t, s.Snapshot())
			if taken := s.Snapshot().Alarm() == ""; taken != row.taken {
				t.Fatalf("it is taken: %v, want %v (alarm %q)", taken, row.taken, s.Snapshot().Alarm())
			}
			_, _, err = s.CreateOrg(within(t), "next", "")
			if (err == nil) != row.taken {
				t.Errorf("a write ended with %v", err)
			}
		})
	}
}
