package payload

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Lookup is what "lookup" got.
type Lookup struct {
	Server    string   `json:"server"`
	Rcode     string   `json:"rcode"`   // e.g. NOERROR, "" without an answer
	Answers   []string `json:"answers"` // addresses, names, or joined texts, in their order
	Truncated bool     `json:"truncated,omitempty"`
	Authority int      `json:"authority"` // SOA records beside them
	Error     string   `json:"error,omitempty"`
}

// lookup asks the resolver that /etc/resolv.conf names.
//
//	lookup [-tcp] [-timeout D] TYPE NAME
func lookup(ctx context.Context, args []string, out io.Writer) error {
	var tcp bool
	var timeout time.Duration
	rest, err := flags(args, 2, "TYPE NAME", func(set *flag.FlagSet) {
		set.BoolVar(&tcp, "tcp", false, "")
		set.DurationVar(&timeout, "timeout", patience, "")
	})
	if err != nil {
		return err
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	result := Lookup{Server: config.Servers[0], Answers: []string{}}
	query := new(dns.Msg).SetQuestion(dns.Fqdn(rest[1]), dns.StringToType[rest[0]])
	client := &dns.Client{Timeout: timeout}
	if tcp {
		client.Net = "tcp"
	}
	reply, _, err := client.ExchangeContext(ctx, query, net.JoinHostPort(result.Server, "53"))
	if err != nil {
		result.Error = kind(err)
		return report(out, result)
	}
	result.Rcode, result.Truncated = dns.RcodeToString[reply.Rcode], reply.Truncated
	for _, rr := range reply.Ns {
		if _, ok := rr.(*dns.SOA); ok {
			result.Authority++
		}
	}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.AAAA:
			result.Answers = append(result.Answers, rr.AAAA.String())
		case *dns.TXT:
			result.Answers = append(result.Answers, strings.Join(rr.Txt, ""))
		case *dns.A:
			result.Answers = append(result.Answers, rr.A.String())
		case *dns.PTR:
			result.Answers = append(result.Answers, rr.Ptr)
		}
	}
	return report(out, result)
}

// pipeline sends all queries over one connection before it reads, and counts the
// replies.
//
//	pipeline TYPE NAME COUNT
func pipeline(ctx context.Context, args []string, out io.Writer) error {
	rest, err := flags(args, 3, "TYPE NAME COUNT", func(*flag.FlagSet) {})
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(rest[2])
	if err != nil {
		return err
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	conn, err := client.DialContext(ctx, net.JoinHostPort(config.Servers[0], "53"))
	if err != nil {
		return err
	}
	defer conn.Close()
	for range count {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(rest[1]), dns.StringToType[rest[0]])); err != nil {
			return err
		}
	}
	answered := 0
	for range count {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		reply, err := conn.ReadMsg()
		if err != nil {
			break // what is missing is seen in the count
		}
		if reply.Rcode == dns.RcodeSuccess && len(reply.Answer) > 0 {
			answered++
		}
	}
	return report(out, answered)
}

// Surroundings is what a Machine finds around itself.
type Surroundings struct {
	Environment map[string]string `json:"environment"`
	Hosts       string            `json:"hosts"`       // content of /etc/hosts
	ResolvConf  string            `json:"resolv_conf"` // content of /etc/resolv.conf
	Local       []string          `json:"local"`       // what fly-local-6pn resolves to
	Localhost   []string          `json:"localhost"`
}

// environment prints the process's surroundings.
func environment(ctx context.Context, args []string, out io.Writer) error {
	if _, err := flags(args, 0, "no argument", func(*flag.FlagSet) {}); err != nil {
		return err
	}
	result := Surroundings{Environment: map[string]string{}}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		result.Environment[name] = value
	}
	for path, content := range map[string]*string{"/etc/hosts": &result.Hosts, "/etc/resolv.conf": &result.ResolvConf} {
		read, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		*content = string(read)
	}
	// The error is an empty list.
	result.Local, _ = net.DefaultResolver.LookupHost(ctx, "fly-local-6pn")
	result.Localhost, _ = net.DefaultResolver.LookupHost(ctx, "localhost")
	return report(out, result)
}
