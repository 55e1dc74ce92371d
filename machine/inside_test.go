package machine_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// probe runs a script in a running Machine and returns what it wrote to both
// streams, and its exit code.
func probe(t *testing.T, p *machine.Process, script string) (string, int) {
	t.Helper()
	var out buffer
	code, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), code
}

func TestEnvironmentIsTheMachinesOwn(t *testing.T) {
	t.Setenv("AGENT_SECRET", "leak")
	d := newDriver(t)
	spec := machine.Spec{ID: "env", Hostname: "box", Exec: []string{"env"}, Env: []string{"FLY_REGION=ams", "K=V"}}
	out, _ := run(t, d, spec)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	want := []string{"FLY_REGION=ams", "HOME=/", "K=V", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if !slices.Equal(lines, want) {
		t.Errorf("environment %q, expected %q", lines, want)
	}
}

func TestCommandInheritsNothingOfTheAgent(t *testing.T) {
	before := syscall.Umask(0o077)
	d := newDriver(t)
	out, _ := run(t, d, machine.Spec{ID: "inh", Exec: []string{"sh", "-c", "umask; ls /proc/self/fd; exec grep -E 'SigIgn|SigBlk' /proc/self/status"}})
	syscall.Umask(before)
	// ls has its own directory open as 3.
	if want := "0022\n0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"; out != want {
		t.Errorf("umask, descriptors and signals are %q, expected %q", out, want)
	}
}

func TestFilesOverEtc(t *testing.T) {
	d := newDriver(t)
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	spec := shell("etc", "cat /etc/hosts /etc/resolv.conf; hostname; getent hosts fly-local-6pn")
	spec.Hostname = "box"
	spec.Hosts = machine.HostsFile("fdaa:0:18:0:7:0:a:2", "box")
	spec.ResolvConf = "nameserver fdaa::3\n"
	out, _ := run(t, d, spec)
	for _, want := range []string{"::1\tlocalhost", "fdaa:0:18:0:7:0:a:2\tfly-local-6pn", "nameserver fdaa::3\n", "\nbox\n", "fdaa:0:18:0:7:0:a:2 "} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
	if after, err := os.ReadFile("/etc/hosts"); err != nil || !bytes.Equal(hosts, after) {
		t.Errorf("the host's /etc/hosts changed (%v)", err)
	}
}

// TestIsolation shows each wall from inside, as root of the Machine.
func TestIsolation(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("walls", "exec sleep 1000"))
	// Files of the host, outside the directories that are private inside.
	shared, err := os.MkdirTemp("/var/lib", "sixpn-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(shared) })
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"secret": 0o600, "open": 0o666} {
		path := filepath.Join(shared, name)
		if err := os.WriteFile(path, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name, script string
		works        bool
		says         string
	}{
		{"root inside", "test $(id -u) = 0 -a $(id -g) = 0", true, ""},
		{"read what everybody may", "cat " + shared + "/open", true, "content"},
		{"read what only root may", "cat " + shared + "/secret", false, "Permission denied"},
		{"read /etc/shadow", "cat /etc/shadow", false, "Permission denied"},
		{"write a host file", "echo x > " + shared + "/open", false, "Read-only"},
		{"create a host file", "touch " + shared + "/new", false, "Read-only"},
		{"write in /etc", "touch /etc/new", false, ""},
		{"chmod a host file", "chmod 777 " + shared + "/secret", false, ""},
		{"remount writable", "mount -o remount,rw /", false, ""},
		{"uncover /tmp", "umount /tmp", false, ""},
		{"remount from a namespace of its own", "unshare -Urm sh -c 'umount /tmp || mount -o remount,rw /'", false, ""},
		{"see the host's processes", "test $(ls /proc | grep -c '^[0-9]') -lt 8", true, ""},
		{"trace init", "cat /proc/1/environ", false, "Permission denied"},
		{"read init's memory", "head -c1 /proc/1/mem", false, "Permission denied"},
		{"set a global setting", "echo 1 > /proc/sys/kernel/panic", false, ""},
		{"see the host's devices", "ls /sys/class/net | grep -v -e lo -e eth0", false, ""},
		{"write to a disk", "ls /dev/vda /dev/sda /dev/mem /dev/kmsg 2>/dev/null", false, ""},
		{"see bpffs", "ls -A /sys/fs/bpf | grep .", false, ""},
		{"see the host's /run", "ls /run | grep -v -e lock -e mount", false, ""},
		{"write /tmp", "echo x > /tmp/x && cat /tmp/x", true, "x"},
		{"write /var/tmp, /run and /dev/shm", "touch /var/tmp/x /run/x /dev/shm/x", true, ""},
		{"open a terminal", "python3 -c 'import pty; pty.openpty()'", true, ""},
		{"write /dev/null and /dev/stdout", "echo x > /dev/null && echo y > /dev/stdout", true, "y"},
		{"no kill of init", "kill -KILL 1; test -d /proc/1", true, ""},
		{"ping", "ping -6 -c1 -W1 ::1", true, "1 received"},
		{"ping as nobody", "setpriv --reuid 1000 --clear-groups --inh-caps=-all ping -6 -c1 -W1 ::1", true, "1 received"},
		{"bind port 80", "python3 -c 'import socket; s=socket.socket(socket.AF_INET6); s.bind((\"::\",80))'", true, ""},
		{"bind port 80 as nobody", "setpriv --reuid 1000 --clear-groups python3 -c 'import socket; s=socket.socket(socket.AF_INET6); s.bind((\"::\",81))'", true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, code := probe(t, p, row.script)
			if (code == 0) != row.works || !strings.Contains(out, row.says) {
				t.Errorf("%q: code %d, output %q; expected success %v and %q", row.script, code, out, row.works, row.says)
			}
		})
	}
	if p.Phase() != machine.PhaseRunning {
		t.Error("the machine did not survive its probes")
	}
}

func TestMachinesHaveRangesOfTheirOwn(t *testing.T) {
	d := newDriver(t)
	a, b := start(t, d, shell("a", "exec sleep 1000")), start(t, d, shell("b", "exec sleep 1000"))
	if machine.FirstID(a) == machine.FirstID(b) {
		t.Errorf("both have the ids from %d on", machine.FirstID(a))
	}
	ids, err := a.Processes()
	if err != nil || len(ids) == 0 {
		t.Fatalf("processes %v, %v", ids, err)
	}
	info, err := os.Stat("/proc/" + itoa(ids[len(ids)-1]))
	if err != nil {
		t.Fatal(err)
	}
	if uid := uidOf(info); uid != machine.FirstID(a) {
		t.Errorf("the command runs as user %d, expected %d", uid, machine.FirstID(a))
	}
}

func TestExec(t *testing.T) {
	d := newDriver(t)
	spec := shell("x", "exec sleep 1000")
	spec.Env = []string{"A=machine", "B=machine"}
	p := start(t, d, spec)
	var out, errs buffer
	code, err := p.Exec(await.Context(t), machine.ExecRequest{
		Exec: []string{"sh", "-c", `read line; echo "$line $A $B $PWD"; echo oops >&2; exit 7`}, Env: []string{"B=exec"}, WorkDir: "/usr",
		Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 7 {
		t.Errorf("code %d, error %v, expected 7", code, err)
	}
	if out.String() != "hello machine exec /usr\n" || errs.String() != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	if _, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"no-such-program"}}); err == nil || !strings.Contains(err.Error(), "not found in PATH") {
		t.Errorf("error %v, expected it to say that there is no such program", err)
	}
}

func TestExecLargeStreams(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("big", "exec sleep 1000"))
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var out bytes.Buffer
	code, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"cat"}, Stdin: bytes.NewReader(in), Stdout: &out})
	if err != nil || code != 0 || !bytes.Equal(in, out.Bytes()) {
		t.Errorf("code %d, error %v, %d bytes of %d came back", code, err, out.Len(), len(in))
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("c", "exec sleep 1000"))
	ctx, cancel := context.WithCancel(await.Context(t))
	defer cancel()
	var out buffer
	done := make(chan error, 1)
	go func() {
		_, err := p.Exec(ctx, machine.ExecRequest{Exec: []string{"sh", "-c", "echo up; sleep 1000 & wait"}, Stdout: &out})
		done <- err
	}()
	await.True(t, "the command runs", func() bool { return out.String() == "up\n" })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, expected %v", err, context.Canceled)
	}
	await.True(t, "the command and its child gone", func() bool {
		ids, err := p.Processes()
		return err == nil && len(ids) == 2 // init and the Machine's command
	})
}

func TestOrphansAreReaped(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("o", "for i in 1 2 3 4 5; do (sleep 0.01 & exit 0) & done; wait; echo done; exec sleep 1000"))
	waitOutput(t, d, "o", "done")
	await.True(t, "only init and the command left, no zombie", func() bool {
		out, _ := probe(t, p, "ls -d /proc/[0-9]* | wc -l; grep -h State: /proc/[0-9]*/status | grep -c Z")
		return strings.Fields(out)[1] == "0"
	})
	await.True(t, "two processes", func() bool {
		ids, err := p.Processes()
		return err == nil && len(ids) == 2
	})
}

func TestInitForwardsSignals(t *testing.T) {
	d := newDriver(t)
	start(t, d, shell("s", "trap 'exit 42' USR1; echo up; while :; do sleep 60 & wait; done"))
	waitOutput(t, d, "s", "up")
	ps, err := d.Adopt(await.Context(t))
	if err != nil || len(ps) != 1 {
		t.Fatalf("adopted %d, %v", len(ps), err)
	}
	_, _ = ps[0].Exec(await.Context(t), machine.ExecRequest{Exec: []string{"kill", "-USR1", "1"}})
	if status := wait(t, ps[0]); status.Code != 42 {
		t.Errorf("code %d, expected 42", status.Code)
	}
}

func TestPythonServesHTTP(t *testing.T) {
	d := newDriver(t)
	p, err := d.Create(await.Context(t), machine.Spec{ID: "web", Hostname: "web", Exec: []string{"python3", "-u", "-m", "http.server", "--bind", "::", "80"}, WorkDir: "/etc"})
	if err != nil {
		t.Fatal(err)
	}
	guest := connectGuest(t, p, "fdaa:0:18:0:7:0:a:2")
	if err := p.Start(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return guest.dial(ctx, network, addr)
		},
	}}
	for _, url := range []string{"http://[fdaa:0:18:0:7:0:a:2]/hostname", "http://[fdaa:0:18:0:7:0:a:99]/hostname"} {
		await.True(t, url, func() bool {
			r, err := client.Get(url)
			if err != nil {
				return false
			}
			r.Body.Close()
			return r.StatusCode == http.StatusOK
		})
	}
	await.True(t, "the request in the log", func() bool { return strings.Contains(output(t, d, "web"), "GET /hostname") })
	if err := p.Signal(await.Context(t), 15); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, p); status.Code != 128+15 {
		t.Errorf("code %d, expected 143: python is not PID 1 inside", status.Code)
	}
}
