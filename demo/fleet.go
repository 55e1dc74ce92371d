package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
)

// fleetMachines are those of app fleet, which differ in all that names can tell apart.
// Their host is in iad, to which ord is nearer than ams.
var fleetMachines = []struct {
	of      func(*world) **nettest.Machine
	options nettest.Options
	what    string
}{
	{func(w *world) **nettest.Machine { return &w.near }, nettest.Options{
		Name: "fleet-near", Region: "ord", Metadata: map[string]string{"fly_process_group": "worker", "Role.Kind": "Primary.v1"},
	}, "in ord, process group worker, metadata Role.Kind=Primary.v1"},
	{func(w *world) **nettest.Machine { return &w.far }, nettest.Options{Name: "fleet-far", Region: "ams"}, "in ams"},
	{func(w *world) **nettest.Machine { return &w.rested }, nettest.Options{Name: "fleet-rested", Region: "nrt"}, "in nrt, stopped"},
}

// rest stops the one that is to be in no name.
func (w *world) rest(ctx context.Context) error {
	if err := w.rested.Stop(ctx); err != nil {
		return err
	}
	return w.rested.Wait(ctx, "stopped")
}

// list is what a TXT name holds: its items, with commas between, in any order.
func list(ctx context.Context, w *world, name string, want ...string) (string, error) {
	got, err := lookup(ctx, w.client, "TXT", name)
	if err != nil {
		return "", err
	}
	if got.Rcode != "NOERROR" || len(got.Answers) != 1 {
		return "", fmt.Errorf("TXT %s: got %s %q %s, expected one record", name, got.Rcode, got.Answers, got.Error)
	}
	have := slices.Sorted(slices.Values(strings.Split(got.Answers[0], ",")))
	if slices.Sort(want); !slices.Equal(have, want) {
		return "", fmt.Errorf("TXT %s is %q, expected the items %q", name, got.Answers[0], want)
	}
	return fmt.Sprintf("%s is %q", name, got.Answers[0]), nil
}

func dnsGlobal(ctx context.Context, w *world) (string, error) {
	err := answers(ctx, w.client, "AAAA", "global.fleet.internal", w.near.Addr.String(), w.far.Addr.String())
	return "global.fleet.internal holds the two that are started, in two regions", err
}

func dnsRegion(ctx context.Context, w *world) (string, error) {
	if err := answers(ctx, w.client, "AAAA", "ord.fleet.internal", w.near.Addr.String()); err != nil {
		return "", err
	}
	err := answers(ctx, w.client, "AAAA", "ams.fleet.internal", w.far.Addr.String())
	return "ord.fleet.internal and ams.fleet.internal hold one Machine each", err
}

// dnsNearest: the order counts, so it is asked often.
func dnsNearest(ctx context.Context, w *world) (string, error) {
	for range 8 {
		got, err := lookup(ctx, w.client, "AAAA", "top2.nearest.of.fleet.internal")
		if err != nil {
			return "", err
		}
		if want := []string{w.near.Addr.String(), w.far.Addr.String()}; !slices.Equal(got.Answers, want) {
			return "", fmt.Errorf("top2.nearest.of.fleet.internal is %v, expected %v in this order", got.Answers, want)
		}
	}
	err := answers(ctx, w.client, "AAAA", "top1.nearest.of.fleet.internal", w.near.Addr.String())
	return "seen from iad, ord comes before ams, each time", err
}

func dnsVM(ctx context.Context, w *world) (string, error) {
	name := w.far.ID + ".vm.fleet.internal"
	return name + " is " + w.far.Addr.String(), answers(ctx, w.client, "AAAA", name, w.far.Addr.String())
}

func dnsProcess(ctx context.Context, w *world) (string, error) {
	if err := answers(ctx, w.client, "AAAA", "worker.process.fleet.internal", w.near.Addr.String()); err != nil {
		return "", err
	}
	err := answers(ctx, w.client, "AAAA", "app.process.fleet.internal", w.far.Addr.String())
	return "worker.process and app.process tell the two apart", err
}

// dnsMetadata: dots in key and value, and another case than was stored.
func dnsMetadata(ctx context.Context, w *world) (string, error) {
	const name = "primary.V1.role.kind.kv._metadata.fleet.internal"
	return name + " finds Role.Kind=Primary.v1", answers(ctx, w.client, "AAAA", name, w.near.Addr.String())
}

func dnsVMs(ctx context.Context, w *world) (string, error) {
	return list(ctx, w, "vms.fleet.internal", w.near.ID+" ord", w.far.ID+" ams")
}

func dnsRegions(ctx context.Context, w *world) (string, error) {
	return list(ctx, w, "regions.fleet.internal", "ord", "ams")
}

func instance(m *nettest.Machine, region string) string {
	return fmt.Sprintf("instance=%s,app=%s,ip=%s,region=%s", m.ID, m.App, m.Addr, region)
}

// instances are those of org acme, the stopped one apart.
func (w *world) instances() []string {
	all := []string{instance(w.near, "ord"), instance(w.far, "ams")}
	for _, m := range append(slices.Clone(w.web), w.client, w.big, w.solo) {
		all = append(all, instance(m, homeRegion))
	}
	for _, m := range []*nettest.Machine{w.away, w.awayBig} {
		all = append(all, instance(m, awayRegion))
	}
	return all
}

func dnsInstances(ctx context.Context, w *world) (string, error) {
	want := w.instances()
	got, err := lookup(ctx, w.client, "-tcp", "TXT", "_instances.internal")
	if err != nil {
		return "", err
	}
	have := slices.Sorted(slices.Values(strings.Split(strings.Join(got.Answers, ""), ";")))
	if slices.Sort(want); !slices.Equal(have, want) {
		return "", fmt.Errorf("_instances.internal is %q, expected the items %q", got.Answers, want)
	}
	return fmt.Sprintf("_instances.internal lists the %d started Machines of the org, with app, address and region", len(want)), nil
}

// dnsAll: the lists that have stopped Machines too.
func dnsAll(ctx context.Context, w *world) (string, error) {
	if _, err := list(ctx, w, "all.vms.fleet.internal", w.near.ID+" ord", w.far.ID+" ams", w.rested.ID+" nrt"); err != nil {
		return "", err
	}
	return list(ctx, w, "all.regions.fleet.internal", "ord", "ams", "nrt")
}

func dnsPTR(ctx context.Context, w *world) (string, error) {
	for address, want := range map[string]string{
		w.near.Addr.String(): w.near.ID + ".vm.fleet.internal.",
		w.webVIP.String():    "web.flycast.",
		sixpn.DNS.String():   "_api.internal.",
	} {
		name, err := miekg.ReverseAddr(address)
		if err != nil {
			return "", err
		}
		if err := answers(ctx, w.client, "PTR", name, want); err != nil {
			return "", err
		}
	}
	name, err := miekg.ReverseAddr(w.vault.Addr.String())
	if err != nil {
		return "", err
	}
	got, err := lookup(ctx, w.client, "PTR", name)
	if err == nil && got.Rcode != "NXDOMAIN" {
		err = fmt.Errorf("the address of another org's Machine has the name %s %v, expected NXDOMAIN", got.Rcode, got.Answers)
	}
	return "a Machine, a Flycast address and the resolver have names; another org's Machine has none", err
}

// dnsNoData: only what does not exist is NXDOMAIN, since resolvers remember that
// for the name as a whole.
func dnsNoData(ctx context.Context, w *world) (string, error) {
	rows := []struct{ kind, name, rcode string }{
		{"A", "fleet.internal", "NOERROR"},
		{"MX", "fleet.internal", "NOERROR"},
		{"TXT", "fleet.internal", "NOERROR"},
		{"AAAA", "vms.fleet.internal", "NOERROR"},
		{"AAAA", "nrt.fleet.internal", "NOERROR"}, // its Machine is stopped
		{"AAAA", w.rested.ID + ".vm.fleet.internal", "NOERROR"},
		{"AAAA", "vm.fleet.internal", "NOERROR"}, // names are below it
		{"AAAA", "_apps.internal", "NOERROR"},
		{"AAAA", "nobody.internal", "NXDOMAIN"},
		{"AAAA", "nobody.process.fleet.internal", "NXDOMAIN"},
		{"AAAA", "vault.internal", "NXDOMAIN"}, // of another org
	}
	for _, row := range rows {
		got, err := lookup(ctx, w.client, row.kind, row.name)
		if err != nil {
			return "", err
		}
		if got.Rcode != row.rcode || len(got.Answers) > 0 || got.Authority != 1 {
			return "", fmt.Errorf("%s %s: got %s %v and %d SOA records, expected %s and one", row.kind, row.name, got.Rcode, got.Answers, got.Authority, row.rcode)
		}
	}
	return fmt.Sprintf("%d names without an answer: NXDOMAIN only for those that do not exist, each with an SOA", len(rows)), nil
}

// dnsTCP: what UDP cuts off is whole over TCP, where queries may follow each other.
func dnsTCP(ctx context.Context, w *world) (string, error) {
	const name = "_instances.internal"
	short, err := lookup(ctx, w.client, "TXT", name)
	if err != nil {
		return "", err
	}
	whole, err := lookup(ctx, w.client, "-tcp", "TXT", name)
	if err != nil {
		return "", err
	}
	if !short.Truncated || whole.Truncated || len(whole.Answers) != 1 || len(whole.Answers[0]) == 0 {
		return "", fmt.Errorf("%s is truncated over UDP: %v, over TCP: %v (%d records)", name, short.Truncated, whole.Truncated, len(whole.Answers))
	}
	const count = 64
	answered, err := nettest.Probe[int](ctx, w.client, "pipeline", "AAAA", "fleet.internal", fmt.Sprint(count))
	if err == nil && answered != count {
		err = fmt.Errorf("%d of %d queries of one connection were answered", answered, count)
	}
	return fmt.Sprintf("a list of %d bytes is truncated over UDP and whole over TCP; %d queries in a row over one connection", len(whole.Answers[0]), count), err
}
