package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

func TestMain(m *testing.M) {
	if nettest.Main() {
		return
	}
	os.Exit(m.Run())
}

// Every server answers the same names, and every name of a result is there.
func TestDNS(t *testing.T) {
	coredns := filepath.Join(t.TempDir(), "coredns")
	build := exec.Command("go", "build", "-o", coredns, ".")
	build.Dir, build.Env = "coredns", append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build CoreDNS: %v\n%s", err, output)
	}
	results, err := run(context.Background(), effort{dnsRounds: 2, dnsEach: 20 * time.Millisecond},
		Config{Only: []string{"dns"}, CoreDNS: coredns, Progress: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range results {
		names = append(names, r.Name)
		if r.Value <= 0 || r.Baseline <= 0 || r.Rounds != 2 {
			t.Errorf("got %+v, want figures above 0", r)
		}
	}
	want := `dns.aaaa dns.txt dns.aaaa_file dns.txt_file dns.aaaa_unbound dns.txt_unbound dns.aaaa_dnsmasq dns.txt_dnsmasq dns.aaaa_rate dns.txt_rate`
	if got := strings.Join(names, " "); got != want {
		t.Errorf("measured %s, want %s", got, want)
	}
}

func TestUnknownSubject(t *testing.T) {
	_, err := Run(context.Background(), Config{Only: []string{"pakcet"}})
	if err == nil || !strings.Contains(err.Error(), `"pakcet"`) || !strings.Contains(err.Error(), "packet, live, tcp, mesh, propagation, growth, dns") {
		t.Errorf("got %v, want an error that names the measurements", err)
	}
}
