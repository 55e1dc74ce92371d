package dns_test

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
)

// TestFromInsideAMachine asks one name of each row of the table with dig, as a
// program in a Machine does: by its /etc/resolv.conf, through its own port of the
// router, of an agent that learnt everything through its API.
func TestFromInsideAMachine(t *testing.T) {
	ctx := nettest.Context(t)
	h := nettest.Start(ctx, t, nettest.Config{})
	for _, org := range []string{"acme", "globex"} {
		nettest.Must(t, h.CreateOrg(ctx, org))
	}
	for app, org := range map[string]string{"web": "acme", "api": "acme", "client": "acme", "db": "globex"} {
		nettest.Must(t, h.CreateApp(ctx, app, org))
	}
	run := func(app string, o nettest.Options) *nettest.Machine {
		return nettest.Get[*nettest.Machine](t)(h.Run(ctx, app, o, h.Payload("idle")...))
	}
	one := run("web", nettest.Options{Metadata: map[string]string{"Role": "Primary", "version": "1.2.3"}})
	two := run("web", nettest.Options{Metadata: map[string]string{"fly_process_group": "worker"}})
	stopped := run("web", nettest.Options{})
	idle := run("api", nettest.Options{})
	hidden := run("web", nettest.Options{Hidden: true})
	client := run("client", nettest.Options{})
	db := run("db", nettest.Options{})
	for _, m := range []*nettest.Machine{stopped, idle} {
		nettest.Must(t, m.Stop(ctx))
		nettest.Must(t, m.Wait(ctx, "stopped"))
	}
	vip := nettest.Get[netip.Addr](t)(h.AllocateVIP(ctx, "web", ""))
	shared := nettest.Get[netip.Addr](t)(h.AllocateVIP(ctx, "db", "acme"))
	playUpstream(t, h)

	network, _ := sixpn.Parse(client.Addr)
	nameserver := sixpn.NetworkDNS(network.Network)
	placed := func(machines ...*nettest.Machine) string {
		items := make([]string, len(machines))
		for i, m := range machines {
			items[i] = m.ID + " iad"
		}
		slices.Sort(items)
		return strings.Join(items, ",")
	}
	instances := func(machines ...*nettest.Machine) string {
		slices.SortFunc(machines, func(a, b *nettest.Machine) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.ID, b.ID)) })
		items := make([]string, len(machines))
		for i, m := range machines {
			items[i] = fmt.Sprintf("instance=%s,app=%s,ip=%s,region=iad", m.ID, m.App, m.Addr)
		}
		return strings.Join(items, ";")
	}
	nearest := one
	if two.ID < one.ID { // all are in one region
		nearest = two
	}
	for _, row := range []struct {
		kind, name string
		want       []string // status, then the answers
	}{
		{"AAAA", "web.internal", []string{"NOERROR", one.Addr.String(), two.Addr.String()}},
		{"AAAA", "WEB.internal", []string{"NOERROR", one.Addr.String(), two.Addr.String()}},
		{"A", "web.internal", []string{"NOERROR"}},
		{"AAAA", "api.internal", []string{"NOERROR"}},
		{"AAAA", "db.internal", []string{"NXDOMAIN"}},
		{"AAAA", "nope.internal", []string{"NXDOMAIN"}},
		{"AAAA", "global.web.internal", []string{"NOERROR", one.Addr.String(), two.Addr.String()}},
		{"AAAA", "iad.web.internal", []string{"NOERROR", one.Addr.String(), two.Addr.String()}},
		{"AAAA", "fra.web.internal", []string{"NOERROR"}},
		{"AAAA", "xxx.web.internal", []string{"NXDOMAIN"}},
		{"AAAA", "top1.nearest.of.web.internal", []string{"NOERROR", nearest.Addr.String()}},
		{"AAAA", "top5.nearest.of.web.internal", []string{"NOERROR", one.Addr.String(), two.Addr.String()}},
		{"AAAA", one.ID + ".vm.web.internal", []string{"NOERROR", one.Addr.String()}},
		{"AAAA", stopped.ID + ".vm.web.internal", []string{"NOERROR"}},
		{"AAAA", hidden.ID + ".vm.web.internal", []string{"NXDOMAIN"}},
		{"AAAA", "worker.process.web.internal", []string{"NOERROR", two.Addr.String()}},
		{"AAAA", "app.process.web.internal", []string{"NOERROR", one.Addr.String()}},
		{"AAAA", "primary.role.kv._metadata.web.internal", []string{"NOERROR", one.Addr.String()}},
		{"AAAA", "1.2.3.version.kv._metadata.web.internal", []string{"NOERROR", one.Addr.String()}},
		{"TXT", "vms.web.internal", []string{"NOERROR", placed(one, two)}},
		{"TXT", "all.vms.web.internal", []string{"NOERROR", placed(one, two, stopped)}},
		{"TXT", "regions.web.internal", []string{"NOERROR", "iad"}},
		{"TXT", "all.regions.api.internal", []string{"NOERROR", "iad"}},
		{"TXT", "_apps.internal", []string{"NOERROR", "client,web"}},
		{"TXT", "_peer.internal", []string{"NOERROR"}},
		{"TXT", "_instances.internal", []string{"NOERROR", instances(one, two, client)}},
		{"TXT", "all._instances.internal", []string{"NOERROR", instances(one, two, client, stopped, idle)}},
		{"AAAA", "_api.internal", []string{"NOERROR", nameserver.String()}},
		{"AAAA", "web.flycast", []string{"NOERROR", vip.String()}},
		{"AAAA", "db.flycast", []string{"NOERROR", shared.String()}},
		{"AAAA", "api.flycast", []string{"NXDOMAIN"}},
		{"PTR", reverse(one.Addr), []string{"NOERROR", one.ID + ".vm.web.internal."}},
		{"PTR", reverse(stopped.Addr), []string{"NOERROR"}},
		{"PTR", reverse(hidden.Addr), []string{"NXDOMAIN"}},
		{"PTR", reverse(db.Addr), []string{"NXDOMAIN"}},
		{"PTR", reverse(vip), []string{"NOERROR", "web.flycast."}},
		{"PTR", reverse(sixpn.DNS), []string{"NOERROR", "_api.internal."}},
		{"AAAA", "localhost", []string{"NOERROR", "::1"}},
		{"AAAA", "example.com", []string{"NOERROR", "2001:db8::1"}},
		{"AAAA", "nope.example", []string{"NXDOMAIN"}},
	} {
		for _, transport := range []string{"+notcp", "+tcp"} {
			got := dig(ctx, t, client, transport, row.kind, row.name)
			slices.Sort(got[1:])
			slices.Sort(row.want[1:])
			if !slices.Equal(got, row.want) {
				t.Errorf("%s %s %s: %q, expected %q", transport, row.kind, row.name, got, row.want)
			}
		}
	}
}

func reverse(address netip.Addr) string {
	name, err := miekg.ReverseAddr(address.String())
	if err != nil {
		panic(err)
	}
	return name
}

var status = regexp.MustCompile(`status: (\w+)`)

// dig is the status and the answers that dig prints inside a Machine.
func dig(ctx context.Context, t *testing.T, m *nettest.Machine, args ...string) (answer []string) {
	t.Helper()
	output, err := m.Exec(ctx, append([]string{"dig", "+tries=1", "+time=5", "+noall", "+comments", "+answer"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	found := status.FindStringSubmatch(output)
	if found == nil {
		t.Fatalf("dig printed\n%s", output)
	}
	answer = []string{found[1]}
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 5 || strings.HasPrefix(line, ";") {
			continue
		}
		// A text of several strings is joined, as readers do.
		data := strings.Join(fields[4:], " ")
		answer = append(answer, strings.Trim(strings.ReplaceAll(data, `" "`, ""), `"`))
	}
	return answer
}

// playUpstream gives the host the resolver that its resolv.conf names.
func playUpstream(t *testing.T, h *nettest.Host) {
	t.Helper()
	config, err := miekg.ClientConfigFromFile("/etc/resolv.conf")
	nettest.Must(t, err)
	address := netip.MustParseAddr(config.Servers[0])
	server := &miekg.Server{Net: "udp", Addr: netip.AddrPortFrom(address, 53).String(), Handler: miekg.HandlerFunc(
		func(w miekg.ResponseWriter, query *miekg.Msg) {
			reply := new(miekg.Msg).SetReply(query)
			asked := query.Question[0]
			if strings.HasSuffix(miekg.CanonicalName(asked.Name), "example.com.") {
				reply.Answer = []miekg.RR{&miekg.AAAA{
					Hdr:  miekg.RR_Header{Name: asked.Name, Rrtype: miekg.TypeAAAA, Class: miekg.ClassINET, Ttl: 60},
					AAAA: netip.MustParseAddr("2001:db8::1").AsSlice(),
				}}
			} else {
				reply.Rcode = miekg.RcodeNameError
			}
			_ = w.WriteMsg(reply)
		})}
	nettest.Must(t, h.Do(func() error {
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"addr", "add", netip.PrefixFrom(address, address.BitLen()).String(), "dev", "lo"},
		} {
			// The address may be there already, as 127.0.0.53 is.
			if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil && !strings.Contains(string(output), "already assigned") {
				return fmt.Errorf("ip %q: %w: %s", args, err, output)
			}
		}
		return nil
	}))
	ready, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(ready) }
	namespace := h.Do
	go func() { ended <- namespace(server.ListenAndServe) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Shutdown() })
}
