// The program generate writes the dashboards' files, from the directory dashboards/.
package main

import (
	"fmt"
	"os"

	"github.com/sixpn/sixpn/dashboards"
)

func main() {
	for _, d := range dashboards.All() {
		content, err := d.JSON()
		if err == nil {
			err = os.WriteFile(d.Name+".json", content, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
