package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what is known of this program.
type build struct {
	Version  string `json:"version"`
	Modified bool   `json:"modified"` // beside what the version has
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show which build this program is",
		Long: `Show which build this program is. The agent may be of another one, which "sixpn status"
shows.`,
		Example: "  sixpn version\n  sixpn version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := build{Version: version(), Modified: modified(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if c.json {
				return c.printJSON(b)
			}
			more := ""
			if b.Modified {
				more = ", modified"
			}
			_, err := fmt.Fprintf(c.out, "sixpn %s%s, %s, %s\n", b.Version, more, b.Go, b.Platform)
			return err
		},
	}
}

// modified is whether this was built from more than the commit that version says.
func modified() bool {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return false
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.modified" {
			return setting.Value == "true"
		}
	}
	return false
}
