package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/cmd/sixpn/internal/doctor"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/machine"
)

// TestMain lets this program be the agents and payloads of its own hosts, and the command
// line.
func TestMain(m *testing.M) {
	if nettest.Main() {
		return
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// newHost is a real agent, which the command line talks to, with an org and apps.
func newHost(ctx context.Context, t *testing.T, apps ...string) *nettest.Host {
	t.Helper()
	h := nettest.Start(ctx, t, nettest.Config{})
	t.Setenv("SIXPN_SOCKET", h.Socket())
	do(t, "orgs", "create", "acme")
	for _, app := range apps {
		do(t, "apps", "create", app, "--org", "acme")
	}
	return h
}

// webToml is a server that tells its version, with a check that it answers.
func webToml(t *testing.T, h *nettest.Host, version string, arguments ...string) string {
	t.Helper()
	command := strings.Join(h.Payload(append([]string{"web"}, arguments...)...), " ")
	return flyToml(t, fmt.Sprintf("[processes]\napp = %q\n[env]\nVERSION = %q\n[http_service]\ninternal_port = 8080\n"+
		"[[http_service.checks]]\npath = \"/\"\ninterval = \"1s\"\ntimeout = \"1s\"\n", command, version))
}

// asking asks an address for / all along, from inside a Machine's network.
type asking struct {
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex
	seen   map[string]int // by version
	failed []string
}

func ask(t *testing.T, from *nettest.Machine, vip netip.Addr) *asking {
	t.Helper()
	namespace, err := from.Namespace()
	must(t, err)
	a := &asking{stop: make(chan struct{}), done: make(chan struct{}), seen: map[string]int{}}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return namespace.Dial(ctx, "tcp6", nil, address)
		},
	}}
	go func() {
		defer close(a.done)
		defer namespace.Close()
		for {
			select {
			case <-a.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			version, err := get(&client, "http://"+netip.AddrPortFrom(vip, 80).String())
			a.mu.Lock()
			if err != nil {
				a.failed = append(a.failed, err.Error())
			} else {
				a.seen[version]++
			}
			a.mu.Unlock()
		}
	}()
	return a
}

func get(client *http.Client, url string) (version string, err error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", response.Status)
	}
	_, version, _ = strings.Cut(string(body), " ")
	return version, err
}

// end stops it, demands that nothing failed, and returns the answers by version.
func (a *asking) end(t *testing.T) map[string]int {
	t.Helper()
	close(a.stop)
	<-a.done
	if len(a.failed) > 0 {
		t.Errorf("%d requests failed, the first with: %s", len(a.failed), a.failed[0])
	}
	return a.seen
}

// so returns when a version has been seen.
func (a *asking) so(ctx context.Context, t *testing.T, version string) {
	t.Helper()
	must(t, nettest.Eventually(ctx, "version "+version+" answers", func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.seen[version] == 0 {
			return fmt.Errorf("the answers are %v", a.seen)
		}
		return nil
	}))
}

// Flycast answers all along while a release replaces another, and while one that
// does not work is taken back.
func TestRollingDeploy(t *testing.T) {
	ctx := nettest.Context(t)
	h := newHost(ctx, t, "web", "client")
	do(t, "deploy", "-c", webToml(t, h, "one", "[::]:8080"), "--count", "2", "--wait-timeout", "60s")
	vip := nettest.Get[netip.Addr](t)(h.AllocateVIP(ctx, "web", ""))
	client := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "client", nettest.Options{}, h.Payload("idle")...))

	asked := ask(t, client, vip)
	asked.so(ctx, t, "one")
	do(t, "deploy", "-c", webToml(t, h, "two", "[::]:8080"), "--wait-timeout", "60s")
	asked.so(ctx, t, "two")

	// Its check is answered with 503, so it never passes.
	r := sixpnRun(t, "deploy", "-c", webToml(t, h, "three", "-sick", "/proc/self/stat", "[::]:8080"), "--wait-timeout", "3s")
	if r.code != exitFailed || !strings.Contains(r.err, "0 of its 1 checks pass") || !strings.Contains(r.err, "rolled back") {
		t.Errorf("exit code %d, stderr %s", r.code, r.err)
	}
	seen := asked.end(t)
	if seen["three"] > 0 {
		t.Errorf("a release that does not work was asked: %v", seen)
	}
	for _, m := range shopMachines(t) {
		if !strings.HasSuffix(m, "release 2 started") {
			t.Errorf("after the roll-back there is %q", m)
		}
	}
}

// What dig and ping answer is what a Machine of the network would see.
func TestDigAndPing(t *testing.T) {
	ctx := nettest.Context(t)
	h := newHost(ctx, t, "web")
	m := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "web", nettest.Options{Services: published}, h.Payload("idle")...))
	vip := nettest.Get[netip.Addr](t)(h.AllocateVIP(ctx, "web", ""))
	do(t, "orgs", "create", "rival")

	for _, row := range []struct{ name, args, want string }{
		{"AAAA by default", "web.internal --short --org acme", m.Addr.String() + "\n"},
		{"a type", "txt _apps.internal --short --org acme", "\"web\"\n"},
		{"the type in capitals", "TXT _apps.internal -s -o acme", "\"web\"\n"},
		{"by app", "web.flycast --short --app web", vip.String() + "\n"},
		{"a nameserver", "aaaa web.internal fdaa::3 --short --app web", m.Addr.String() + "\n"},
		{"reverse", "-x " + m.Addr.String() + " --short --app web", m.ID + ".vm.web.internal.\n"},
		{"nothing", "a web.internal --short --app web", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := do(t, append([]string{"dig"}, strings.Fields(row.args)...)...); got != row.want {
				t.Errorf("it prints %q, expected %q", got, row.want)
			}
		})
	}
	for _, row := range []struct{ name, args, want string }{
		{"as dig writes it", "web.internal --org acme", "status: NOERROR"},
		{"the record", "web.internal --org acme", "web.internal.\t5\tIN\tAAAA\t" + m.Addr.String()},
		{"another org", "web.internal --org rival", "status: NXDOMAIN"},
		{"no such name", "nobody.internal --org acme", "status: NXDOMAIN"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := do(t, append([]string{"dig"}, strings.Fields(row.args)...)...); !strings.Contains(got, row.want) {
				t.Errorf("it prints %q, expected %q", got, row.want)
			}
		})
	}
	for _, row := range []struct {
		name, args, want string
		code             int
	}{
		{"a Machine by name", "ping web.internal -c 2 -i 20ms -o acme", "2 packets transmitted, 2 received, 0% packet loss", exitDone},
		{"by address", "ping " + m.Addr.String() + " -c 1 --app web", "bytes from " + m.Addr.String(), exitDone},
		{"the resolver", "ping -c 1 --app web", "1 received", exitDone},
		{"a VIP", "ping web.flycast -c 1 --app web", "answers Machines only", exitFailed},
		{"no such name", "ping nobody.internal --app web", "there is no such name", exitFailed},
		{"another network", "ping " + m.Addr.String() + " -o rival", "address of another network", exitFailed},
		{"not ours", "ping 2001:db8::1 --app web", "no address of a private network", exitFailed},
		{"too large", "ping web.internal -c 1 -s 8000 --app web", "more than one packet", exitFailed},
		{"a wrong count", "ping web.internal -c 0 --app web", "expected more than 0", exitUsage},
		{"a foreign nameserver", "dig web.internal 192.0.2.1 --app web", "is not the resolver", exitUsage},
		{"app and org", "dig web.internal --app web --org acme", "say too much", exitUsage},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := sixpnRun(t, strings.Fields(row.args)...)
			if r.code != row.code || !strings.Contains(r.out+r.err, row.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; expected %d and %q", r.code, r.out, r.err, row.code, row.want)
			}
		})
	}
	must(t, m.Stop(ctx))
	must(t, m.Wait(ctx, "stopped"))
	r := sixpnRun(t, "ping", m.Addr.String(), "-c", "1", "-w", "300ms", "--app", "web")
	if r.code != exitFailed || !strings.Contains(r.out, "0 received") {
		t.Errorf("a stopped Machine: exit code %d, %s", r.code, r.out)
	}
}

var published = []string{"80:8080/tcp"}

// removeFilter takes the drop filter off a Machine's device.
func removeFilter(m *nettest.Machine) error {
	device, err := netlink.LinkByName(machine.DeviceName(m.ID))
	if err != nil {
		return err
	}
	return netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
}

// The doctor sees an agent that is well, and what is taken from it.
func TestDoctor(t *testing.T) {
	ctx := nettest.Context(t)
	h := newHost(ctx, t, "web")
	m := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "web", nettest.Options{}, h.Payload("idle")...))
	look := func() map[string]doctor.Finding {
		findings := map[string]doctor.Finding{}
		must(t, h.Do(func() error {
			r := sixpnRun(t, "doctor", "--json", "--name", h.Name, "--run-dir", h.RunDir(), "--state-dir", h.StateDir(), "--metrics-listen", "off")
			var all []doctor.Finding
			if err := json.Unmarshal([]byte(r.out), &all); err != nil {
				return fmt.Errorf("exit code %d, %s: %w", r.code, r.err, err)
			}
			for _, finding := range all {
				if findings[finding.Check].Status != doctor.Fail {
					findings[finding.Check] = finding
				}
				if finding.Status != doctor.OK && finding.Remedy == "" {
					t.Errorf("%+v has no remedy", finding)
				}
			}
			return nil
		}))
		return findings
	}
	for _, check := range []string{"user", "kernel", "btf", "bpffs", "cgroups", "user namespaces", "addresses", "agent", "store", "data plane", "ports", "Machines"} {
		if got := look()[check]; got.Status != doctor.OK {
			t.Errorf("%s is %+v, expected ok", check, got)
		}
	}
	must(t, h.Do(func() error { return removeFilter(m) }))
	if got := look()["ports"]; got.Status != doctor.Fail || !strings.Contains(got.Message, "drop filter is missing") {
		t.Errorf("without a drop filter, ports is %+v", got)
	}
	must(t, h.StopAgent(ctx))
	if got := look(); got["agent"].Status != doctor.Warn || got["leftovers"].Status != doctor.Warn {
		t.Errorf("without an agent, it is %+v and leftovers %+v", got["agent"], got["leftovers"])
	}
	must(t, h.StartAgent(ctx))
}
