// The program reference writes docs/metrics.md, from the directory observe/.
package main

import (
	"fmt"
	"os"

	"github.com/sixpn/sixpn/observe"
)

func main() {
	if err := os.WriteFile("../docs/metrics.md", []byte(observe.Reference()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
