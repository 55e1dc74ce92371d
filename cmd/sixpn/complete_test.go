package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"
)

// completed is what the shell is told, without descriptions.
func completed(t *testing.T, args ...string) []string {
	t.Helper()
	var values []string
	for line := range strings.Lines(do(t, append([]string{cobra.ShellCompRequestCmd}, args...)...)) {
		value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if !strings.HasPrefix(value, ":") {
			values = append(values, value)
		}
	}
	return values
}

func TestCompletionAsksTheAgent(t *testing.T) {
	newWorldWithApps(t)
	do(t, "networks", "create", "staging")
	do(t, "ips", "allocate-v6", "--private", "-a", "web")
	web, db := runs(t, "--", "run"), idOf(t, do(t, "machine", "run", "-a", "db", "-d", "--", "run"))
	both := []string{db, web} // by app
	for _, row := range []struct {
		args string // the last word is completed; _ is an empty one
		want []string
	}{
		{"machine run -a _", []string{"db", "web"}},
		{"machine run --app w", []string{"web"}},
		{"apps show _", []string{"db", "web"}},
		{"apps destroy web _", []string{"db"}},
		{"apps show web _", nil},
		{"apps create _", nil},
		{"apps create x --org _", []string{"acme"}},
		{"apps create x --network _", []string{"default", "staging"}},
		{"orgs delete _", []string{"acme"}},
		{"hosts show _", []string{"one"}},
		{"hosts invite --region am", []string{"ams"}},
		{"networks delete _", []string{"default", "staging"}},
		{"ips release -a web _", []string{"fdaa:0:1:0:1::1"}},
		{"machine stop _", both},
		{"m stop -a web _", []string{web}},
		{"machine stop " + web + " _", []string{db}},
		{"machine exec " + web + " _", nil},
		{"machine leases view -a db _", []string{db}},
		{"machine run --region am", []string{"ams"}},
		{"machine run --restart _", []string{"no", "on-failure", "always"}},
		{"machine run -a web -- _", nil},
		{"logs -a web --machine _", []string{web}},
	} {
		args := strings.Fields(row.args)
		if args[len(args)-1] == "_" {
			args[len(args)-1] = ""
		}
		got := completed(t, args...)
		// The shell drops what does not begin as the word does.
		got = slices.DeleteFunc(got, func(value string) bool { return !strings.HasPrefix(value, args[len(args)-1]) })
		if diff := cmp.Diff(row.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.args, diff)
		}
	}
}

// Without an agent there is nothing to complete, and nothing to say about it.
func TestCompletionWithoutAgent(t *testing.T) {
	t.Setenv("SIXPN_SOCKET", filepath.Join(t.TempDir(), "none"))
	for _, args := range []string{"machine stop", "apps show", "machine run -a", "machine run -r", "orgs show"} {
		if got := completed(t, append(strings.Fields(args), "")...); len(got) != 0 {
			t.Errorf("%s: %q", args, got)
		}
	}
}

// Every command that there is for users stands in the reference.
func TestReference(t *testing.T) {
	var page bytes.Buffer
	root := newRoot(&cli{})
	writeReference(&page, root)
	text := page.String()
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		for _, child := range command.Commands() {
			if child.Name() == "help" || command.Name() == "completion" {
				continue
			}
			if in := strings.Contains(text, "\n## "+child.CommandPath()+"\n"); in == child.Hidden {
				t.Errorf("%s is in the reference: %t", child.CommandPath(), in)
			}
			walk(child)
		}
	}
	walk(root)
	for _, want := range []string{
		"\n## sixpn machine stop\n\nStop Machines: they leave", "sixpn machine stop ID... [flags]", "  -s, --signal string", "\nAlso: `ls`.\n",
		"sixpn machine stop --signal SIGINT", "| [sixpn apps create](#sixpn-apps-create) | Create an app |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the reference has no %q", want)
		}
	}
	if strings.Contains(text, "  -h, --help") {
		t.Error("the reference tells at every command that there is --help")
	}
}
