package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	miekg "github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
)

// place is the network that a command looks from.
type place struct{ app, org, network, host string }

func (p *place) flags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&p.org, "org", "o", "", "org to look from (default the only one, if there is one)")
	flags.StringVar(&p.network, "network", "", "network of the org (default its default one)")
	flags.StringVarP(&p.app, "app", "a", "", "look from the network of this app")
	flags.StringVar(&p.host, "host", "", `look from this host, see "sixpn hosts list" (default the one that is asked)`)
}

// find completes what was left out.
func (p *place) find(ctx context.Context, client *api.ClientWithResponses) error {
	if p.app == "" {
		var err error
		p.org, err = orgOr(ctx, client, p.org)
		return err
	}
	if p.org+p.network != "" {
		return usagef("--app says which network it is, so --org and --network say too much")
	}
	answer, err := client.GetAppWithResponse(ctx, p.app)
	if err := api.Check(answer, err); err != nil {
		return err
	}
	p.org, p.network = answer.JSON200.Organization.Slug, answer.JSON200.Network
	return nil
}

func (p *place) String() string {
	return fmt.Sprintf("network %s of org %s", cmp.Or(p.network, "default"), p.org)
}

// digFlags is what dig is asked.
type digFlags struct {
	place
	short, reverse bool
}

func digCommand(c *cli) *cobra.Command {
	var f digFlags
	command := c.verb(&cobra.Command{
		Use:   "dig [TYPE] NAME [NAMESERVER]",
		Short: "Ask the resolver of a network",
		Long: `Ask what a Machine of a network would be answered. TYPE is AAAA if it is left out,
NAMESERVER the network's resolver, fdaa::3; there is no other to be asked from here.`,
		Example: `  sixpn dig web.internal
  sixpn dig txt _apps.internal --org acme --short
  sixpn dig -x fdaa:0:1:a7b:1:0:2:0
  sixpn dig aaaa web.flycast fdaa::3 --app web
  sixpn dig aaaa top1.nearest.of.web.internal --host two`,
		Args: cobra.RangeArgs(1, 3),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		params, server, err := f.question(args)
		if err != nil {
			return err
		}
		if err := f.find(ctx, client); err != nil {
			return err
		}
		if server != "" {
			if err := f.checkServer(ctx, client, server); err != nil {
				return err
			}
		}
		params.Network, params.HostName = f.network, f.host
		answer, err := client.DigWithResponse(ctx, f.org, &params)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		switch {
		case c.json:
			return c.printJSON(answer.JSON200)
		case f.short:
			for _, record := range answer.JSON200.Answers {
				fmt.Fprintln(c.out, record.Data)
			}
			return nil
		}
		c.printDig(&f.place, args, *answer.JSON200)
		return nil
	})
	f.flags(command)
	command.Flags().BoolVarP(&f.short, "short", "s", false, "print only what the records hold")
	command.Flags().BoolVarP(&f.reverse, "reverse", "x", false, "NAME is an address: ask for its name")
	return command
}

// question reads the arguments. A word is a type if it is one and a name follows.
func (f digFlags) question(args []string) (params api.DigParams, server string, err error) {
	switch {
	case len(args) == 3:
		params.Type, params.Name, server = args[0], args[1], args[2]
	case len(args) == 2 && isType(args[0]) && !isServer(args[1]):
		params.Type, params.Name = args[0], args[1]
	case len(args) == 2 && isServer(args[1]):
		params.Name, server = args[0], args[1]
	case len(args) == 2:
		return params, "", usagef("%q is no type of a record and %q is no address of a nameserver, expected e.g. aaaa web.internal or web.internal fdaa::3", args[0], args[1])
	default:
		params.Name = args[0]
	}
	params.Type = strings.ToUpper(cmp.Or(params.Type, "AAAA"))
	if !isType(params.Type) {
		return params, "", usagef("%q is no type of a record, expected e.g. aaaa, txt or ptr", params.Type)
	}
	if f.reverse {
		if _, err := netip.ParseAddr(params.Name); err != nil {
			return params, "", usagef("-x needs an address, and %q is none", params.Name)
		}
		params.Type = "PTR"
	}
	return params, server, nil
}

func isType(word string) bool {
	_, ok := miekg.StringToType[strings.ToUpper(word)]
	return ok
}

func isServer(word string) bool {
	_, err := netip.ParseAddr(strings.TrimPrefix(word, "@"))
	return err == nil
}

// checkServer refuses a nameserver that is not the resolver of this network.
func (f digFlags) checkServer(ctx context.Context, client *api.ClientWithResponses, server string) error {
	address, err := netip.ParseAddr(strings.TrimPrefix(server, "@"))
	if err != nil {
		return usagef("the nameserver is %q, expected an address: fdaa::3", server)
	}
	if address == sixpn.DNS {
		return nil
	}
	answer, err := client.ListNetworksWithResponse(ctx, f.org)
	if err := api.Check(answer, err); err != nil {
		return err
	}
	for _, network := range answer.JSON200.Networks {
		prefix, err := netip.ParsePrefix(network.Prefix)
		if err != nil || network.Name != cmp.Or(f.network, "default") {
			continue
		}
		if fields, ok := sixpn.Parse(prefix.Addr()); ok && sixpn.NetworkDNS(fields.Network) == address {
			return nil
		}
	}
	return usagef("the nameserver %s is not the resolver of %v, which is fdaa::3; ask another from inside a Machine: sixpn machine exec ID -- dig @%s NAME", address, &f.place, address)
}

// printDig writes an answer as dig does.
func (c *cli) printDig(p *place, args []string, r api.DigResult) {
	truncated := ""
	if r.Truncated {
		truncated = ", over UDP it would be truncated"
	}
	fmt.Fprintf(c.out, "; <<>> sixpn dig <<>> %s\n", strings.Join(args, " "))
	fmt.Fprintf(c.out, ";; ->>HEADER<<- opcode: QUERY, status: %s\n", r.Rcode)
	fmt.Fprintf(c.out, ";; QUERY: 1, ANSWER: %d, AUTHORITY: %d%s\n", len(r.Answers), len(r.Authority), truncated)
	fmt.Fprintf(c.out, "\n;; QUESTION SECTION:\n;%s\tIN\t%s\n", r.Name, r.Type)
	for _, section := range []struct {
		name    string
		records []api.DNSRecord
	}{{"ANSWER", r.Answers}, {"AUTHORITY", r.Authority}} {
		if len(section.records) == 0 {
			continue
		}
		fmt.Fprintf(c.out, "\n;; %s SECTION:\n", section.name)
		for _, record := range section.records {
			fmt.Fprintf(c.out, "%s\t%d\tIN\t%s\t%s\n", record.Name, record.TTL, record.Type, record.Data)
		}
	}
	fmt.Fprintf(c.out, "\n;; SERVER: %s, as in %v\n", sixpn.DNS, p)
}
