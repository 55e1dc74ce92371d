package dns

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// The rows that an ordinary resolver tool can ask, asked by one.
func TestDig(t *testing.T) {
	p := newPrivate(t)
	p.serve(Config{})
	for _, transport := range []string{"+notcp", "+tcp"} {
		t.Run(transport, func(t *testing.T) {
			for _, row := range table {
				if row.change != nil && row.dig == nil {
					continue
				}
				row, query := row.defaults()
				if query.Question[0].Qtype == miekg.TypeOPT || query.Question[0].Qtype == miekg.TypeAXFR {
					continue // dig does something else
				}
				t.Run(row.title, func(t *testing.T) {
					p := private{p.Namespace, t}
					for _, resolver := range []netip.Addr{sixpn.DNS, sixpn.NetworkDNS(row.asker)} {
						arguments := []string{
							"-b", client(row.asker).String(), "@" + resolver.String(), transport, "+tries=1", "+time=5",
							"+noall", "+comments", "+answer", "+authority", "+noidnin", "+noidnout",
							"-q", row.name, "-t", miekg.Type(row.rrtype).String(),
						}
						equal(t, describeDig(t, p.run("dig", append(arguments, row.dig...)...)), row.want)
					}
				})
			}
		})
	}
}

var (
	digStatus = regexp.MustCompile(`status: (\w+)`)
	digFlags  = regexp.MustCompile(`flags: ([a-z ]+);`)
)

// describeDig is describe for what dig printed.
func describeDig(t *testing.T, output string) string {
	t.Helper()
	status, flags := digStatus.FindStringSubmatch(output), digFlags.FindStringSubmatch(output)
	if status == nil || flags == nil {
		t.Fatalf("dig printed\n%s", output)
	}
	head := status[1]
	for _, flag := range strings.Fields(flags[1]) {
		if flag == "aa" || flag == "tc" {
			head += " " + flag
		}
	}
	var records []string
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ";") {
			records = append(records, line)
		}
	}
	return sorted(head, records)
}
