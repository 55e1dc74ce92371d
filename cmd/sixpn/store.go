package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/agent"
	"github.com/sixpn/sixpn/api"
)

func storeCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:   "store",
		Short: "The store that holds the state of the fleet",
		Long: `The store that holds the state of the fleet: on the first host, once there are three on
three of them, or in an etcd cluster of the operator's ("sixpn agent --store").`,
		Example: "  sixpn store status\n  sixpn store export /var/backups/sixpn.store",
	}, storeStatus(c), storeExport(c), storeImport(c), storeRestore(c))
}

func storeStatus(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "status",
		Short:   "Show the members of the store and how they do",
		Example: "  sixpn store status",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.GetStoreWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		s := answer.JSON200
		if c.json {
			return c.printJSON(s)
		}
		where := map[api.StoreStatusKind]string{
			api.StoreStatusKindHost: "this host alone", api.StoreStatusKindFleet: "hosts of the fleet", api.StoreStatusKindCluster: "an etcd cluster of its own",
		}
		if err := c.pairs("Held by", where[s.Kind], "Revision", fmt.Sprint(s.Revision)); err != nil {
			return err
		}
		fmt.Fprintln(c.out)
		var rows [][]string
		for _, m := range s.Members {
			is, size := "answers", fmt.Sprintf("%.1f MiB", float64(m.Bytes)/(1<<20))
			if !m.Answers {
				is, size = "does not answer: "+m.Error, ""
			}
			rows = append(rows, []string{m.Host, string(m.Role), m.Endpoint, m.Version, size, is})
		}
		return c.table("HOST,ROLE,ENDPOINT,VERSION,SIZE,STATE", rows)
	})
}

func storeExport(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:   "export [FILE]",
		Short: "Write all that the store holds to a file",
		Long: `Write all that the store holds, as of one moment, to a file that "sixpn store restore"
and "sixpn store import" read, or to standard output. It holds secrets, such as the key
by which hosts are let into the fleet: the file is readable by its owner alone.`,
		Example: "  sixpn store export /var/backups/sixpn.store",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if c.json {
			return usagef("an export is what it is: there is no --json")
		}
		response, err := client.ExportStore(ctx)
		if err := api.CheckResponse(response, err); err != nil {
			return err
		}
		defer response.Body.Close()
		if len(args) == 0 || args[0] == "-" {
			_, err = io.Copy(c.out, response.Body)
			return err
		}
		size, err := writePrivate(args[0], response.Body)
		if err != nil {
			return fmt.Errorf("export to %s: %w", args[0], err)
		}
		fmt.Fprintf(c.out, "Exported the store to %s, %d bytes\n", args[0], size)
		return nil
	})
}

// writePrivate leaves either what was there or all of the new content, durable.
func writePrivate(path string, content io.Reader) (size int64, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".export") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name()) // not there any more when all went well
	size, err = io.Copy(file, content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return 0, err
	}
	return size, os.Rename(file.Name(), path)
}

func storeImport(c *cli) *cobra.Command {
	var config agent.Config
	command := &cobra.Command{
		Use:   "import FILE",
		Short: "Write an export into an etcd cluster of the operator's",
		Long: `Write an export into an etcd cluster of the operator's, which must have nothing of
sixpn's yet. Stop all agents, export from the last one before it is stopped, import, and
start the agents with --store and the same credentials, each with its state directory as
it is. What was written after the export is not there: a host that has seen such a write
says so, and takes nothing from the new store.`,
		Example: "  sixpn store import /var/backups/sixpn.store --store https://192.0.2.9:2379 --store-cert /etc/sixpn/etcd.pem --store-ca /etc/sixpn/etcd-ca.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			c.running = true
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			records, err := agent.ImportStore(command.Context(), config, file)
			if err != nil {
				return configError(err)
			}
			if c.json {
				return c.printJSON(map[string]int{"records": records})
			}
			fmt.Fprintf(c.out, "Imported %d records\n", records)
			return nil
		},
	}
	flags := command.Flags()
	flags.StringSliceVar(&config.Store, "store", nil, "URLs of the cluster")
	flags.StringVar(&config.StoreCert, "store-cert", "", "file of the client certificate for it, PEM")
	flags.StringVar(&config.StoreKey, "store-key", "", "file of the key that belongs to it (default the certificate's file)")
	flags.StringVar(&config.StoreCA, "store-ca", "", "file of the authorities that may have signed its certificates (default those that the host trusts)")
	flags.StringVar(&config.StoreUser, "store-user", os.Getenv("SIXPN_AGENT_STORE_USER"), "user of it and password, USER:PASSWORD (default $SIXPN_AGENT_STORE_USER)")
	flags.Lookup("store-user").DefValue = ""
	_ = command.MarkFlagRequired("store")
	return command
}

func storeRestore(c *cli) *cobra.Command {
	var sources *agent.Sources
	var yes bool
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Start again from an export, on this host",
		Long: `Start again from an export, on this host, when the store is lost or has lost its
majority for good. No agent may run here. The store that the host has is kept beside
the new one. The host is the first of its fleet then: start its agent, and after it
those of the others.

The other hosts take the restored store as soon as their agents see it, also those at
work: its generation is later than that of the one they knew. One that is older by
chance is refused. What was written after the export is lost, but what a host has is
not: it records itself and its Machines again, with their apps and networks, and what
runs goes on with its address. Flycast addresses of after the export,
and apps that ran nothing, are to be made anew. A Machine that was destroyed after it is there again, and one that
had moved starts where it was before.

A host that knows only stores that are gone, because this one was no member of its, is
started with a token of "sixpn hosts invite", after the file "fleet/fleet.json" of its
state directory was removed: it stays what it was.`,
		Example: "  sixpn store restore /var/backups/sixpn.store --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			c.running = true
			if err := c.agentName(command); err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			if err := c.confirm(yes, "Put the export in the place of this host's store?"); err != nil {
				return err
			}
			done, err := sources.RestoreStore(command.Context(), c.err, file)
			if err != nil {
				return configError(err)
			}
			if c.json {
				return c.printJSON(map[string]any{"records": done.Records, "revision": done.Revision, "exported_at": done.At, "aside": done.Aside})
			}
			fmt.Fprintf(c.out, "Restored %d records of %s\n", done.Records, done.At.Local().Format(time.DateTime))
			if done.Aside != "" {
				fmt.Fprintf(c.out, "The store of before is in %s\n", done.Aside)
			}
			return nil
		},
	}
	sources = agent.AddPlaces(command.Flags())
	yesFlag(command, &yes)
	return command
}
