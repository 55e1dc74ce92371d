package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
)

// dnsServer is one server to ask. The baselines run in Machines of the asker's
// network, so that their queries cross the router as those to sixpn do.
type dnsServer struct {
	name    string
	address netip.Addr
	types   []uint16 // that it can answer
	pids    func() ([]int, error)
}

func (s dnsServer) has(rrtype uint16) bool {
	for _, t := range s.types {
		if t == rrtype {
			return true
		}
	}
	return false
}

// cpuTime is the processor time that the server's processes have had.
func (s dnsServer) cpuTime() (time.Duration, error) {
	pids, err := s.pids()
	if err != nil {
		return 0, err
	}
	return processTime(pids)
}

// processTime is the processor time that processes have had together.
func processTime(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		var t unix.Timespec
		// The clock of another process, clock_getcpuclockid(3): the complement of its
		// number above three bits, of which 2 asks for what the scheduler counted.
		if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
			return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// dnsWorld is a host with an app of three Machines, the servers that know them,
// and a Machine to ask from.
type dnsWorld struct {
	host    *nettest.Host
	client  *nettest.Machine
	names   []dnsName
	servers []dnsServer
}

const dnsBackends = 3 // Machines of the app that is asked for

func newDNSWorld(ctx context.Context, coredns string, progress func(string)) (w *dnsWorld, err error) {
	if coredns, err = findCoreDNS(coredns); err != nil {
		return nil, err
	}
	progress("starting the name servers")
	w = &dnsWorld{}
	if w.host, err = nettest.NewHost(nettest.Config{Prefix: "sixpn-bench-", LogLevel: "warn"}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.host.Close())
		}
	}()
	if err := w.host.StartAgent(ctx); err != nil {
		return nil, err
	}
	if err := w.host.CreateOrg(ctx, "bench"); err != nil {
		return nil, err
	}
	for _, app := range []string{"web", "servers", "client"} {
		if err := w.host.CreateApp(ctx, app, "bench"); err != nil {
			return nil, err
		}
	}
	idle := w.host.Payload("idle")
	var backends []*nettest.Machine
	for range dnsBackends {
		m, err := w.host.Run(ctx, "web", nettest.Options{}, idle...)
		if err != nil {
			return nil, err
		}
		backends = append(backends, m)
	}
	if w.client, err = w.host.Run(ctx, "client", nettest.Options{}, idle...); err != nil {
		return nil, err
	}
	w.names = []dnsName{{"web.internal.", miekg.TypeAAAA, dnsBackends}, {"vms.web.internal.", miekg.TypeTXT, 1}}
	w.servers = []dnsServer{{
		name: "sixpn", address: sixpn.DNS, types: []uint16{miekg.TypeAAAA, miekg.TypeTXT},
		pids: func() ([]int, error) { return []int{w.host.AgentPID()}, nil },
	}}
	for _, b := range dnsBaselines {
		server, err := w.baseline(ctx, b, coredns, backends)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", b.name, err)
		}
		w.servers = append(w.servers, server)
	}
	return w, w.host.Settle(ctx)
}

// baseline writes a server's files and runs it in a Machine, which counts as
// started once it listens on port 53.
func (w *dnsWorld) baseline(ctx context.Context, b dnsBaseline, coredns string, backends []*nettest.Machine) (dnsServer, error) {
	dir := filepath.Join(w.host.Dir, b.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return dnsServer{}, err
	}
	program := filepath.Join(dir, "coredns")
	var err error
	if b.program != "" {
		program, err = lookProgram(b.program)
	} else {
		err = copyProgram(coredns, program)
	}
	if err != nil {
		return dnsServer{}, err
	}
	zone := dnsZone{dir: dir}
	var list []string
	for _, m := range backends {
		zone.addresses = append(zone.addresses, m.Addr)
		list = append(list, m.ID+" iad")
	}
	zone.text = strings.Join(list, ",")
	for name, content := range b.files(zone) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return dnsServer{}, err
		}
	}
	command := append([]string{program}, b.arguments(dir)...)
	m, err := w.host.Run(ctx, "servers", nettest.Options{Services: []string{"53:53/udp"}}, command...)
	if err != nil {
		return dnsServer{}, err
	}
	return dnsServer{name: b.name, address: m.Addr, types: b.types, pids: m.PIDs}, nil
}

// findCoreDNS finds the baseline that make builds beside the binary.
func findCoreDNS(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "coredns")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	if found, err := exec.LookPath("coredns"); err == nil {
		return found, nil
	}
	return "", errors.New(`there is no program "coredns", the baseline of the DNS measurement, beside this one or in PATH: build it with "make bin/coredns", name it with --coredns, or choose other measurements with --only`)
}

// lookProgram finds a Debian program; daemons are in sbin, which is not in every
// root's path.
func lookProgram(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: on Debian it is in the package of that name (dnsmasq: dnsmasq-base); \"make bench\" installs it", name)
}

// copyProgram puts a program where Machines, which are not root here, can read it.
func copyProgram(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// dnsZone is what a baseline is to answer.
type dnsZone struct {
	dir       string
	addresses []netip.Addr
	text      string
}

// dnsBaseline is one other server, configured to answer the same.
type dnsBaseline struct {
	name      string
	program   string // "" for the coredns that was built for this
	types     []uint16
	arguments func(dir string) []string
	files     func(dnsZone) map[string]string
}

var dnsBaselines = []dnsBaseline{
	{
		name: "coredns-hosts", types: []uint16{miekg.TypeAAAA},
		arguments: corefile,
		files: func(z dnsZone) map[string]string {
			hosts := ""
			for _, a := range z.addresses {
				hosts += a.String() + " web.internal\n"
			}
			return map[string]string{
				"Corefile": ".:53 {\n loadbalance\n hosts " + z.dir + "/hosts {\n ttl 5\n }\n}\n",
				"hosts":    hosts,
			}
		},
	},
	{
		name: "coredns-file", types: []uint16{miekg.TypeAAAA, miekg.TypeTXT},
		arguments: corefile,
		files: func(z dnsZone) map[string]string {
			zone := "$ORIGIN internal.\n$TTL 5\n@ IN SOA ns.internal. hostmaster.internal. 1 5 5 5 5\n@ IN NS ns.internal.\nns IN AAAA fdaa::3\n"
			for _, a := range z.addresses {
				zone += "web IN AAAA " + a.String() + "\n"
			}
			zone += "vms.web IN TXT " + strconv.Quote(z.text) + "\n"
			return map[string]string{
				"Corefile": "internal:53 {\n loadbalance\n file " + z.dir + "/zone\n}\n",
				"zone":     zone,
			}
		},
	},
	{
		name: "unbound", program: "unbound", types: []uint16{miekg.TypeAAAA, miekg.TypeTXT},
		arguments: func(dir string) []string { return []string{"-d", "-c", dir + "/unbound.conf"} },
		files: func(z dnsZone) map[string]string {
			conf := "server:\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n interface: ::0\n" +
				" access-control: ::/0 allow\n rrset-roundrobin: yes\n minimal-responses: yes\n num-threads: 1\n local-zone: \"internal.\" static\n"
			for _, a := range z.addresses {
				conf += " local-data: \"web.internal. 5 IN AAAA " + a.String() + "\"\n"
			}
			conf += " local-data: 'vms.web.internal. 5 IN TXT \"" + z.text + "\"'\nremote-control:\n control-enable: no\n"
			return map[string]string{"unbound.conf": conf}
		},
	},
	{
		name: "dnsmasq", program: "dnsmasq", types: []uint16{miekg.TypeAAAA, miekg.TypeTXT},
		arguments: func(dir string) []string { return []string{"-k", "-C", dir + "/dnsmasq.conf"} },
		files: func(z dnsZone) map[string]string {
			conf := "user=root\nno-resolv\nno-hosts\nlog-facility=-\npid-file\nlocal-ttl=5\nlocal=/internal/\naddn-hosts=" + z.dir + "/hosts\n" +
				"txt-record=vms.web.internal,\"" + z.text + "\"\n"
			hosts := ""
			for _, a := range z.addresses {
				hosts += a.String() + " web.internal\n"
			}
			return map[string]string{"dnsmasq.conf": conf, "hosts": hosts}
		},
	},
}

func corefile(dir string) []string { return []string{"-quiet", "-conf", dir + "/Corefile"} }
