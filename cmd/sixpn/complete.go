package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// completionTime bounds what a press of the tab key may take. An agent that is
// away or slow completes nothing.
const completionTime = time.Second

// lister finds what a word may become.
type lister func(ctx context.Context, client *api.ClientWithResponses, command *cobra.Command) ([]cobra.Completion, error)

// complete lets the shell complete every command. What a flag completes to says its
// name, and what an argument does says its word in the command's usage.
func (c *cli) complete(command *cobra.Command) {
	for flag, list := range map[string]lister{
		"app": appshere, "org": orgshere, "network": networkshere, "region": regionshere, "host": hostshere, "machine": machineshere,
	} {
		c.completeFlag(command, flag, c.listed(list))
	}
	c.completeFlag(command, "restart", cobra.FixedCompletions([]cobra.Completion{
		cobra.CompletionWithDesc("no", "leave it stopped"),
		cobra.CompletionWithDesc("on-failure", "when its exit code is not 0"),
		cobra.CompletionWithDesc("always", "whatever its exit code"),
	}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder))
	c.completeFlag(command, "state", cobra.FixedCompletions([]cobra.Completion{
		"created", "starting", "started", "stopping", "stopped", "suspending", "suspended", "failed", "destroying", "destroyed",
	}, cobra.ShellCompDirectiveNoFileComp))
	if command.ValidArgsFunction == nil && !command.HasSubCommands() {
		command.ValidArgsFunction = c.completeArgs(command)
	}
	for _, child := range command.Commands() {
		c.complete(child)
	}
}

func (c *cli) completeFlag(command *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if command.LocalNonPersistentFlags().Lookup(flag) == nil {
		return
	}
	if _, has := command.GetFlagCompletionFunc(flag); has {
		return
	}
	if err := command.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is there and has none
	}
}

// completeArgs completes the arguments of a command by the words of its usage, such
// as "stop ID...". CMD is a command, of which the shell knows more than we do.
func (c *cli) completeArgs(command *cobra.Command) cobra.CompletionFunc {
	var word, before string
	for _, candidate := range strings.Fields(command.Use)[1:] {
		_, known := argumentLists[strings.TrimSuffix(candidate, "...")]
		if known && !strings.HasPrefix(before, "-") { // else it is the flag's
			word = candidate
			break
		}
		before = candidate
	}
	list := argumentLists[strings.TrimSuffix(word, "...")]
	rest := cobra.ShellCompDirectiveNoFileComp
	if strings.Contains(command.Use, "CMD") {
		rest = cobra.ShellCompDirectiveDefault
	}
	return func(command *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if list == nil || len(args) > 0 && !strings.HasSuffix(word, "...") {
			return nil, rest
		}
		found, directive := c.listed(list)(command, args, toComplete)
		return slices.DeleteFunc(found, func(candidate cobra.Completion) bool {
			value, _, _ := strings.Cut(candidate, "\t")
			return slices.Contains(args, value)
		}), directive
	}
}

// argumentLists is what stands for which words of a usage.
var argumentLists = map[string]lister{
	"ID": machineshere, "APP": appshere, "ORG": orgshere, "NETWORK": networkshere, "ADDRESS": ipshere,
	"HOST": hostshere,
}

// listed asks the agent. It fails in silence: the shell is in the middle of a line.
func (c *cli) listed(list lister) cobra.CompletionFunc {
	return func(command *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		client, err := api.NewSocketClient(c.agentSocket(), 0)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx := command.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTime)
		defer cancel()
		found, err := list(ctx, client, command)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// flagValue is what a flag of the line so far says, empty if there is none.
func flagValue(command *cobra.Command, name string) string {
	if flag := command.Flags().Lookup(name); flag != nil {
		return flag.Value.String()
	}
	return ""
}

func appshere(ctx context.Context, client *api.ClientWithResponses, _ *cobra.Command) (found []cobra.Completion, _ error) {
	answer, err := client.ListAppsWithResponse(ctx, &api.ListAppsParams{})
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, app := range answer.JSON200.Apps {
		found = append(found, cobra.CompletionWithDesc(app.Name, "of "+app.Organization.Slug))
	}
	return found, nil
}

func hostshere(ctx context.Context, client *api.ClientWithResponses, _ *cobra.Command) (found []cobra.Completion, _ error) {
	answer, err := client.ListHostsWithResponse(ctx, nil)
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, h := range answer.JSON200.Hosts {
		found = append(found, cobra.CompletionWithDesc(h.Name, string(h.State)+", in "+h.Region))
	}
	return found, nil
}

func orgshere(ctx context.Context, client *api.ClientWithResponses, _ *cobra.Command) (found []cobra.Completion, _ error) {
	answer, err := client.ListOrgsWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, org := range answer.JSON200.Organizations {
		found = append(found, cobra.CompletionWithDesc(org.Slug, org.Name))
	}
	return found, nil
}

func networkshere(ctx context.Context, client *api.ClientWithResponses, command *cobra.Command) (found []cobra.Completion, _ error) {
	org, err := orgOr(ctx, client, flagValue(command, "org"))
	if err != nil {
		return nil, err
	}
	answer, err := client.ListNetworksWithResponse(ctx, org)
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, n := range answer.JSON200.Networks {
		found = append(found, cobra.CompletionWithDesc(n.Name, n.Prefix))
	}
	return found, nil
}

func regionshere(ctx context.Context, client *api.ClientWithResponses, _ *cobra.Command) (found []cobra.Completion, _ error) {
	answer, err := client.ListRegionsWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, r := range answer.JSON200.Regions {
		found = append(found, cobra.CompletionWithDesc(r.Code, r.Name))
	}
	return found, nil
}

func machineshere(ctx context.Context, client *api.ClientWithResponses, command *cobra.Command) (found []cobra.Completion, _ error) {
	apps, err := appsOr(ctx, client, flagValue(command, "app"))
	if err != nil {
		return nil, err
	}
	for _, app := range apps {
		answer, err := client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{Summary: true})
		if err := api.Check(answer, err); err != nil {
			return nil, err
		}
		for _, m := range *answer.JSON200 {
			found = append(found, cobra.CompletionWithDesc(m.ID, m.State+", "+m.Name+" of "+app))
		}
	}
	return found, nil
}

func ipshere(ctx context.Context, client *api.ClientWithResponses, command *cobra.Command) (found []cobra.Completion, _ error) {
	answer, err := client.ListIPAssignmentsWithResponse(ctx, flagValue(command, "app"))
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	for _, ip := range answer.JSON200.Ips {
		found = append(found, cobra.CompletionWithDesc(ip.IP, ip.OrgSlug+"/"+ip.Network))
	}
	return found, nil
}
